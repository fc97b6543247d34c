"""A limit on what is in use at the same time, for example calls or bytes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """Counts what is in use, and rejects what would exceed a maximum.

    Args:
        maximum: The maximum.
        exceeded: A function that returns the exception to raise.
    """

    def __init__(self, maximum: int, exceeded: Callable[[], Exception]) -> None:
        self._maximum = maximum
        self._exceeded = exceeded
        self._used = 0

    @contextmanager
    def taken(self, amount: int = 1) -> Iterator[None]:
        """Use an amount for the duration of the context. Raises the exception if less than that is left."""
        if self._used + amount > self._maximum:
            raise self._exceeded()
        self._used += amount
        try:
            yield
        finally:
            self._used -= amount
