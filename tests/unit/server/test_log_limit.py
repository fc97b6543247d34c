"""The log limits repeated messages."""

import logging

import pytest
from grpc._cython.cygrpc import ExecuteBatchError

from gradwire_server import log_limit


@pytest.fixture
def limited(monkeypatch, caplog):
    """The clock that the log limit uses."""
    now = [0.0]
    monkeypatch.setattr(log_limit.time, "monotonic", lambda: now[0])
    caplog.handler.addFilter(limit := log_limit.RepeatLimit())
    yield now
    caplog.handler.removeFilter(limit)


def test_a_repeated_message_is_dropped_and_then_counted(limited, caplog):
    log = logging.getLogger("test.log_limit")

    def attack(number):
        log.warning("attack %d", number)

    for number in range(100):
        attack(number)
    log.warning("something else")
    limited[0] = 11.0
    attack(100)
    assert sum(text.startswith("attack") for text in caplog.messages) == log_limit.MAX_REPEATS + 1
    assert "something else" in caplog.messages
    assert caplog.messages[-1] == "attack 100 (80 messages like this one were not logged)"


def test_each_subject_has_its_own_limit(limited, caplog):
    log = logging.getLogger("test.log_limit")

    def end(subject):
        log.warning("%d ended", subject, extra={"subject": subject})

    for subject in [*range(1_500), *[1] * 24]:
        end(subject)
    assert set(caplog.messages) == {f"{subject} ended" for subject in range(1_500)}
    assert caplog.messages.count("1 ended") == log_limit.MAX_REPEATS
    limited[0] = 11.0
    end(1)
    assert caplog.messages[-1] == "1 ended (5 messages like this one were not logged)"


def test_each_period_has_the_same_limit(limited, caplog):
    log = logging.getLogger("test.log_limit")

    def logged_at(seconds, times):
        limited[0], before = seconds, len(caplog.messages)
        for _ in range(times):
            log.warning("attack")
        return caplog.messages[before:]

    assert len(logged_at(0.0, 15)) == 15
    assert len(logged_at(10.0, 9)) == 5, "this is still the same period"
    found = logged_at(10.5, 25)
    assert len(found) == log_limit.MAX_REPEATS
    assert found[:2] == ["attack (4 messages like this one were not logged)", "attack"]
    assert logged_at(30.0, 1) == ["attack (5 messages like this one were not logged)"]
    assert logged_at(50.0, 1) == ["attack"]


def test_only_old_counts_without_dropped_messages_are_forgotten_and_not_too_often(limited, monkeypatch):
    monkeypatch.setattr(log_limit, "_MAX_COUNTS", 4)
    limit, forgotten = log_limit.RepeatLimit(), []
    forget = limit._forget
    monkeypatch.setattr(limit, "_forget", lambda now: (forgotten.append(now), forget(now)))

    def send(subject, times=1):
        return [limit.filter(logging.makeLogRecord({"subject": subject})) for _ in range(times)]

    assert send("noisy", 21)[-1] is False
    for subject in range(64):
        limited[0] += 0.1
        send(subject)
    assert len(limit._counts) == 65, "all of them are recent"
    assert len(forgotten) <= 6
    limited[0] = 1000.0
    for subject in range(64, 200):
        send(subject)
    assert len(limit._counts) <= 137, "the first ones are forgotten"
    report = logging.makeLogRecord({"subject": "noisy", "msg": "x"})
    assert limit.filter(report)
    assert report.getMessage() == "x (1 messages like this one were not logged)"


def test_the_limit_forgets_subjects_of_earlier_periods():
    limit = log_limit.RepeatLimit()
    for subject in range(5_000):
        limit.filter(logging.makeLogRecord({"subject": subject}))
        for count in limit._counts.values():
            count.since = -1000.0
    assert len(limit._counts) <= 1_000


def test_grpcs_traceback_of_a_call_whose_client_has_disconnected_is_not_logged(caplog):
    caplog.handler.addFilter(log_limit.is_about_the_server)
    try:
        for name in ("grpc._cython.cygrpc", "gradwire_server.app"):
            for error in (ExecuteBatchError("Failed"), ValueError("a defect")):
                logging.getLogger(name).error("raised by %s", name, exc_info=error)
    finally:
        caplog.handler.removeFilter(log_limit.is_about_the_server)
    logged = [(record.name.partition(".")[0], type(record.exc_info[1])) for record in caplog.records]
    assert logged == [("grpc", ValueError), ("gradwire_server", ExecuteBatchError), ("gradwire_server", ValueError)]
