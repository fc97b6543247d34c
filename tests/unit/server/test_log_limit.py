"""The log limits repeated messages."""

import logging

from gradwire_server import log_limit


def test_a_repeated_message_is_dropped_and_then_counted(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(log_limit.time, "monotonic", lambda: now[0])
    log = logging.getLogger("test.log_limit")

    def attack(number):
        log.warning("attack %d", number)

    caplog.handler.addFilter(limit := log_limit.RepeatLimit())
    try:
        for number in range(100):
            attack(number)
        log.warning("something else")
        now[0] = 11.0
        attack(100)
        assert sum(text.startswith("attack") for text in caplog.messages) == log_limit.MAX_REPEATS + 1
    finally:
        caplog.handler.removeFilter(limit)
    assert "something else" in caplog.messages
    assert caplog.messages[-1] == "attack 100 (80 messages like this one were not logged)"
