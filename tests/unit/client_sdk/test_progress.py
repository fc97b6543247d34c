"""What is known about a job while it trains, apart from how it is shown."""

import math

import pytest
from epochs import epoch, epochs

from gradwire import Epoch
from gradwire._progress import RECENT_EPOCHS, JobProgress, best_key, metric_columns, metrics_text
from gradwire_engine.spec.messages import epoch_message
from gradwire_proto.v1.training_service_pb2 import Event, JobState


def progress_of(*losses, total=20, **options):
    progress = JobProgress("digits", total, **options)
    for each in epochs(losses):
        progress.add(each)
    return progress


def test_the_speed_and_the_time_left_are_those_of_the_recent_epochs():
    progress = progress_of(*[1.0] * 4, rows=50)
    assert (progress.count, progress.last_epoch, progress.epoch_text()) == (4, 4, "4/20")
    assert progress.seconds == pytest.approx(4 * 0.012)
    assert progress.rows_per_second() == pytest.approx(5000)
    assert progress.seconds_left() == pytest.approx(16 * 0.012)
    for number in range(5, 5 + RECENT_EPOCHS):
        progress.add(Epoch(number, 1.0, None, None, 0.1, 0.0))
    assert progress.rows_per_second() == pytest.approx(500)
    assert progress.seconds_left() == pytest.approx(0.1)
    progress.add(epoch(20, 1.0))
    assert progress.seconds_left() is None
    assert progress_of(1.0).rows_per_second() is None
    assert progress_of(1.0, state="PAUSED").seconds_left() is None
    assert JobProgress("x", 5, rows=1).rows_per_second() is JobProgress("x", 5).seconds_left() is None


def test_a_job_without_epochs_is_at_its_initial_epoch():
    progress = JobProgress("x", 9, initial_epoch=4)
    assert (progress.last_epoch, progress.epoch_text(), progress.summary(), progress.best) == (4, "4/9", [], None)
    assert JobProgress(None, 0).epoch_text() == "0"
    ended = JobProgress.of(epochs([1.0, 0.5]))
    assert (ended.has_ended, ended.epochs, ended.last_epoch) == (True, 2, 2)


def test_epochs_are_ranked_by_their_test_loss_then_train_loss_then_running_loss():
    ranked = [
        epoch(1, 9.0, 0.5),
        epoch(2, 0.1, 0.75),
        epoch(3, 0.1, math.nan),
        epoch(4, 0.1),
        epoch(5, 0.2),
        epoch(6, math.nan),
        epoch(7, None),
    ]
    assert sorted([*ranked[4:], *ranked[:4]], key=best_key) == ranked
    progress = JobProgress("x", 9)
    for each in reversed(ranked):
        progress.add(each)
        assert progress.best is each
    for each in (*ranked[1:], epoch(8, 0.1, 0.5)):
        progress.add(each)
    assert progress.best is ranked[0], "the first of equal ones is the best"


def test_the_text_of_an_epoch_is_about_the_test_set_if_it_was_evaluated():
    assert metrics_text(epoch(1, 1.0, 0.5, accuracy=0.25)) == "test loss 0.5000, test accuracy 0.2500"
    assert metrics_text(epoch(1, 1.0, r2=0.5)) == "train loss 1.0000, train R2 0.5000"
    assert metrics_text(epoch(1, None)) == "running loss 1.0000"


def test_a_curve_exists_only_for_metrics_that_occur():
    progress = JobProgress("x", 9)
    progress.add(epoch(1, None))
    assert progress.curves("loss").keys() == {"train"}
    assert progress.loss("train").values == [1.0], "the running loss"
    assert progress.curves("accuracy") == {}
    progress.add(epoch(2, 0.5, 0.75, accuracy=0.0))
    assert (progress.loss("train").epochs, progress.loss("train").values) == ([2], [0.5])
    assert progress.loss("test").values == [0.75]
    assert {which: curve.values for which, curve in progress.curves("accuracy").items()} == {"train": [0], "test": [0]}
    assert list(metric_columns(progress.recent)) == ["train loss", "train accuracy", "test loss", "test accuracy"]
    both = epochs([1.0], mean_absolute_error=0.5, f1=0.5)
    assert metric_columns(both) == {
        "train loss": ("train", "loss"),
        "train f1": ("train", "f1"),
        "train mean absolute error": ("train", "mean_absolute_error"),
    }


def test_events_change_the_state_and_the_note():
    progress = JobProgress("x", 9, state="QUEUED")

    def apply(**fields):
        return progress.apply(Event(**fields)), progress.state, progress.note

    queued = {"state": JobState.JOB_STATE_QUEUED, "message": "waits"}
    assert apply(state_change=queued) == (None, "QUEUED", "waits")
    running = {"state": JobState.JOB_STATE_RUNNING, "message": "started"}
    assert apply(state_change=running) == (None, "RUNNING", "")
    assert apply(warning={"message": "slow"}) == (None, "RUNNING", "slow")
    assert apply(epoch=epoch_message(epoch(3, 0.5)))[0].epoch == progress.last_epoch == 3
    assert not progress.has_ended
    done = {"state": JobState.JOB_STATE_SUCCEEDED, "message": "stopped early"}
    assert apply(state_change=done) == (None, "SUCCEEDED", "stopped early")
    failed = {"state": JobState.JOB_STATE_FAILED, "message": "failed", "error": {"message": "diverged"}}
    assert apply(state_change=failed) == (None, "FAILED", "diverged")
    assert progress.has_ended


def test_the_summary_has_the_best_epoch_and_a_hint():
    assert progress_of(1.0, 0.5, 0.75).summary() == ["3 epochs in 36 ms. Best epoch: 2 (train loss 0.5000)"]
    first, hint = progress_of(1.0, 2.0, 4.0, 8.0).summary()
    assert first.startswith("4 epochs in 48 ms. Best epoch: 1 ")
    assert hint.startswith("The loss grows")
