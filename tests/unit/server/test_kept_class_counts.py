"""The confusion matrix and the metrics of each class: a whole server on a real socket, with a worker in process."""

import asyncio
import os

import numpy as np
import pytest
from server_without_ray import serving
from sqlalchemy import delete, select

import gradwire as gw
from gradwire_proto.v1.metrics_pb2 import ClassCounts
from gradwire_server.scheduling import attempt
from gradwire_server.store.tables import job_class_counts, model_class_counts
from gradwire_worker.messages import Report

SECONDS = 60
NAMES = ["ant", "bee", "<b>cat</b>"]


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    """The reference plan needs no compiler. Disk syncs would take too long."""
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def noisy(rows, seed, classes=3):
    """Return inputs and classes, a third of them random, so that the loss on other rows falls and then rises."""
    rng = np.random.default_rng(seed)
    inputs = rng.random((rows, 4)).astype(np.float32)
    targets = (inputs[:, 0] > 0.5).astype(int) + (inputs[:, 1] > 0.7)
    return inputs, np.where(rng.random(rows) < 0.35, rng.integers(0, classes, rows), targets)


TRAIN, TEST = noisy(120, seed=3), noisy(80, seed=4)


async def submit(client, name, *, data=TRAIN, outputs=3, loss=None, **changes):
    gw.seed(0)
    network = gw.Sequential(gw.Linear(4, 32), gw.ReLU(), gw.Linear(32, outputs))
    fixed = {"test": TEST, "epochs": 60, "batch_size": 10, "optimizer": gw.SGD(network, lr=0.5)}
    arguments = {**fixed, "loss": loss or gw.CrossEntropy(), **changes}
    return await client.jobs.submit(network, data, **arguments, name=name)


def counted(model, data):
    """The confusion matrix of a model, counted row by row."""
    outputs = model(data[0])
    matrix = np.zeros((outputs.shape[1], outputs.shape[1]), int)
    for row, target in zip(outputs, data[1], strict=True):
        matrix[target, row.argmax()] += 1
    return matrix


async def stored(running, table):
    """Return the epochs of the stored class counts, in order."""
    query = select(table.c.epoch).order_by(table.c.epoch)
    return await running.server.database.read(lambda connection: connection.scalars(query).all())


def run(scenario):
    """Run a scenario, and fail if it hangs."""
    asyncio.run(asyncio.wait_for(scenario, SECONDS))


@pytest.mark.parametrize("reports_per_poll", [1, 5000])
def test_the_final_the_best_and_every_kept_epoch_have_a_confusion_matrix(tmp_path, monkeypatch, reports_per_poll):
    monkeypatch.setattr("gradwire_worker.outbox._MAX_REPORTS_PER_POLL", reports_per_poll)

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            options = {"early_stopping": gw.EarlyStopping(patience=8), "keep": "every:10", "classes": NAMES}
            job = await submit(client, "a", **options)
            history = await job.result()
            best, last = job.info.best_epoch.epoch, len(history)
            assert job.info.kept_epochs == (10, 20, best, 30, last) == (10, 20, 23, 30, 31)
            for epoch in job.info.kept_epochs:
                matrix = await job.confusion_matrix(epoch)
                assert np.array_equal(matrix.counts, counted(await job.model(epoch), TEST)), epoch
                assert (matrix.evaluated_on, matrix.epoch, matrix.class_names) == ("test", epoch, tuple(NAMES))
                assert np.trace(matrix) / 80 == pytest.approx(history[epoch - 1].test.accuracy)
                report = await job.classification_report(epoch)
                metrics = history[epoch - 1].test
                means = (report.precision.mean(), report.recall.mean(), report.f1.mean())
                assert means == pytest.approx((metrics.precision, metrics.recall, metrics.f1))
                assert (report.evaluated_on, report.epoch, report[1].name) == ("test", epoch, "bee")
            for name in (None, "best"):
                assert (await job.confusion_matrix(name)).epoch == (await job.classification_report(name)).epoch == best
            assert (await job.confusion_matrix("last")).epoch == last
            assert (await client.models.confusion_matrix("a")).epoch == best
            assert (await client.models.classification_report("a", 10)).epoch == 10
            assert "## Metrics of each class" in await job.card()
            assert "| bee | 0." in await job.card()

    run(scenario())


def test_the_counts_are_deleted_with_their_epoch_job_or_model(tmp_path, monkeypatch):
    # Each epoch that is the best so far is stored, and each report on its own.
    monkeypatch.setattr("gradwire_worker.checkpoint_policy.CheckpointPolicy.is_due", lambda _policy: True)
    monkeypatch.setattr("gradwire_worker.outbox._MAX_REPORTS_PER_POLL", 1)

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", epochs=12, keep="best")
            await job.result()
            best = job.info.best_epoch.epoch
            assert job.info.kept_epochs == (best, 12)
            assert await stored(running, job_class_counts) == [best, 12], "those of earlier best epochs are deleted"
            assert await stored(running, model_class_counts) == [12]
            await job.delete()
            assert await stored(running, job_class_counts) == []
            assert (await client.models.confusion_matrix("a")).epoch == 12
            with pytest.raises(gw.NotFoundError, match="job 'a' does not exist"):
                await client.models.confusion_matrix("a", best)
            await client.models.delete("a")
            assert await stored(running, model_class_counts) == []
            with pytest.raises(gw.NotFoundError, match="model 'a' does not exist"):
                await client.models.confusion_matrix("a")

    run(scenario())


