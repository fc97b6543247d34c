"""End-to-end training of a user's Module over real gRPC connections and on a real Ray worker."""

import asyncio
import threading

import numpy as np
import onnx.reference
import pytest
from long_job import SERVER_CAPACITY
from oracle import ORACLE, assert_fit_has_the_numbers_of

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, Sequential


def arguments(model, digits, **changes):
    return {
        "train": digits.train,
        "test": digits.test,
        "loss": CrossEntropy(),
        "optimizer": SGD(model, lr=0.2),
        "epochs": 4,
        "batch_size": 32,
    } | changes


def long_job(client, model, digits, **changes):
    """A job that runs longer than any test."""
    return client.jobs.submit(model, **arguments(model, digits, epochs=10**6, evaluate_every=100, **changes))


def test_remote_and_local_fits_give_bit_identical_weights(server, digits, model):
    array = model.fc1.W.data
    remote = gw.fit(model, **arguments(model, digits), at=server.address)
    gw.seed(0)
    twin = type(model)()
    local = gw.fit(twin, **arguments(twin, digits), at="local")
    outcome = [(epoch.running_loss, epoch.train, epoch.test) for epoch in remote.epochs]
    assert outcome == [(epoch.running_loss, epoch.train, epoch.test) for epoch in local.epochs]
    assert np.array_equal(model.fc1.W.data, twin.fc1.W.data)
    assert array.shape == model.fc1.W.data.shape
    assert remote.epochs[-1].test.accuracy > 0.85


@pytest.mark.parametrize("training", ORACLE["trainings"], ids=lambda training: training["loss"])
def test_a_remote_fit_matches_an_independent_implementation(server, training):
    """The previous test would not detect a bug that remote and local fits have in common."""
    assert_fit_has_the_numbers_of(training, at=server.address)


def test_the_same_job_twice_gives_the_same_weights_digest(client, digits):
    digests = set()
    for _ in range(2):
        deferred = Sequential(Linear(16), gw.ReLU(), Linear(10))
        job = client.jobs.submit(deferred, **arguments(deferred, digits, seed=3))
        job.result()
        digests.add(client.models.get(job.name).weights_sha256)
    assert len(digests) == 1


def test_the_address_comes_from_the_environment(server, digits, model, monkeypatch):
    monkeypatch.setenv("GRADWIRE_ADDRESS", server.address)
    assert gw.fit(model, **arguments(model, digits, epochs=1)).job.startswith("job-")


def test_a_job_is_watched_epoch_by_epoch_and_found_again_by_its_name(client, digits, model):
    job = client.jobs.submit(model, **arguments(model, digits), name="seen")
    assert [epoch.epoch for epoch in job.epochs()] == [1, 2, 3, 4]
    again = client.jobs.get("seen")
    assert [epoch.epoch for epoch in again.epochs(after=2)] == [3, 4]
    assert again.info.state == "SUCCEEDED"
    assert again.plan.device == "cpu"
    assert len(again.result().epochs) == 4
    kinds = [event.kind for event in again.events()]
    assert kinds == ["state_change"] * 3 + ["epoch"] * 4 + ["checkpoint", "state_change"]
    assert [event.sequence for event in again.events(after=7)] == [8, 9]


def test_two_watchers_see_the_same_stream_at_the_same_time(server, client, digits, model):
    job = long_job(client, model, digits, name="watched-by-two")
    seen = {"first": [], "second": []}

    def watch(which):
        with gw.Client(server.address) as own:
            for event in own.jobs.get("watched-by-two").events():
                seen[which].append((event.sequence, event.kind, event.text))

    threads = [threading.Thread(target=watch, args=(which,)) for which in seen]
    for thread in threads:
        thread.start()
    epochs = job.epochs()
    for _ in range(5):
        next(epochs)
    job.cancel()
    for thread in threads:
        thread.join()
    assert seen["first"] == seen["second"]
    assert [sequence for sequence, _, _ in seen["first"]] == list(range(1, len(seen["first"]) + 1))
    assert "CANCELLED" in seen["first"][-1][2]


