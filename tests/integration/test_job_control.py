"""Pause, resume, delete, resume_from and initial_model. Interruptions do not change the results of a job."""

import long_job
import numpy as np
import pytest
from cluster import workers_below

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential

X, Y = long_job.data(rows=3000)


def submit(client, epochs, name, batch_size=2, **changes):
    return long_job.submit(client, name, rows=3000, epochs=epochs, batch_size=batch_size, **changes)


def digest(client, name):
    return client.models.get(name).weights_sha256


@pytest.fixture(scope="module")
def undisturbed(server):
    with gw.Client(server.address) as client:
        submit(client, 400, "never-paused").result()
        return digest(client, "never-paused")


def test_a_paused_job_continues_with_bit_identical_results_and_repeats_no_epoch(client, undisturbed):
    job = submit(client, 400, "paused")
    seen = []
    for epoch in job.epochs():
        seen.append(epoch.epoch)
        if len(seen) in (20, 150):
            assert job.pause().state == "PAUSED"
            assert job.pause().state == "PAUSED"
            assert job.resume().state != "PAUSED"
            assert job.resume().state != "PAUSED"
    assert seen == list(range(1, 401))
    assert digest(client, "paused") == undisturbed
    states = [event.state for event in job.events() if event.state]
    assert states.count("PAUSED") == 2
    assert states[-1] == "SUCCEEDED"
    assert not [event for event in job.events() if event.reason == "NOT_DETERMINISTIC"]


def test_a_job_can_be_paused_and_resumed_at_any_moment_of_its_start(client):
    for attempt in range(12):
        job = submit(client, 500, f"restless-{attempt}")  # Long enough to be still running after these calls.
        for _ in range(attempt % 4):  # The job continues to start while each call runs.
            job.refresh()
        job.pause()
        job.resume()
        assert len(job.result().epochs) == 500


@pytest.mark.parametrize(("command", "state"), [("cancel", "CANCELLED"), ("pause", "PAUSED")])
def test_cancel_and_pause_stop_the_workers_in_the_middle_of_an_epoch(client, server, command, state):
    """Each worker is in an epoch that takes minutes, and is not killed: its process stays the same."""
    endless = [long_job.submit_endless(client, f"{command}-{number}") for number in range(long_job.SERVER_CAPACITY)]
    before = workers_below(server.process.pid)
    for job in endless:
        assert getattr(job, command)().state == state
    assert len(submit(client, 2, f"after-{command}").result().epochs) == 2
    assert workers_below(server.process.pid) == before
    for job in endless:
        assert job.refresh().state == state
        assert job.info.last_epoch is None
        job.cancel()


def test_a_stopped_job_keeps_its_model_whether_it_runs_or_is_paused(client, undisturbed):
    running, paused = submit(client, 10**6, "stopped"), submit(client, 10**6, "paused-and-stopped")
    for job in (running, paused):
        next(iter(job.epochs()))
    stored = paused.pause().epochs_done
    for job in (running, paused):
        job.stop()
        assert job.wait().stop_reason == "REQUESTED"
        submit(client, job.info.epochs_done, f"as-far-as-{job.name}").result()
        assert digest(client, job.name) == digest(client, f"as-far-as-{job.name}")
    assert paused.info.epochs_done == stored
    assert running.stop() == running.info


def test_fit_stops_when_a_callback_returns_false(server, client):
    model = Sequential(Linear(96), ReLU(), Linear(5))
    history = gw.fit(
        model, (X, Y), loss=CrossEntropy(), optimizer=SGD(model, lr=0.1), epochs=10**6, batch_size=8, at=server.address,
        on_epoch=lambda epoch: epoch.epoch < 3, name="stopped-by-a-callback",
    )  # fmt: skip
    job = client.jobs.get("stopped-by-a-callback")
    assert (job.info.stop_reason, job.info.epochs_done) == ("REQUESTED", len(history))
    assert np.array_equal(model(X[:9]), job.model()(X[:9]))


def test_calls_that_do_not_apply_to_the_state_of_a_job_are_refused(client):
    job = submit(client, 10**6, "running")
    for act, reason in ((job.resume, "JOB_NOT_PAUSED"), (job.delete, "JOB_NOT_ENDED")):
        with pytest.raises(gw.FailedPreconditionError, match="running") as caught:
            act()
        assert caught.value.reason == reason
    job.cancel()
    for act in (job.pause, job.resume):
        with pytest.raises(gw.FailedPreconditionError, match=r"job 'running' has ended \(CANCELLED\)") as caught:
            act()
        assert caught.value.reason == "JOB_ENDED"
        assert caught.value.metadata["job"] == "jobs/running"


def test_a_deleted_job_is_gone_and_its_model_is_kept(client):
    job = submit(client, 2, "deleted")
    job.result()
    job.delete()
    client.jobs.delete("deleted")
    with pytest.raises(gw.NotFoundError):
        client.jobs.get("deleted")
    assert client.models.predict("deleted", X[:2]).shape == (2, 5)


