"""Budgets, which limit calls and bytes."""

import pytest

from gradwire_server.budget import Budget


class FullError(Exception):
    """The budget is used up."""


def test_a_budget_can_be_used_up_to_its_maximum_and_everything_is_given_back():
    budget = Budget(5, FullError)
    with budget.taken(3), budget.taken(2), pytest.raises(FullError), budget.taken():
        pass
    with budget.taken(4), budget.taken():  # The amount defaults to 1.
        pass
    with pytest.raises(FullError), budget.taken(6):
        pass
    with pytest.raises(ZeroDivisionError), budget.taken(5):
        1 / 0  # noqa: B018
    with budget.taken(5):
        pass