@pytest.mark.parametrize("killed_after", [23, 26, 31])
def test_an_attempt_that_repeats_epochs_counts_the_same(tmp_path, monkeypatch, killed_after):
    class Policy:
        epochs = 0

        def is_due(self):
            self.epochs += 1
            return self.epochs % 12 == 0

        def record(self, seconds):
            pass

    monkeypatch.setattr("gradwire_worker.trainer.CheckpointPolicy", Policy)

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            options = {"early_stopping": gw.EarlyStopping(patience=8)}
            undisturbed = await submit(client, "undisturbed", **options)
            await undisturbed.result()
            running.pool.worker.last_epoch = killed_after
            job = await submit(client, "disturbed", **options)
            await job.result()
            assert job.info.attempt == 2
            for epoch in ("best", "last"):
                expected = await undisturbed.confusion_matrix(epoch)
                found = await job.confusion_matrix(epoch)
                assert found.epoch == expected.epoch
                assert np.array_equal(found, expected)
            assert await stored(running, job_class_counts) == [23, 23, 31, 31]

    run(scenario())


def test_without_a_test_set_the_training_set_is_counted(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", epochs=3, test=None)
            await job.result()
            matrix = await job.confusion_matrix()
            assert matrix.evaluated_on == "train"
            assert np.array_equal(matrix, counted(await job.model(), TRAIN))
            assert matrix.class_names == ("0", "1", "2")

    run(scenario())


def test_models_that_are_not_counted_say_why(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            for classes in (101, 1001):
                await (await submit(client, f"c{classes}", epochs=1, outputs=classes)).result()
            numbers = {"data": (TRAIN[0], TRAIN[0][:, :2]), "test": None, "outputs": 2, "loss": gw.MSE()}
            regression = await submit(client, "regression", epochs=2, keep="every:1", evaluate_every=2, **numbers)
            await regression.result()

            with pytest.raises(gw.FailedPreconditionError, match=r"101 classes, more than 100\. classification_report"):
                await client.models.confusion_matrix("c101")
            model = await client.models.load("c101")
            report = await client.models.classification_report("c101")
            found = [each.recall * each.rows for each in report]
            assert np.allclose(found, counted(model, TEST).diagonal())
            for name, epoch, why in (
                ("c1001", None, "it has 1,001 classes, more than 1,000"),
                ("regression", None, "it predicts numbers, not classes"),
                ("regression", 1, "it predicts numbers, not classes"),
            ):
                for method in (client.models.confusion_matrix, client.models.classification_report):
                    with pytest.raises(gw.FailedPreconditionError, match=f"model '{name}' has no .*{why}") as caught:
                        await method(name, epoch)
                    assert caught.value.reason == "NO_CLASS_COUNTS"
                    assert caught.value.metadata == {"model": f"models/{name}"}
            assert "Metrics of each class" not in await client.models.card("regression")

    run(scenario())


def test_a_job_without_a_model_or_a_best_epoch_says_what_to_do(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", epochs=10**5, keep="every:100")
            async for epoch in job.epochs():
                if epoch.epoch >= 101:
                    break
            with pytest.raises(gw.FailedPreconditionError, match=r"has no model, because it is RUNNING. Pass epoch="):
                await job.confusion_matrix()
            assert (await job.confusion_matrix(100)).epoch == 100
            with pytest.raises(gw.InvalidArgumentError, match=r'no best epoch. Submit it with keep="best"'):
                await job.confusion_matrix("best")
            with pytest.raises(gw.InvalidArgumentError, match="must be the number of an epoch"):
                await job.classification_report("first")
            with pytest.raises(gw.NotFoundError, match="does not have the weights of epoch 4"):
                await job.classification_report(4)
            await job.cancel()
            with pytest.raises(gw.FailedPreconditionError, match="because it is CANCELLED"):
                await job.classification_report()

    run(scenario())


def test_a_model_from_before_the_counts_says_so(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "a", epochs=1)
            await job.result()
            for table in (job_class_counts, model_class_counts):
                await running.server.database.write(lambda connection, table=table: connection.execute(delete(table)))
            for epoch in (None, 1):
                with pytest.raises(gw.FailedPreconditionError, match="trained by an older version of gradwire"):
                    await job.confusion_matrix(epoch)

    run(scenario())


def test_counts_that_no_worker_sends_are_ignored():
    counts = ClassCounts(epoch=3, actual=[2**62] * 1000, predicted=[2**62] * 1000, correct=[2**62] * 1000)
    largest = ClassCounts(epoch=4, confusion=[2**62] * 10_000).SerializeToString()
    reports = [Report(1, b""), Report(2, b"", b"w", counts.SerializeToString()), Report(3, b"", b"w", largest)]
    assert attempt._class_counts_of(reports) == [counts, ClassCounts.FromString(largest)]
    too_large = ClassCounts(epoch=5, confusion=[2**62] * 20_000).SerializeToString()
    assert attempt._class_counts_of([Report(1, b"", b"w", too_large)]) == []