def test_the_async_client_trains_and_streams_epochs(server, digits, model):
    async def scenario():
        async with gw.AsyncClient(server.address) as client:
            job = await client.jobs.submit(model, **arguments(model, digits))
            epochs = [epoch.epoch async for epoch in job.epochs()]
            history = await job.result()
            return epochs, [epoch.epoch for epoch in history.epochs]

    assert asyncio.run(scenario()) == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_the_epochs_of_a_blocking_job_work_with_async_for_too(client, digits, model):
    job = client.jobs.submit(model, **arguments(model, digits))

    async def collect():
        return [epoch.epoch async for epoch in job.epochs()]

    assert asyncio.run(collect()) == [1, 2, 3, 4]


def test_a_cancelled_job_has_no_result(client, digits, model):
    job = long_job(client, model, digits)
    next(job.epochs())
    assert job.cancel().state == "CANCELLED"
    assert job.cancel().state == "CANCELLED"
    with pytest.raises(gw.JobCancelledError):
        job.result()


def test_jobs_beyond_the_capacity_of_the_cluster_start_in_order(client, digits, model):
    running = [long_job(client, model, digits) for _ in range(SERVER_CAPACITY)]
    jobs = [
        client.jobs.submit(model, **arguments(model, digits, epochs=2), name=f"turn-{number}")
        for number in range(SERVER_CAPACITY + 2)
    ]
    assert [job.refresh().state for job in jobs] == ["QUEUED"] * len(jobs)
    running.pop().cancel()  # The jobs then run one at a time.
    for job in jobs:
        job.result()
    for job in running:
        job.cancel()
    starts = [client.jobs.get(job.name).info.started for job in jobs]
    assert starts == sorted(starts)


def test_a_queued_job_can_be_cancelled(client, digits, model):
    running = [long_job(client, model, digits) for _ in range(SERVER_CAPACITY + 1)]
    queued = running[-1]
    assert queued.refresh().state == "QUEUED"
    for job in reversed(running):
        assert job.cancel().state == "CANCELLED"


def test_jobs_and_models_are_listed_with_filters_and_limits(client, digits, model):
    for number in range(3):
        client.jobs.submit(model, **arguments(model, digits, epochs=1), name=f"listed-{number}").result()
    names = [job.name for job in client.jobs.list('name : "listed"')]
    assert names == ["listed-2", "listed-1", "listed-0"]
    assert [job.name for job in client.jobs.list('state = SUCCEEDED AND name : "listed"', limit=2)] == names[:2]
    assert [info.name for info in client.models.list('name : "listed"')] == names


def test_a_model_is_rebuilt_downloaded_and_run(client, digits, model, tmp_path):
    job = client.jobs.submit(model, **arguments(model, digits))
    job.result()
    X, y = digits.test
    expected = model(X)
    rebuilt = client.models.load(job.name)
    assert np.array_equal(rebuilt(X), expected)
    assert rebuilt.fc1.out_features == 32
    assert np.allclose(client.models.predict(job.name, X), expected, atol=1e-5)
    assert gw.accuracy(client.models.predict(job.name, X.tolist()), y) > 0.85
    loaded = gw.load_model(client.models.download(job.name, tmp_path))
    assert np.array_equal(loaded(X), expected)
    path = client.models.download(job.name, tmp_path / "model.onnx", format="onnx")
    outputs = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"inputs": X.astype(np.float32)})
    assert np.allclose(outputs[0], expected, atol=1e-4)
    for _ in range(2):
        client.models.delete(job.name)
    with pytest.raises(gw.NotFoundError):
        client.models.get(job.name)


def test_a_large_prediction_is_sent_in_several_calls(client, digits, model, monkeypatch):
    monkeypatch.setattr("gradwire._models._PREDICT_BYTES", 10_000)
    job = client.jobs.submit(model, **arguments(model, digits, epochs=1))
    job.result()
    assert np.allclose(client.models.predict(job.name, digits.train[0]), model(digits.train[0]), atol=1e-5)


def test_regression_in_float64_works_from_end_to_end(server, digits):
    model = Sequential(Linear(64, 16), gw.ReLU(), Linear(16, 1))
    X, y = digits.train[0], digits.train[1].astype(float)
    history = gw.fit(
        model, (X, y), loss=gw.MSE(), optimizer=SGD(model, lr=0.01), epochs=10, dtype="float64", at=server.address
    )
    assert model["0"].W.data.dtype == np.float64
    assert history.epochs[-1].train.r2 > 0.5
    assert history.epochs[-1].train.accuracy is None


