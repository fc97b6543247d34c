"""The stopping rules, compared with a plain Python oracle, including when training continues from any epoch."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine.metrics import Metrics
from gradwire_engine.spec.messages import epoch_message
from gradwire_engine.spec.stopping import monitors, progress_of, rules_of
from gradwire_engine.spec.validation import check_spec
from gradwire_engine.stopping import Progress, StoppingRules, TrainingControl
from gradwire_engine.training import Epoch
from gradwire_proto.v1.spec_pb2 import EarlyStopping, JobSpec, KeepPolicy
from gradwire_proto.v1.training_service_pb2 import Event, Job
from gradwire_server.jobs.events import JobUpdater

NAN = math.nan


def epoch(number, value=None, *, evaluated=True, seconds=1.0, **metrics):
    train = Metrics(loss=0.5 if value is None else value, **metrics) if evaluated else None
    return Epoch(number, 0.25, train, None, seconds, 0.0)


def oracle(values, *, patience, min_delta, larger_is_better):
    """Return the epoch after which training stops, and the best epoch, in the simplest possible way.

    A value is None in an epoch that was not evaluated.
    """
    best, best_number, bad = None, 0, 0
    for number, value in enumerate(values, 1):
        if value is None:
            continue
        change = 0.0 if best is None else (value - best if larger_is_better else best - value)
        if not math.isnan(value) and (
            best is None or (value > best + min_delta if larger_is_better else value < best - min_delta)
        ):
            assert best is None or change > 0
            best, best_number, bad = value, number, 0
        else:
            bad += 1
        if bad >= patience:
            return number, best_number
    return len(values), best_number


def follow(epochs, rules, stored=0, resume=0):
    """Follow the epochs of a job whose first `stored` epochs are stored, from the epoch after `resume` on.

    Returns:
        Why and after which epoch it stops, the best epoch, and the epochs whose weights were captured as the best.
    """
    progress = Progress()
    for each in epochs[:stored]:
        progress = progress.after(each, rules)
    control = TrainingControl(rules, progress)
    number, captured = resume, []
    reason = control.stop_reason(number)
    while reason is None:
        each = epochs[number]
        number += 1
        control.add(each, lambda number=number: np.array([number]))
        best = control.take_best()
        if best is not None:
            captured.append((best[0], int(best[1][0])))
        reason = control.stop_reason(number)
    return reason, number, control.progress.best_epoch, captured


values = st.lists(
    st.one_of(st.none(), st.just(NAN), st.integers(0, 6).map(lambda number: number / 4)), min_size=1, max_size=25
)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(values, st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.25, 0.5]), st.booleans(), st.data())
def test_the_decision_is_that_of_the_oracle_wherever_an_attempt_continues(values, patience, min_delta, larger, data):
    monitor = "train.accuracy" if larger else "train.loss"
    epochs = [
        epoch(
            number, *([] if larger else [value]), evaluated=value is not None, **({"accuracy": value} if larger else {})
        )
        for number, value in enumerate(values, 1)
    ]
    rules = StoppingRules(len(epochs), monitor, min_delta, patience, restore_best=True)
    expected = oracle(values, patience=patience, min_delta=min_delta, larger_is_better=larger)
    reason, last, best, captured = follow(epochs, rules)
    assert (last, best) == expected
    assert reason == ("ALL_EPOCHS" if last == len(epochs) else "EARLY_STOPPING")
    assert not captured or captured[-1][0] == best
    # A worker dies. Some epochs are stored, and its last checkpoint is one of them or none.
    stored = data.draw(st.integers(0, last))
    resume = data.draw(st.integers(0, stored))
    again = follow(epochs, rules, stored, resume)
    assert again[:3] == (reason, last, best)
    assert all(number == weights for number, weights in again[3]), "the weights are those of their epoch"
    # The weights of the best epoch are computed again, or were stored before the checkpoint was.
    assert best <= resume or (best, best) in again[3]


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.lists(st.floats(0.001, 2), min_size=1, max_size=20), st.floats(0.5, 15), st.data())
def test_the_time_limit_counts_stored_epochs_once(seconds, limit, data):
    epochs = [epoch(number, seconds=each) for number, each in enumerate(seconds, 1)]
    rules = StoppingRules(len(epochs), max_seconds=limit)
    totals = [sum(seconds[: number + 1]) for number in range(len(seconds))]
    expected = next((number for number, total in enumerate(totals, 1) if total >= limit), len(epochs))
    assert follow(epochs, rules)[1] == expected
    stored = data.draw(st.integers(0, expected))
    resume = data.draw(st.integers(0, stored))
    slower = [*(epoch(each.epoch, seconds=100.0) for each in epochs[:stored]), *epochs[stored:]]
    progress = Progress()
    for each in epochs[:stored]:
        progress = progress.after(each, rules)
    control, number = TrainingControl(rules, progress), resume
    while control.stop_reason(number) is None:
        control.add(slower[number], lambda: np.zeros(0))
        number += 1
    assert number == expected, "repeated epochs do not count again"


def test_the_reasons_have_an_order():
    rules = StoppingRules(epochs=3, monitor="train.loss", patience=1, max_seconds=2.0)
    progress = Progress().after(epoch(1, 0.5, seconds=0.5), rules)
    assert progress.stop_reason(rules) is None
    assert progress.stop_reason(rules, requested=True) == "REQUESTED"
    assert progress.after(epoch(2, 0.25, seconds=2.0), rules).stop_reason(rules, requested=True) == "TIME_LIMIT"
    assert progress.after(epoch(2, 0.75, seconds=2.0), rules).stop_reason(rules, requested=True) == "EARLY_STOPPING"
    assert progress.after(epoch(3, 0.75, seconds=2.0), rules).stop_reason(rules, requested=True) == "ALL_EPOCHS"


def test_a_request_waits_for_the_first_epoch_and_for_the_last_stored_one():
    rules = StoppingRules(epochs=9)
    assert TrainingControl(rules).stop_reason(0, requested=True) is None
    control = TrainingControl(rules, Progress(epoch=5))
    assert control.stop_reason(3, requested=True) is None
    assert control.stop_reason(5, requested=True) == "REQUESTED"


@pytest.mark.parametrize(
    ("monitor", "metrics", "improves"),
    [
        ("running_loss", {}, False),
        ("train.loss", {"value": 0.4}, True),
        ("train.mean_absolute_error", {"mean_absolute_error": 0.4}, True),
        ("train.accuracy", {"accuracy": 0.4}, False),
        ("train.r2", {"r2": 0.6}, True),
        ("train.r2", {}, False),
        ("train.f1", {"f1": NAN}, False),
    ],
)
def test_whether_a_metric_improves_depends_on_its_direction(monitor, metrics, improves):
    rules = StoppingRules(epochs=9, monitor=monitor, patience=2)
    first = epoch(1, 0.5, mean_absolute_error=0.5, accuracy=0.5, r2=0.5, f1=0.5)
    progress = Progress().after(first, rules).after(epoch(2, **metrics), rules)
    assert (progress.best_epoch, progress.without_improvement) == ((2, 0) if improves else (1, 1))


def test_the_result_is_the_best_epoch_if_there_is_one_and_it_is_restored():
    progress = Progress(epoch=7, best_epoch=3, best_value=0.5)
    assert progress.result_epoch(StoppingRules(9, "train.loss", restore_best=True)) == 3
    assert progress.result_epoch(StoppingRules(9, "train.loss", keep_best=True)) == 7
    assert Progress(epoch=7).result_epoch(StoppingRules(9, "train.loss", restore_best=True)) == 7


@pytest.mark.parametrize("monitor", ["running_loss", "train.loss", "train.accuracy", "test.loss", "test.r2", "test.f1"])
def test_a_stored_epoch_has_the_values_of_the_epoch(monitor):
    """Absent metrics, metrics of 0 and epochs that were not evaluated count in the same way."""
    rules = StoppingRules(epochs=99, monitor=monitor)
    metrics = [
        None,
        Metrics(0.0, accuracy=0.0),
        Metrics(0.5, f1=0.5),
        Metrics(0.25, r2=-1.0),
        Metrics(0.5, accuracy=0.5),
    ]
    job = Job(spec=JobSpec(epochs=99, early_stopping=EarlyStopping(monitor=monitor, patience=9)))
    progress = Progress()
    for number, (train, test) in enumerate(itertools.product(metrics, metrics), 1):
        each = Epoch(number, 1.0 / number, train, test, 0.25, 0.5)
        JobUpdater(job).apply(Event(epoch=epoch_message(each)))
        progress = progress.after(each, rules)
        assert repr(progress_of(job, rules)) == repr(progress)


def test_a_stored_job_has_the_progress_of_its_epochs():
    job = Job(spec=JobSpec(epochs=9, early_stopping=EarlyStopping(monitor="train.loss", patience=4)))
    rules = rules_of(job.spec)
    expected = Progress()
    for number, loss in enumerate([0.5, 0.25, 0.0, 0.3, NAN], 1):
        event = Event(sequence=number)
        event.epoch.epoch, event.epoch.train_seconds, event.epoch.evaluate_seconds = number, 0.1, 0.2
        event.epoch.train.loss = loss
        JobUpdater(job).apply(event)
        expected = expected.after(epoch(number, loss, seconds=0.1 + 0.2), rules)
    assert progress_of(job, rules) == expected
    assert (job.best_epoch.epoch, job.epochs_without_improvement) == (3, 2)
    assert job.training_seconds == pytest.approx(1.5)


def test_the_monitors_of_a_job_are_the_metrics_of_its_epochs():
    spec = JobSpec()
    assert monitors(spec, classification=False) == [
        "running_loss", "train.loss", "train.mean_absolute_error", "train.r2",
    ]  # fmt: skip
    spec.test.SetInParent()
    assert monitors(spec, classification=True)[-5:] == [
        "test.loss", "test.accuracy", "test.precision", "test.recall", "test.f1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"early_stopping": EarlyStopping(patience=0)}, "early_stopping.patience"),
        ({"early_stopping": EarlyStopping(patience=-1)}, "early_stopping.patience"),
        ({"early_stopping": EarlyStopping(patience=11)}, "early_stopping.patience"),
        ({"early_stopping": EarlyStopping(patience=1, min_delta=-0.1)}, "early_stopping.min_delta"),
        ({"early_stopping": EarlyStopping(patience=1, min_delta=NAN)}, "early_stopping.min_delta"),
        ({"early_stopping": EarlyStopping(patience=1, min_delta=math.inf)}, "early_stopping.min_delta"),
        ({"early_stopping": EarlyStopping(patience=10)}, None),
        ({"max_seconds": 0.0}, "max_seconds"),
        ({"max_seconds": -1.0}, "max_seconds"),
        ({"max_seconds": NAN}, "max_seconds"),
        ({"max_seconds": math.inf}, "max_seconds"),
        ({"max_seconds": 1.1e9}, "max_seconds"),
        ({"max_seconds": 1e9}, None),
        ({"keep": KeepPolicy(every=-1)}, "keep.every"),
        ({"keep": KeepPolicy(best=True, every=3)}, None),
    ],
)
def test_invalid_numbers_are_refused(fields, wrong):
    found = {violation.field for violation in check_spec(JobSpec(epochs=10, **fields))}
    stopping = {field for field in found if field.startswith(("early_stopping", "max_seconds", "keep"))}
    assert stopping == ({wrong} if wrong else set())


def test_the_rules_are_those_of_the_spec():
    assert rules_of(JobSpec(epochs=7)) == StoppingRules(7)
    stopping = EarlyStopping(monitor="test.f1", patience=3, min_delta=0.5, restore_best=True)
    spec = JobSpec(epochs=7, early_stopping=stopping, max_seconds=60, keep=KeepPolicy(every=2))
    assert rules_of(spec) == StoppingRules(7, "test.f1", 0.5, 3, restore_best=True, max_seconds=60.0, keep_every=2)
    best = JobSpec(epochs=7, keep=KeepPolicy(best=True))
    assert rules_of(best) == StoppingRules(7, "train.loss", keep_best=True)
    best.test.SetInParent()
    assert rules_of(best).monitor == "test.loss"


def test_the_epochs_to_keep_are_the_multiples_of_a_number():
    for every, kept in ((0, []), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6]), (8, [])):
        rules = StoppingRules(7, keep_every=every)
        assert [number for number in range(1, 8) if rules.keeps_number(number)] == kept
    assert not any(StoppingRules(7).keeps_number(number) for number in range(1, 8))


def test_a_job_that_is_already_beyond_a_limit_stops():
    rules = StoppingRules(epochs=5, monitor="train.loss", patience=2, max_seconds=9.0)
    assert Progress(epoch=8).stop_reason(rules) == "ALL_EPOCHS"
    assert Progress(epoch=4, without_improvement=4).stop_reason(rules) == "EARLY_STOPPING"
    assert TrainingControl(rules, Progress(epoch=3, seconds=9.5)).stop_reason(4) == "TIME_LIMIT"
