"""Watching many jobs with one stream."""

import asyncio
from contextlib import aclosing

import pytest

from gradwire_proto.v1.training_service_pb2 import JobState
from gradwire_server.errors import ShuttingDownError
from gradwire_server.jobs import live
from gradwire_server.jobs.live import LiveJobs
from gradwire_server.principal import OPERATOR


@pytest.fixture
def watch(database, jobs):
    def start(*names, include_new=False):
        return aclosing(LiveJobs(database, jobs.notifier).watch(OPERATOR, names, include_new))

    return start


async def following(stream):
    return await asyncio.wait_for(anext(stream), 20)


def test_the_named_jobs_come_first_and_then_their_changes(jobs, watch):
    async def scenario():
        await jobs.create("a")
        await jobs.create("b")
        async with watch("jobs/b", "jobs/nobody") as stream:
            first = await following(stream)
            assert [job.name for job in first.jobs] == ["jobs/b"]
            assert not first.jobs[0].HasField("spec")
            assert first.deleted == ["jobs/nobody"]
            await jobs.commands.cancel(OPERATOR, "jobs/a")
            await jobs.commands.pause(OPERATOR, "jobs/b")
            (changed,) = (await following(stream)).jobs
            assert (changed.name, changed.state) == ("jobs/b", JobState.JOB_STATE_PAUSED)

    asyncio.run(scenario())


def test_several_changes_are_sent_as_one(jobs, watch):
    async def scenario():
        await jobs.create("a")
        async with watch("jobs/a") as stream:
            await following(stream)
            for change in (jobs.commands.pause, jobs.commands.resume, jobs.commands.cancel):
                await change(OPERATOR, "jobs/a")
            (changed,) = (await following(stream)).jobs
            assert changed.state == JobState.JOB_STATE_CANCELLED
            await jobs.commands.delete(OPERATOR, "jobs/a")
            assert (await following(stream)).deleted == ["jobs/a"]

    asyncio.run(scenario())


def test_new_jobs_are_sent_if_they_are_asked_for(jobs, watch):
    async def scenario():
        async with watch(include_new=True) as with_new, watch() as without:
            assert not (await following(with_new)).jobs
            await following(without)
            await jobs.create("new")
            (new,) = (await following(with_new)).jobs
            assert new.name == "jobs/new"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(without), 0.2)

    asyncio.run(scenario())


def test_of_many_new_jobs_those_that_changed_last_are_kept(jobs, watch, monkeypatch):
    monkeypatch.setattr(live, "_MAX_WATCHED", 2)

    async def scenario():
        async with watch(include_new=True) as stream:
            await following(stream)
            for name in ("a", "b", "c"):
                await jobs.create(name)
            assert [job.name for job in (await following(stream)).jobs][-2:] == ["jobs/b", "jobs/c"]
            await jobs.commands.cancel(OPERATOR, "jobs/a")
            assert [job.name for job in (await following(stream)).jobs] == ["jobs/a"]

    asyncio.run(scenario())


def test_after_a_gap_all_watched_jobs_are_read_again(jobs, watch):
    async def scenario():
        await jobs.create("a")
        async with watch("jobs/a") as stream:
            await following(stream)
            jobs.notifier.publish_gap()
            assert [job.name for job in (await following(stream)).jobs] == ["jobs/a"]

    asyncio.run(scenario())


def test_a_watch_ends_when_the_server_shuts_down(jobs, watch):
    async def scenario():
        async with watch() as stream, watch() as later:
            await following(stream)
            jobs.notifier.close()
            with pytest.raises(ShuttingDownError):
                await following(stream)
            await following(later)
            with pytest.raises(ShuttingDownError):
                await following(later)

    asyncio.run(scenario())
    assert jobs.notifier._observers == []


def test_a_job_from_before_the_watch_is_not_new(jobs, watch):
    async def scenario():
        await jobs.create("old")
        async with watch(include_new=True) as stream:
            assert not (await following(stream)).jobs
            await jobs.commands.cancel(OPERATOR, "jobs/old")
            await jobs.create("new")
            assert [job.name for job in (await following(stream)).jobs] == ["jobs/new"]

    asyncio.run(scenario())