def test_a_prediction_with_too_many_outputs_for_one_call_is_sent_in_several(client):
    X, y = np.arange(8, dtype=np.float32).reshape(-1, 1), np.arange(8)
    wide = Sequential(Linear(1, 1000))
    arguments = {"loss": gw.CrossEntropy(), "optimizer": SGD(wide, lr=0.01), "epochs": 1}
    job = client.jobs.submit(wide, (X, y), **arguments)
    job.result()
    inputs = np.arange(20_000).reshape(-1, 1) % 200
    outputs = client.models.predict(job.name, inputs.astype(np.uint8))
    assert outputs.shape == (20_000, 1000)
    assert np.array_equal(outputs[:200], outputs[-200:])
    with pytest.raises(gw.InvalidArgumentError, match="must have shape"):
        client.models.predict(job.name, np.ones((2, 2)))


def test_arrays_can_be_uploaded_before_the_job(client, digits, model):
    X, y = np.random.default_rng(98).random((50, 64)), np.arange(50) % 7
    uploaded = [client.tensors.upload(array) for array in (X, y)]
    assert client.tensors.missing(uploaded) == []
    sent = []
    client.jobs.submit(
        model,
        **arguments(model, digits, train=(X, y), test=None, epochs=1),
        on_upload_progress=lambda done, total: sent.append(total),
    ).result()
    assert all(total < X.size * 4 for total in sent)  # The client sends at most the weights.


def test_stored_arrays_are_listed_and_deleted_unless_a_job_uses_them(client, digits, model):
    X, y = np.random.default_rng(97).random((50, 64)), np.arange(50) % 7
    used, unused = client.tensors.upload(X), client.tensors.upload(X + 1)
    client.jobs.submit(model, **arguments(model, digits, train=(X, y), test=None, epochs=1)).result()
    listed = {each.sha256: each for each in client.tensors.list()}
    assert (listed[used.sha256].referenced, listed[unused.sha256].referenced) == (True, False)
    assert listed[unused.sha256].size == X.size * 4
    assert len(client.tensors.list(limit=1)) == 1
    with pytest.raises(gw.FailedPreconditionError, match=r"is in use: job '[a-z0-9-]+' references it"):
        client.tensors.delete(used)
    for tensor in (unused, unused.sha256):
        client.tensors.delete(tensor)
    assert client.tensors.missing([used, unused]) == [unused]


def test_labels_are_kept_with_the_job_and_the_model_and_can_be_searched(client, digits, model):
    labels = {"team": "vision", "run": "7"}
    job = client.jobs.submit(model, **arguments(model, digits, epochs=1), name="labelled", labels=labels)
    job.result()
    assert client.jobs.get("labelled").info.labels == labels
    assert client.models.get("labelled").labels == labels
    for condition, names in (
        ('labels.team = "vision" AND labels.run = "7"', ["labelled"]),
        ('labels.team = "vision" AND labels.run = "8"', []),
        ('labels : run AND name = "jobs/labelled"', ["labelled"]),
    ):
        assert [found.name for found in client.jobs.list(condition)] == names
    assert [found.name for found in client.models.list('labels.run = "7"')] == ["labelled"]
    with pytest.raises(gw.InvalidArgumentError, match="labels"):
        client.jobs.submit(model, **arguments(model, digits), labels={"No Such Key!": "x"})


def test_a_validation_split_is_evaluated_as_the_test_set(server, digits, model):
    X, y = digits.train
    split = gw.fit(model, **(arguments(model, digits, test=None) | {"validation_split": 0.2}), at=server.address)
    gw.seed(0)
    twin = type(model)()
    rows = len(X) * 4 // 5
    by_hand = gw.fit(
        twin, **arguments(twin, digits, train=(X[:rows], y[:rows]), test=(X[rows:], y[rows:])), at=server.address
    )
    assert [epoch.test for epoch in split] == [epoch.test for epoch in by_hand]


