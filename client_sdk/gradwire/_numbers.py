"""Checks the numbers that users pass."""

from __future__ import annotations

from numbers import Real

import numpy as np

from gradwire._argument_names import invalid_argument

MAX_INT32 = 2**31 - 1


def is_number(value: object) -> bool:
    """Return whether a value is a real number, and not a bool."""
    return isinstance(value, Real | np.floating | np.integer) and not isinstance(value, bool)


def whole_number_problem(value: object, smallest: int, largest: int = MAX_INT32) -> str | None:
    """Return what a value must be if it is not a whole number in a range, for example "be at least 1", or None."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return "be a whole number"
    if value < smallest:
        return f"be at least {smallest}"
    return None if value <= largest else f"be at most {largest}"


def checked_whole(name: str, value: int, smallest: int, largest: int = MAX_INT32) -> int:
    """Return the value of an argument that must be a whole number. Raises InvalidArgumentError if it is not."""
    problem = whole_number_problem(value, smallest, largest)
    if problem is not None:
        raise invalid_argument(name, f"must {problem}, got {value!r}", "")
    return int(value)
