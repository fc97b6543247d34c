"""Who schedules, where several servers share a database; here a SQLite file that is treated as if they did."""

import asyncio

import pytest

from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.training_service_pb2 import Epoch, Event, JobState
from gradwire_server.jobs.commands import Jobs
from gradwire_server.jobs.notifier import Changes
from gradwire_server.scheduling.lease import Lease, LeaseLostError
from gradwire_server.store import lease_queries as rows
from gradwire_server.store.database import Database
from gradwire_server.store.notifications import Change


@pytest.fixture
def database(tmp_path):
    opened = Database(tmp_path / "gradwire.db")
    opened.shared = True
    yield opened
    opened.close()


def test_one_holds_the_lease_and_gives_it_back(database):
    async def scenario():
        first, second = Lease(database), Lease(database)
        assert await first.try_take()
        assert not await second.try_take()
        await first.give_back()
        assert await second.try_take()

    asyncio.run(scenario())


def test_a_lease_that_is_not_renewed_goes_to_another_and_the_token_grows(database):
    async def scenario():
        assert await database.write(lambda c: rows.take(c, "one", alone=False)) == 1
        assert await database.write(lambda c: rows.take(c, "two", alone=False)) is None
        assert await database.write(lambda c: rows.renew(c, 1))
        await database.write(lambda c: rows.give_back(c, 1))
        assert await database.write(lambda c: rows.take(c, "two", alone=False)) == 2
        assert not await database.write(lambda c: rows.renew(c, 1))
        await database.write(lambda c: rows.give_back(c, 1))  # Of one that has lost it: takes nothing away.
        assert await database.write(lambda c: rows.take(c, "one", alone=False)) is None
        assert await database.read(rows.holder) == "two"

    asyncio.run(scenario())


def test_the_only_server_on_a_file_does_not_wait_for_one_that_was_killed(database):
    async def scenario():
        assert await Lease(database).try_take()
        database.shared = False
        assert await Lease(database).try_take()

    asyncio.run(scenario())


def test_a_server_that_lost_the_lease_writes_nothing_for_its_attempts(database):
    async def scenario():
        first, second = Lease(database), Lease(database)
        old, new = Jobs(database, Changes(), first), Jobs(database, Changes(), second)
        await first.try_take()
        await old.create(JobSpec(epochs=3), True, "a", "")
        row = await old.start_attempt(1)
        await database.write(lambda c: rows.give_back(c, 1))  # As if it had stood still until the lease ran out.
        await second.try_take()
        epoch = Event(epoch=Epoch(epoch=1))
        for write in (
            lambda: old.record(row.id, 1, [epoch], 1),
            lambda: old.worker_lost(row.id, 1, "gone", ""),
            lambda: old.fail(row.id, 1, "SERVER_ERROR", ""),
            lambda: old.requeue(row.id, 1),
        ):
            with pytest.raises(LeaseLostError):
                await write()
        recorded = await new.record(row.id, 1, [epoch], 1)
        assert recorded.message.last_sequence == 3
        assert (await old.cancel("jobs/a")).message.state == JobState.JOB_STATE_CANCELLED, "any server serves"

    asyncio.run(scenario())


def test_changes_reach_watchers_and_what_starts_or_stops_reaches_the_scheduler():
    class Scheduler:
        def __init__(self):
            self.heard = []

        def react(self, change):
            self.heard.append(change)

        def look_at_all(self):
            self.heard.append("all")

    async def scenario():
        changes, scheduler = Changes(), Scheduler()
        changes.scheduler = scheduler
        signals = [changes.signal(1), changes.signal(2)]
        changes.hear(Change(1))
        assert [signal.is_set() for signal in signals] == [True, False]
        changes.hear(Change(3, stop=True))
        changes.look_at_all()
        assert signals[1].is_set()
        assert scheduler.heard == [Change(3, stop=True), "all"]

    asyncio.run(scenario())
