"""Client commands and queries, and their effects on a job and its log."""

import asyncio
import gc
from contextlib import aclosing

import pytest
from server_parts import NOW, blocked_writes
from sqlalchemy import event

from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.training_service_pb2 import Event, JobState
from gradwire_server.errors import (
    JobAlreadyExistsError,
    JobEndedError,
    JobNotEndedError,
    JobNotFoundError,
    JobNotPausedError,
    RequestIdReusedError,
    SequenceOutOfRangeError,
    ShuttingDownError,
)
from gradwire_server.principal import OPERATOR
from gradwire_server.store import job_queries
from gradwire_server.store.notifications import JobChange


def test_a_repeated_request_returns_the_job_that_the_first_one_created(jobs):
    async def scenario():
        first = await jobs.create("a", "request-1")
        assert first.create_time.seconds == NOW
        assert await jobs.create("a", "request-1") == first
        assert await jobs.queries.find_by_request(OPERATOR, "request-1") == first
        assert await jobs.queries.find_by_request(OPERATOR, "request-2") is None

    asyncio.run(scenario())


def test_another_request_cannot_take_the_name_of_a_job(jobs):
    async def scenario():
        await jobs.create("a", "request-1")
        with pytest.raises(JobAlreadyExistsError, match="'jobs/a' already exists") as caught:
            await jobs.create("a", "request-2")
        assert caught.value.metadata == {"job": "jobs/a"}

    asyncio.run(scenario())


def test_one_of_two_simultaneous_requests_with_the_same_id_is_refused(jobs):
    async def scenario():
        both = (jobs.create("", "request-1", labels={"team": team}) for team in ("vision", "speech"))
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        (refused,) = [each for each in outcomes if isinstance(each, RequestIdReusedError)]
        assert refused.metadata["fields"] == "job.labels"

    asyncio.run(scenario())


def test_jobs_without_an_id_get_different_ids(jobs):
    async def scenario():
        names = {(await jobs.create("")).name for _ in range(20)}
        assert len(names) == 20

    asyncio.run(scenario())


def test_cancelling_a_job_twice_changes_it_once(jobs):
    async def scenario():
        await jobs.start()
        first = await jobs.commands.cancel(OPERATOR, "jobs/a")
        assert first.state == JobState.JOB_STATE_CANCELLED
        assert await jobs.commands.cancel(OPERATOR, "jobs/a") == first

    asyncio.run(scenario())


def test_a_job_can_be_paused_and_resumed_and_each_can_be_repeated(jobs):
    async def scenario():
        await jobs.start()
        paused = await jobs.commands.pause(OPERATOR, "jobs/a")
        assert paused.state == JobState.JOB_STATE_PAUSED
        assert await jobs.commands.pause(OPERATOR, "jobs/a") == paused
        resumed = await jobs.commands.resume(OPERATOR, "jobs/a")
        assert resumed.state == JobState.JOB_STATE_QUEUED
        assert await jobs.commands.resume(OPERATOR, "jobs/a") == resumed

    asyncio.run(scenario())


def test_looking_for_an_earlier_pause_reads_no_epochs(database):
    def plan(connection):
        statements = []
        event.listen(connection, "before_cursor_execute", lambda *arguments: statements.append(arguments[2:4]))
        job_queries.was_paused(connection, 1)
        statement, parameters = statements[-1]
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]

    steps = asyncio.run(database.read(plan))
    assert [step for step in steps if step.startswith(("SEARCH", "SCAN"))] == [
        "SEARCH events USING PRIMARY KEY (job=? AND sequence=?)",
        "SEARCH events_1 USING COVERING INDEX state_changes_and_warnings (job=? AND kind=?)",
    ]


def test_only_a_paused_job_can_be_resumed_and_only_an_ended_job_deleted(jobs):
    async def scenario():
        await jobs.start()
        with pytest.raises(JobNotPausedError) as caught:
            await jobs.commands.resume(OPERATOR, "jobs/a")
        assert caught.value.metadata == {"job": "jobs/a", "state": "STARTING"}
        with pytest.raises(JobNotEndedError, match="Cancel it before"):
            await jobs.commands.delete(OPERATOR, "jobs/a")
        await jobs.commands.cancel(OPERATOR, "jobs/a")
        for command in (jobs.commands.pause, jobs.commands.resume):
            with pytest.raises(JobEndedError, match=r"has ended \(CANCELLED\)"):
                await command(OPERATOR, "jobs/a")
        await jobs.commands.delete(OPERATOR, "jobs/a")
        with pytest.raises(JobNotFoundError):
            await jobs.commands.delete(OPERATOR, "jobs/a")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "name", ["jobs/none", "none", "models/a", "a", "", "jobs/a\0", "jobs/a/b", "jobs/A", "jobs/" + 64 * "a"]
)
def test_unknown_names_are_not_found(jobs, name):
    asyncio.run(jobs.create("a"))
    with pytest.raises(JobNotFoundError, match="does not exist"):
        asyncio.run(jobs.queries.get(OPERATOR, name))


async def next_of(watch):
    return await asyncio.wait_for(anext(watch), 10)


async def until_it_waits(jobs, job_key=1):
    """Wait until a watch has read everything and is waiting for a change."""
    while not any(watch._event._waiters for watch in jobs.notifier._watches[job_key]):
        await asyncio.sleep(0.001)