def test_a_job_can_be_waited_for_and_gives_its_model_without_the_class(client, digits, model):
    job = client.jobs.submit(model, **arguments(model, digits, epochs=2))
    with pytest.raises(gw.FailedPreconditionError, match="has no model"):
        long_job(client, model, digits, name="no-model-yet").model()
    client.jobs.get("no-model-yet").cancel()
    assert job.wait(timeout=120).state == "SUCCEEDED"
    assert job.status == "SUCCEEDED"
    rebuilt = job.model()
    job.result()
    assert np.array_equal(rebuilt(digits.test[0]), model(digits.test[0]))


def test_result_ends_after_its_timeout_and_the_job_continues(client, digits, model):
    job = long_job(client, model, digits)
    with pytest.raises(TimeoutError, match="It continues"):
        job.result(timeout=0.5)
    assert job.refresh().state in ("QUEUED", "STARTING", "RUNNING")
    job.cancel()


def test_data_that_the_server_has_is_not_sent_again(client, digits, model):
    sent = []
    fresh = np.random.default_rng(99).random((50, 64))
    for _ in range(2):
        sent.append([])
        client.jobs.submit(
            model,
            **arguments(model, digits, train=(fresh, np.arange(50) % 10), test=None, epochs=1),
            on_upload_progress=lambda done, total: sent[-1].append((done, total)),
        ).result()
    first, second = sent
    assert first[-1][1] >= fresh.size * 4 + 50 * 8
    assert second == []  # The server already has the weights too, because it has just trained them.


def test_a_failed_job_says_why_and_what_to_try(client, digits):
    model = Sequential(Linear(64, 1))
    X, y = digits.train[0] * 1e3, digits.train[1].astype(float)
    job = client.jobs.submit(model, (X, y), loss=gw.MSE(), optimizer=SGD(model, lr=1e6), epochs=50)
    with pytest.raises(gw.JobFailedError, match=r"epoch \d+.*lr") as caught:
        job.result()
    assert caught.value.reason == "LOSS_NOT_FINITE"
    assert job.info.state == "FAILED"


def test_names_that_are_taken_unknown_or_malformed_are_refused(client, digits, model):
    client.jobs.submit(model, **arguments(model, digits, epochs=1), name="taken").result()
    with pytest.raises(gw.AlreadyExistsError, match="taken") as caught:
        client.jobs.submit(model, **arguments(model, digits, epochs=1), name="taken")
    assert caught.value.reason == "JOB_ALREADY_EXISTS"
    for call, reason in (
        (client.jobs.get, "JOB_NOT_FOUND"),
        (client.models.get, "MODEL_NOT_FOUND"),
        (client.models.load, "MODEL_NOT_FOUND"),
        (client.models.download, "MODEL_NOT_FOUND"),
    ):
        with pytest.raises(gw.NotFoundError, match="nobody") as missing:
            call("nobody")
        assert missing.value.reason == reason
    with pytest.raises(gw.NotFoundError):
        client.models.predict("nobody", digits.test[0])
    with pytest.raises(gw.InvalidArgumentError, match=r"X: .*64"):
        client.models.predict("taken", digits.test[0][:, :3])
    with pytest.raises(gw.InvalidArgumentError, match="name: "):
        client.jobs.submit(model, **arguments(model, digits), name="No Such Names!")


def test_a_job_that_needs_a_gpu_is_refused_by_a_cluster_without_one(client, digits, model):
    with pytest.raises(gw.FailedPreconditionError, match="GPU") as caught:
        client.jobs.submit(model, **arguments(model, digits), device="gpu")
    assert caught.value.reason == "NO_GPU"


def test_mnist_reaches_096_in_five_epochs(server, mnist):
    gw.seed(0)
    model = Sequential(Linear(784, 128), gw.ReLU(), Linear(128, 32), gw.ReLU(), Linear(32, 10))
    scaled = [(mnist[f"x_{which}"] / np.float32(255), mnist[f"y_{which}"]) for which in ("train", "test")]
    history = gw.fit(
        model,
        scaled[0],
        test=scaled[1],
        loss=CrossEntropy(),
        optimizer=SGD(model, lr=0.1),
        epochs=5,
        batch_size=32,
        at=server.address,
    )
    assert history.epochs[-1].test.accuracy > 0.96
