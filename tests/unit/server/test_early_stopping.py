"""Early stopping, stops on request and kept epochs: a whole server on a real socket, with a worker in this process."""

import asyncio
import os

import numpy as np
import pytest
from server_without_ray import serving

import gradwire as gw

SECONDS = 60
STOPPING = gw.EarlyStopping(monitor="test.loss", patience=8)
# The best epoch is always the first, because no later epoch is this much better.
FIRST_IS_BEST = gw.EarlyStopping(monitor="test.loss", patience=1000, min_delta=100.0)


def noisy(rows, seed):
    """Return inputs and classes, a third of them random, so that the loss on other rows falls and then rises."""
    rng = np.random.default_rng(seed)
    inputs = rng.random((rows, 4)).astype(np.float32)
    classes = (inputs[:, 0] > 0.5).astype(int) + (inputs[:, 1] > 0.7)
    return inputs, np.where(rng.random(rows) < 0.35, rng.integers(0, 3, rows), classes)


TRAIN, TEST = noisy(120, seed=3), noisy(80, seed=4)


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    """The reference plan needs no compiler. Disk syncs would take too long."""
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def checkpoints_every(monkeypatch):
    """Make workers take a checkpoint after every n-th epoch that they train, regardless of the time."""

    def set_to(count):
        class Policy:
            epochs = 0

            def is_due(self):
                self.epochs += 1
                return self.epochs % count == 0

            def record(self, seconds):
                pass

        monkeypatch.setattr("gradwire_worker.trainer.CheckpointPolicy", Policy)

    return set_to


def model():
    gw.seed(0)
    return gw.Sequential(gw.Linear(4, 32), gw.ReLU(), gw.Linear(32, 3))


def arguments(network, **changes):
    fixed = {"test": TEST, "loss": gw.CrossEntropy(), "optimizer": gw.SGD(network, lr=0.5), "epochs": 60}
    return {**fixed, "batch_size": 10, **changes}


async def submit(client, name, **changes):
    network = model()
    return await client.jobs.submit(network, TRAIN, **arguments(network, **changes), name=name)


async def digest(client, name, epoch=None):
    return (await client.models.get(name, epoch)).weights_sha256


def run(scenario):
    """Run a scenario, and fail if it hangs."""
    asyncio.run(asyncio.wait_for(scenario, SECONDS))


async def after_epoch(job, number):
    """Wait until the job has stored an epoch."""
    async for epoch in job.epochs():
        if epoch.epoch >= number:
            return


def best_of(history):
    losses = [epoch.test.loss for epoch in history]
    return losses.index(min(losses)) + 1