def test_continuing_a_finished_job_gives_the_same_weights_as_one_long_job(client, undisturbed):
    submit(client, 150, "first-half").result()
    second = submit(client, 400, "second-half", resume_from="first-half")
    assert [epoch.epoch for epoch in second.epochs()] == list(range(151, 401))
    assert digest(client, "second-half") == undisturbed


def test_a_cancelled_job_is_continued_from_its_last_checkpoint(client, tmp_path):
    # The job is long enough to be still running when the test sees its first checkpoint.
    submit(client, 800, "uncut", batch_size=1).result()
    job = submit(client, 800, "cut-short", batch_size=1)
    for event in job.events():
        if event.kind == "checkpoint":
            break
    job.cancel()
    following = submit(client, 800, "carried-on", batch_size=1, resume_from=job)
    epochs = [epoch.epoch for epoch in following.epochs()]
    assert epochs == list(range(epochs[0], 801))
    assert epochs[0] > 1
    assert digest(client, "carried-on") == digest(client, "uncut")
    # The weights of the checkpoint equal those of a job with that many epochs.
    submit(client, epochs[0] - 1, "as-far", batch_size=1).result()
    expected = client.models.load("as-far")(X[:5])
    (listed,) = client.jobs.list('name = "jobs/cut-short"')
    assert np.array_equal(listed.model()(X[:5]), expected)
    assert np.array_equal(gw.load_model(job.download(tmp_path))(X[:5]), expected)
    assert b"Gemm" in job.download(tmp_path / "x.onnx").read_bytes()
    job.delete()
    with pytest.raises(gw.NotFoundError):
        job.model()


def test_a_job_without_a_checkpoint_has_no_weights(client, tmp_path):
    model = Sequential(Linear(64, 8), ReLU(), Linear(8, 5))
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(model, lr=1e30), "epochs": 3}
    failed = client.jobs.submit(model, (X, Y), **arguments, name="failed-at-once")
    failed.wait()
    for get in (failed.model, lambda: failed.download(tmp_path)):
        with pytest.raises(gw.FailedPreconditionError, match="before its first checkpoint") as caught:
            get()
        assert (caught.value.reason, caught.value.metadata["state"]) == ("NO_CHECKPOINT", "FAILED")
    assert not list(tmp_path.iterdir())


def test_a_job_starts_from_the_weights_of_a_model(client):
    submit(client, 30, "source").result()
    follower = submit(client, 3, "from-a-model", initial_model=client.models.get("source"))
    epochs = list(follower.epochs())
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    assert epochs[0].train.loss < client.models.get("source").epoch.train.loss + 0.1


def test_fit_continues_a_job_and_puts_the_weights_into_the_model(server, client):
    submit(client, 2, "begun").result()
    model = Sequential(Linear(96), ReLU(), Linear(5))
    history = gw.fit(
        model, (X, Y), loss=CrossEntropy(), optimizer=SGD(model, lr=0.1), epochs=5, batch_size=8, at=server.address,
        resume_from="begun",
    )  # fmt: skip
    assert [epoch.epoch for epoch in history.epochs] == [3, 4, 5]
    assert model["0"].W.data.shape == (96, 64)


def test_a_job_that_cannot_be_continued_is_refused(client):
    submit(client, 3, "whole").result()
    with pytest.raises(gw.NotFoundError) as caught:
        submit(client, 5, "x1", resume_from="nobody")
    assert caught.value.reason == "JOB_NOT_FOUND"
    with pytest.raises(gw.NotFoundError) as caught:
        submit(client, 5, "x2", initial_model="nobody")
    assert caught.value.reason == "MODEL_NOT_FOUND"
    with pytest.raises(gw.InvalidArgumentError, match=r"epochs: .*3"):
        submit(client, 3, "x3", resume_from="whole")
    for source, kind in (({"resume_from": "whole"}, "job"), ({"initial_model": "whole"}, "model")):
        message = f"^dtype: is float64, but {kind} 'whole' has float32. Use the same dtype$"
        with pytest.raises(gw.InvalidArgumentError, match=message):
            submit(client, 5, "x3", dtype="float64", **source)
    other = Sequential(Linear(64, 10), ReLU(), Linear(10, 5))
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(other), "epochs": 5}
    for source in ({"resume_from": "whole"}, {"initial_model": "whole"}):
        with pytest.raises(gw.FailedPreconditionError, match="layers") as caught:
            client.jobs.submit(other, (X, Y), **arguments, **source)
        assert caught.value.reason == "CANNOT_START_FROM"
    running = submit(client, 10**6, "still-running")
    with pytest.raises(gw.FailedPreconditionError, match="ended") as caught:
        submit(client, 5, "x4", resume_from=running)
    assert caught.value.reason == "CANNOT_START_FROM"
    running.cancel()