def test_a_watch_continues_after_a_sequence_number_and_ends_with_the_job(jobs):
    async def scenario():
        await jobs.start()
        async with aclosing(jobs.queries.watch(OPERATOR, "jobs/a", 1)) as watch:
            assert [event.sequence for event in await next_of(watch)] == [2]
            waiting = asyncio.create_task(anext(watch))
            await asyncio.wait_for(until_it_waits(jobs), 10)
            await jobs.commands.cancel(OPERATOR, "jobs/a")
            assert [event.sequence for event in await asyncio.wait_for(waiting, 10)] == [3]
            assert await anext(watch, "end") == "end"
        async with aclosing(jobs.queries.watch(OPERATOR, "jobs/a", 3)) as watch:
            assert await anext(watch, "end") == "end"

    asyncio.run(scenario())


def test_a_command_that_is_abandoned_before_its_commit_still_wakes_the_watchers(jobs, database):
    async def scenario():
        await jobs.start()
        async with aclosing(jobs.queries.watch(OPERATOR, "jobs/a", 2)) as watch:
            waiting = asyncio.create_task(anext(watch))
            await asyncio.wait_for(until_it_waits(jobs), 10)
            async with blocked_writes(database) as next_write:
                abandoned = asyncio.create_task(jobs.commands.cancel(OPERATOR, "jobs/a"))
                await next_write()
                abandoned.cancel()
            events = await asyncio.wait_for(waiting, 10)
            assert events[-1].state_change.state == JobState.JOB_STATE_CANCELLED

    asyncio.run(scenario())


def test_the_failure_of_an_abandoned_command_is_not_logged_as_an_unretrieved_exception(jobs, database):
    async def scenario():
        logged = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context["message"]))
        await jobs.start()
        await jobs.commands.cancel(OPERATOR, "jobs/a")
        async with blocked_writes(database) as next_write:
            abandoned = asyncio.create_task(jobs.commands.pause(OPERATOR, "jobs/a"))
            await next_write()
            abandoned.cancel()
        await jobs.create("b")
        del abandoned
        gc.collect()
        assert logged == []

    asyncio.run(scenario())


def test_a_watch_of_a_job_that_is_deleted_ends(jobs):
    async def scenario():
        record = await jobs.start()
        async with aclosing(jobs.queries.watch(OPERATOR, "jobs/a", 0)) as watch:
            await next_of(watch)
            await jobs.commands.cancel(OPERATOR, "jobs/a")
            await jobs.commands.delete(OPERATOR, "jobs/a")
            with pytest.raises(JobNotFoundError):
                await next_of(watch)
        assert record.job_key not in jobs.notifier._watches, "nothing is kept for a job that nobody watches"

    asyncio.run(scenario())


def test_a_watch_ends_when_the_server_shuts_down(jobs):
    async def scenario():
        await jobs.start()
        async with aclosing(jobs.queries.watch(OPERATOR, "jobs/a", 0)) as watch:
            await next_of(watch)
            waiting = asyncio.create_task(anext(watch))
            await asyncio.wait_for(until_it_waits(jobs), 10)
            jobs.notifier.close()
            with pytest.raises(ShuttingDownError):
                await asyncio.wait_for(waiting, 10)

    asyncio.run(scenario())


@pytest.mark.parametrize("after", [2, -1, 2**63 - 1])
def test_a_watch_after_an_event_that_does_not_exist_is_refused(jobs, after):
    async def scenario():
        await jobs.create("a")
        with pytest.raises(SequenceOutOfRangeError, match="must be 0 to 1") as caught:
            await next_of(jobs.queries.watch(OPERATOR, "jobs/a", after))
        assert caught.value.metadata == {"job": "jobs/a", "after_sequence": str(after), "last_sequence": "1"}

    asyncio.run(scenario())


def test_a_change_between_reading_and_waiting_wakes_the_watcher(jobs):
    async def scenario():
        with jobs.notifier.watching(1) as first, jobs.notifier.watching(2) as second:
            jobs.notifier.publish(JobChange(1))
            await asyncio.wait_for(first.changed(), 1)
            waiting = [asyncio.ensure_future(watch.changed()) for watch in (first, second)]
            await asyncio.sleep(0)
            assert not any(each.done() for each in waiting)
            jobs.notifier.publish_gap()
            await asyncio.wait_for(asyncio.gather(*waiting), 1)

    asyncio.run(scenario())


def test_a_subscriber_is_notified_of_changes_as_long_as_it_is_subscribed(jobs):
    class Subscriber:
        def __init__(self):
            self.heard = []

        def on_change(self, change):
            self.heard.append(change)

        def on_gap(self):
            self.heard.append("gap")

    async def scenario():
        subscriber = Subscriber()
        with jobs.notifier.subscribed(subscriber):
            record = await jobs.start()
            await jobs.records.record_reports(record.job_key, 1, [Event(epoch=Epoch(epoch=1))], 1)
            await jobs.commands.stop(OPERATOR, "jobs/a")
            await jobs.commands.cancel(OPERATOR, "jobs/a")
            jobs.notifier.publish_gap()
        await jobs.create("b")
        started, finishing = JobChange(1, start=True), JobChange(1, start=True, finish=True)
        assert subscriber.heard == [started, finishing, JobChange(1, stop=True), "gap"]

    asyncio.run(scenario())


def test_many_watches_do_not_read_at_the_same_time(jobs, database, monkeypatch):
    reading, most = set(), 0
    read = database.read

    async def counted(work):
        nonlocal most
        reading.add(work)
        most = max(most, len(reading))
        try:
            return await read(work)
        finally:
            reading.discard(work)

    async def first_events():
        async with aclosing(jobs.queries.watch(OPERATOR, "jobs/a", 0)) as watch:
            return await anext(watch)

    async def scenario():
        await jobs.start()
        monkeypatch.setattr(database, "read", counted)
        found = await asyncio.gather(*(first_events() for _ in range(50)))
        assert all(len(events) == 2 for events in found)
        assert most == 2

    asyncio.run(scenario())