def test_a_job_stops_early_and_its_model_is_that_of_the_best_epoch(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            network = model()
            job = await client.jobs.submit(network, TRAIN, **arguments(network, early_stopping=STOPPING), name="a")
            history = await job.result()
            best = best_of(history)
            assert (history.stop_reason, history.model_epoch) == ("EARLY_STOPPING", best)
            assert 1 < best == len(history) - STOPPING.patience < 52, "neither the first epoch nor the last is the best"
            info = job.info
            assert (info.state, info.stop_reason, info.best_epoch.epoch) == ("SUCCEEDED", "EARLY_STOPPING", best)
            assert info.epochs_without_improvement == STOPPING.patience
            assert info.best_epoch.test.loss == min(epoch.test.loss for epoch in history)
            assert info.training_seconds == pytest.approx(sum(epoch.seconds for epoch in history))
            assert info.kept_epochs == (best, len(history))
            assert (await client.models.get("a")).epoch.epoch == best
            await (await submit(client, "as-far", epochs=best)).result()
            await (await submit(client, "to-the-end", epochs=len(history))).result()
            assert await digest(client, "a") == await digest(client, "as-far")
            assert await digest(client, "a", len(history)) == await digest(client, "to-the-end")
            assert np.array_equal(network(TEST[0]), (await client.models.load("as-far"))(TEST[0]))

    run(scenario())


@pytest.mark.parametrize("way", ["ALL_EPOCHS", "TIME_LIMIT", "REQUESTED"])
def test_the_best_epoch_is_restored_on_every_other_way_out(tmp_path, way):
    changes = {
        "ALL_EPOCHS": {"epochs": 5, "early_stopping": gw.EarlyStopping(patience=5, min_delta=100.0)},
        "TIME_LIMIT": {"epochs": 10**5, "early_stopping": FIRST_IS_BEST, "max_seconds": 0.1},
        "REQUESTED": {"epochs": 10**5, "early_stopping": gw.EarlyStopping(patience=10**5, min_delta=100.0)},
    }[way]

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", **changes)
            if way == "REQUESTED":
                await after_epoch(job, 3)
                assert (await job.stop()).stop_requested is not None
            info = await job.wait()
            assert (info.state, info.stop_reason, info.best_epoch.epoch) == ("SUCCEEDED", way, 1)
            assert info.last_epoch.epoch > 1
            assert info.kept_epochs == (1, info.last_epoch.epoch)
            await (await submit(client, "one", epochs=1)).result()
            assert await digest(client, "a") == await digest(client, "one")
            if way == "TIME_LIMIT":
                seconds = [epoch.seconds async for epoch in job.epochs()]
                assert sum(seconds[:-1]) < 0.1 <= sum(seconds)

    run(scenario())


def test_without_restore_best_the_model_is_that_of_the_last_epoch(tmp_path):
    stopping = gw.EarlyStopping(patience=2, min_delta=100.0, restore_best=False)

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", early_stopping=stopping)
            assert len(await job.result()) == 3
            assert (job.info.best_epoch.epoch, job.info.kept_epochs) == (1, (3,))
            kept = await submit(client, "b", early_stopping=stopping, keep="best")
            await kept.result()
            assert kept.info.kept_epochs == (1, 3)
            await (await submit(client, "three", epochs=3)).result()
            assert {await digest(client, name) for name in ("a", "b", "three")} == {await digest(client, "a")}

    run(scenario())


@pytest.mark.parametrize(
    ("every", "killed_after"),
    # The best epoch is 23 and the last one 31. A worker takes a checkpoint after each `every` epochs.
    [(12, 18), (12, 23), (12, 24), (12, 26), (12, 31), (23, 23), (23, 25), (99, 30)],
)
def test_a_worker_that_dies_around_the_best_epoch_changes_nothing(tmp_path, checkpoints_every, every, killed_after):
    checkpoints_every(every)

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            undisturbed = await submit(client, "undisturbed", early_stopping=STOPPING)
            await undisturbed.result()
            assert (undisturbed.info.best_epoch.epoch, undisturbed.info.last_epoch.epoch) == (23, 31)
            running.pool.worker.last_epoch = killed_after
            job = await submit(client, "disturbed", early_stopping=STOPPING)
            history = await job.result()
            assert job.info.attempt == 2
            resume = running.pool.worker.assignments[0].resume
            assert (resume.epoch if resume else 0) == (killed_after - 1) // every * every
            assert [epoch.epoch for epoch in history] == list(range(1, 32))
            for info in (undisturbed.info, job.info):
                assert (info.stop_reason, info.best_epoch.epoch, info.kept_epochs) == ("EARLY_STOPPING", 23, (23, 31))
            for epoch in (None, 31):
                assert await digest(client, "disturbed", epoch) == await digest(client, "undisturbed", epoch)
            assert not [event async for event in job.events() if event.reason == "NOT_DETERMINISTIC"]

    run(scenario())


def test_a_paused_job_continues_to_the_same_decision(tmp_path, checkpoints_every):
    checkpoints_every(20)
    # Long enough that the job is still running when it is paused.
    changes = {"epochs": 2000, "early_stopping": gw.EarlyStopping(patience=200)}

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            await (await submit(client, "undisturbed", **changes)).result()
            job = await submit(client, "paused", **changes)
            for number in (10, 40):
                await after_epoch(job, number)
                await job.pause()
                await job.resume()
            await job.result()
            assert (job.info.best_epoch.epoch, job.info.last_epoch.epoch, job.info.attempt) == (23, 223, 3)
            assert await digest(client, "paused") == await digest(client, "undisturbed")

    run(scenario())


def test_a_running_job_that_is_stopped_succeeds_with_the_model_of_a_stored_epoch(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", epochs=10**5)
            await after_epoch(job, 2)
            await job.stop()
            history = await job.result()
            assert 2 <= len(history) < 10**5
            assert (job.info.state, job.info.stop_reason) == ("SUCCEEDED", "REQUESTED")
            assert (await client.models.get("a")).epoch.epoch == len(history)
            await (await submit(client, "as-far", epochs=len(history))).result()
            assert await digest(client, "a") == await digest(client, "as-far")
            sequence = job.info.epochs_done
            assert (await job.stop()).epochs_done == sequence, "a job that has ended stays as it is"

    run(scenario())


def test_a_paused_job_that_is_stopped_ends_after_its_last_stored_epoch(tmp_path, checkpoints_every):
    checkpoints_every(10**6)  # Therefore, the next attempt must repeat all epochs.

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", epochs=10**5)
            await after_epoch(job, 15)
            stored = (await job.pause()).epochs_done
            info = await job.stop()
            assert info.state != "PAUSED"
            requested = info.stop_requested
            assert (await job.stop()).stop_requested == requested, "the second request changes nothing"
            await job.wait()
            assert (job.info.state, job.info.stop_reason) == ("SUCCEEDED", "REQUESTED")
            assert job.info.epochs_done == stored
            await (await submit(client, "as-far", epochs=stored)).result()
            assert await digest(client, "a") == await digest(client, "as-far")

    run(scenario())


def test_a_job_that_was_never_trained_is_stopped_after_its_first_epoch(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            blocker = await submit(client, "blocker", epochs=10**6)
            job = await submit(client, "a")
            await job.stop()
            assert job.info.state == "QUEUED"
            await blocker.cancel()
            await job.wait()
            assert (job.info.state, job.info.stop_reason, job.info.epochs_done) == ("SUCCEEDED", "REQUESTED", 1)

    run(scenario())


def test_kept_epochs_can_be_used_until_the_job_is_deleted(tmp_path, checkpoints_every):
    checkpoints_every(7)

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", epochs=35, keep="every:10")
            await job.result()
            assert job.info.kept_epochs == (10, 20, 30, 35)
            files = list((tmp_path / "blobs" / "checkpoints" / "1").iterdir())
            assert job.info.checkpoint_bytes == sum(file.stat().st_size for file in files) == 3 * (5 * 32 + 33 * 3) * 4
            await (await submit(client, "twenty", epochs=20)).result()
            expected = (await client.models.load("twenty"))(TEST[0])
            assert np.array_equal((await job.model(epoch=20))(TEST[0]), expected)
            assert np.array_equal((await client.models.load("a", epoch=20))(TEST[0]), expected)
            assert np.array_equal(gw.load_model(await job.download(tmp_path, epoch=20))(TEST[0]), expected)
            downloaded = await client.models.download("a", tmp_path, "onnx", epoch=20)
            assert downloaded == tmp_path / "a-epoch-20.onnx"
            predicted = await client.models.predict("a", TEST[0], epoch=20)
            assert np.array_equal(predicted, await client.models.predict("twenty", TEST[0]))
            info = await client.models.get("a", epoch=20)
            assert (info.name, info.epoch.epoch, info.weights_sha256) == ("a", 20, await digest(client, "twenty"))
            assert await digest(client, "a", 35) == await digest(client, "a")
            continued = await submit(client, "b", epochs=35, resume_from="a", start_epoch=20)
            assert [epoch.epoch async for epoch in continued.epochs()] == list(range(21, 36))
            assert await digest(client, "b") == await digest(client, "a")
            again = await submit(client, "c", epochs=2, initial_model="a", start_epoch=10)
            assert [epoch.epoch async for epoch in again.epochs()] == [1, 2]
            for epoch, reason in ((11, "EPOCH_NOT_KEPT"), (99, "EPOCH_NOT_KEPT")):
                with pytest.raises(gw.NotFoundError, match="10, 20, 30, 35") as caught:
                    await job.model(epoch=epoch)
                assert caught.value.reason == reason
            with pytest.raises(gw.NotFoundError, match="epoch 11"):
                await submit(client, "d", epochs=35, resume_from="a", start_epoch=11)
            await job.delete()
            assert not (tmp_path / "blobs" / "checkpoints" / "1").exists()
            with pytest.raises(gw.NotFoundError, match="'a' does not exist"):
                await client.models.load("a", epoch=20)
            assert (await client.models.load("a"))(TEST[0]).shape == (80, 3), "the model is kept"

    run(scenario())


def test_the_epochs_of_a_running_and_of_a_cancelled_job_can_be_used(tmp_path, checkpoints_every):
    checkpoints_every(7)

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", epochs=10**5, keep="every:100")
            await after_epoch(job, 101)
            loaded = (await job.model(epoch=100))(TEST[0])
            await job.cancel()
            info = await job.refresh()
            assert 100 in info.kept_epochs
            assert np.array_equal(await client.models.predict("a", TEST[0], epoch=100), loaded)
            while running.pool.free("cpu") == 0:  # The attempt deletes what it has not stored before it ends.
                await asyncio.sleep(0.001)
            files = list((tmp_path / "blobs" / "checkpoints" / "1").iterdir())
            assert info.checkpoint_bytes == sum(file.stat().st_size for file in files)

    run(scenario())


def test_a_job_that_stopped_early_is_continued_after_its_last_epoch(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", early_stopping=STOPPING)
            last = len(await job.result())
            continued = await submit(client, "b", resume_from=job)
            assert [epoch.epoch async for epoch in continued.epochs()] == list(range(last + 1, 61))
            await (await submit(client, "whole")).result()
            assert await digest(client, "b") == await digest(client, "whole")
            await client.models.delete("a")
            with pytest.raises(gw.NotFoundError) as caught:
                await job.model(epoch=job.info.best_epoch.epoch)
            assert caught.value.reason == "MODEL_NOT_FOUND"

    run(scenario())


def test_what_a_job_cannot_do_is_refused(tmp_path):
    stopping = {"early_stopping": gw.EarlyStopping(monitor="train.r2", patience=3)}

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            with pytest.raises(gw.InvalidArgumentError, match=r"It has running_loss, train.loss, train.accuracy"):
                await submit(client, "a", **stopping)
            with pytest.raises(gw.InvalidArgumentError, match=r"There is no test set"):
                await submit(client, "a", early_stopping=gw.EarlyStopping(), test=None)
            with pytest.raises(gw.InvalidArgumentError, match=r"patience: .*at most epochs, which is 60, got 61"):
                await submit(client, "a", early_stopping=gw.EarlyStopping(patience=61))
            with pytest.raises(gw.InvalidArgumentError, match=r"^keep: .*at most 1000: use 2 or more") as caught:
                await submit(client, "a", epochs=2000, keep="every:1")
            assert caught.value.metadata["min_every"] == "2"
            for epoch in (0, -1, 1.5, True, "1"):
                with pytest.raises(gw.InvalidArgumentError, match="epoch"):
                    await client.models.load("a", epoch)
            with pytest.raises(gw.InvalidArgumentError, match="start_epoch"):
                await submit(client, "a", start_epoch=3)

    run(scenario())
