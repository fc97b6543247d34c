"""The pace at which the bodies of HTTP requests arrive."""

import asyncio

from gradwire_server.http import pace as pace_module
from gradwire_server.http.pace import Pace

TURN, READ = pace_module._TURN_BYTES, pace_module._READ_BYTES


def test_connections_wait_in_order_once_a_turn_is_used_up():
    async def scenario():
        pace, order = Pace(), []
        pace.received(READ, lambda: order.append("first"))
        assert order == ["first"]
        pace.received(TURN, lambda: order.append("second"))
        pace.received(1, lambda: order.append("third"))
        assert order == ["first"]
        await asyncio.wait_for(pace.wait(1), 10)
        return order

    assert asyncio.run(scenario()) == ["first", "second", "third"]


def test_a_turn_lets_only_as_many_connections_continue_as_it_has_bytes_for():
    async def scenario():
        pace, resumed = Pace(), []
        for number in range(9):
            pace.received(TURN if number == 0 else 0, lambda number=number: resumed.append(number))
        counts = []
        while pace._waiting:
            pace._timer.cancel()
            pace._turn()
            counts.append(len(resumed))
        return counts

    assert asyncio.run(scenario()) == [2, 4, 6, 8, 9]


def test_bytes_that_were_received_beyond_a_turn_are_made_up_for_and_unused_turns_are_not_saved():
    async def scenario():
        pace, resumed = Pace(), []
        pace.received(4 * TURN, lambda: resumed.append("large"))
        turns = 0
        while not resumed:
            pace._timer.cancel()
            pace._turn()
            turns += 1
        for _ in range(5):
            if pace._timer is not None:
                pace._timer.cancel()
                pace._turn()
        assert pace._timer is None
        pace.received(TURN, lambda: resumed.append("next"))
        pace._timer.cancel()
        return turns, resumed

    assert asyncio.run(scenario()) == (4, ["large"])


def test_a_request_that_is_abandoned_while_it_waits_does_no_harm():
    async def scenario():
        pace = Pace()
        waiting = asyncio.create_task(pace.wait(2 * TURN))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait_for(pace.wait(1), 10)
        assert waiting.cancelled()

    asyncio.run(scenario())
