"""Which of several servers that share a database schedules jobs. The tests use a SQLite file as the shared database."""

import asyncio

import pytest
from server_parts import open_jobs

from gradwire_proto.v1.errors_pb2 import JobErrorReason
from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.training_service_pb2 import Event, JobState
from gradwire_server.principal import OPERATOR
from gradwire_server.scheduling.lease import Lease, LeaseLostError
from gradwire_server.store import lease_queries
from gradwire_server.store.lease_queries import Acquired


@pytest.fixture
def shared_database(database):
    database.shared = True
    return database


def test_one_server_holds_the_lease_until_it_releases_it(shared_database):
    async def scenario():
        first, second = Lease(shared_database), Lease(shared_database)
        assert await first.try_acquire()
        assert not await second.try_acquire()
        await first.release()
        assert await second.try_acquire()

    asyncio.run(scenario())


def test_a_lease_that_is_not_renewed_goes_to_another_server_with_a_larger_token(shared_database):
    async def scenario():
        write = shared_database.write
        assert await write(lambda c: lease_queries.acquire(c, "one", exclusive=False)) == Acquired(1, orderly=True)
        assert await write(lambda c: lease_queries.acquire(c, "two", exclusive=False)) is None
        assert await write(lambda c: lease_queries.renew(c, 1))
        await write(lambda c: lease_queries.release(c, 1))
        assert await write(lambda c: lease_queries.acquire(c, "two", exclusive=False)) == Acquired(2, orderly=False)
        assert not await write(lambda c: lease_queries.renew(c, 1))
        await write(lambda c: lease_queries.release(c, 1))  # A server that lost the lease cannot release it.
        assert await write(lambda c: lease_queries.acquire(c, "one", exclusive=False)) is None
        assert await shared_database.read(lease_queries.holder) == "two"

    asyncio.run(scenario())


def test_a_lease_expires_six_seconds_after_its_last_renewal(shared_database, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(lease_queries.time, "time", lambda: now)

    async def scenario():
        nonlocal now
        write = shared_database.write
        assert await write(lambda c: lease_queries.acquire(c, "one", exclusive=False)) == lease_queries.Acquired(
            1, orderly=True
        )
        now += 4
        assert await write(lambda c: lease_queries.renew(c, 1))
        now += 5.9
        assert await write(lambda c: lease_queries.acquire(c, "two", exclusive=False)) is None
        now += 0.2
        assert await write(lambda c: lease_queries.acquire(c, "two", exclusive=False)) == lease_queries.Acquired(
            2, orderly=False
        )
        assert not await write(lambda c: lease_queries.renew(c, 1))

    asyncio.run(scenario())


def test_the_only_server_on_a_file_takes_the_lease_of_one_that_was_killed(shared_database):
    async def scenario():
        assert await Lease(shared_database).try_acquire()
        shared_database.shared = False
        assert await Lease(shared_database).try_acquire()

    asyncio.run(scenario())


def test_a_server_that_lost_the_lease_records_nothing_for_attempts_but_still_executes_commands(shared_database):
    async def scenario():
        first, second = Lease(shared_database), Lease(shared_database)
        old, new = open_jobs(shared_database, first), open_jobs(shared_database, second)
        await first.try_acquire()
        record = await old.start()
        # Simulate that the first server was suspended until its lease expired.
        await shared_database.write(lambda c: lease_queries.release(c, 1))
        await second.try_acquire()
        epoch = Event(epoch=Epoch(epoch=1))
        key = record.job_key
        for write in (
            lambda: old.records.record_reports(key, 1, [epoch], 1),
            lambda: old.records.worker_lost(key, 1, "gone", ""),
            lambda: old.records.fail(key, 1, JobErrorReason.JOB_ERROR_REASON_SERVER_ERROR, ""),
            lambda: old.records.requeue(key, 1),
            lambda: old.records.start_attempt(key),
        ):
            with pytest.raises(LeaseLostError):
                await write()
        recorded = await new.records.record_reports(key, 1, [epoch], 1)
        assert recorded.job.last_sequence == 3
        assert (await old.commands.cancel(OPERATOR, "jobs/a")).state == JobState.JOB_STATE_CANCELLED

    asyncio.run(scenario())


@pytest.mark.parametrize("released", [True, False])
def test_a_server_that_did_not_shut_down_cleanly_has_crashed(shared_database, released):
    async def scenario():
        first, second = Lease(shared_database), Lease(shared_database)
        await first.try_acquire()
        assert not first.after_crash
        if released:  # This happens when Ray is lost.
            await first.release()
        shared_database.shared = released
        assert await second.try_acquire()
        assert second.after_crash

    asyncio.run(scenario())


def test_a_server_that_shut_down_cleanly_has_not_crashed(shared_database):
    async def scenario():
        first, second = Lease(shared_database), Lease(shared_database)
        await first.try_acquire()
        await first.mark_orderly()
        await first.release()
        await second.try_acquire()
        assert not second.after_crash

    asyncio.run(scenario())


def test_a_server_that_acquires_its_own_lease_again_has_not_crashed(shared_database):
    async def scenario():
        lease = Lease(shared_database)
        shared_database.shared = False
        for _ in range(3):
            await lease.try_acquire()
            assert not lease.after_crash

    asyncio.run(scenario())
