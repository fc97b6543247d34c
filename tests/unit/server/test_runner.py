"""What the runner does by itself, without Ray."""

import asyncio
import queue

import pytest

from gradwire_server.settings import Settings
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.workers import ray_cluster as runner_module
from gradwire_server.workers.ray_cluster import ClusterLostError, Runner


@pytest.fixture
def runner(tmp_path):
    return Runner(Settings(data=tmp_path), BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch"))


def test_workers_that_no_server_has_are_ended_and_the_others_are_told_that_they_are_wanted(runner, monkeypatch):
    mine, left, stranger = f"{runner._name_prefix}mine-cpu", f"{runner._store_prefix}0.0.1-left-cpu", "trainer-other"
    runner._names.add(mine)
    done = queue.SimpleQueue()
    monkeypatch.setattr(runner_module, "_FORSAKEN_SECONDS", 0.1)
    monkeypatch.setattr(runner_module.ray.util, "list_named_actors", lambda: [mine, left, stranger])
    monkeypatch.setattr(runner_module, "_end", lambda name: done.put(("ended", name)))
    monkeypatch.setattr(runner_module, "_call_on", lambda name: done.put(("called on", name)))

    async def scenario():
        tending = asyncio.create_task(runner.tend())
        seen = [await asyncio.to_thread(done.get) for _ in range(4)]
        tending.cancel()
        assert seen == [("called on", mine), ("ended", left)] * 2

    asyncio.run(scenario())


def test_a_head_that_does_not_answer_again_and_again_is_lost(runner, monkeypatch):
    answers = iter([True, False, False, True, False, False, False])
    monkeypatch.setattr(runner_module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(runner, "measure", lambda: None)
    runner._gcs = "127.0.0.1:1"

    def reach(_address):
        if not next(answers):
            raise ConnectionRefusedError

    monkeypatch.setattr(runner_module, "_reach", reach)
    with pytest.raises(ClusterLostError, match=r"Ray's head at 127\.0\.0\.1:1 is lost"):
        asyncio.run(runner.watch())
    assert next(answers, "no more") == "no more"
