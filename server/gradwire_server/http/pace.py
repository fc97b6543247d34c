"""Limits how fast the bodies of all requests arrive together, so that the event loop has time for everything else."""

import asyncio
from collections import deque
from collections.abc import Callable

_TURN_SECONDS = 0.01
# All bodies together receive this many bytes in a turn: 50 MB/s.
_TURN_BYTES = 512 << 10
# The number of bytes that the event loop reads from a connection at a time.
_READ_BYTES = 256 << 10


class Pace:
    """Lets connections continue in the order in which they received data."""

    def __init__(self) -> None:
        self._left = _TURN_BYTES
        self._waiting: deque[Callable[[], object]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def received(self, size: int, resume: Callable[[], object]) -> None:
        """Count bytes that have arrived, and call a function when the connection may receive more, perhaps at once."""
        self._left -= size
        if self._left > 0 and not self._waiting:
            resume()
        else:
            self._waiting.append(resume)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TURN_SECONDS, self._turn)

    async def wait(self, size: int) -> None:
        """Count bytes that have arrived, and wait until more may arrive."""
        resumed = asyncio.Event()
        self.received(size, resumed.set)
        await resumed.wait()

    def _turn(self) -> None:
        self._left = min(_TURN_BYTES, self._left + _TURN_BYTES)
        allowed = self._left
        while self._waiting and allowed > 0:
            allowed -= _READ_BYTES
            self._waiting.popleft()()
        unused = not self._waiting and self._left == _TURN_BYTES
        self._timer = None if unused else asyncio.get_running_loop().call_later(_TURN_SECONDS, self._turn)
