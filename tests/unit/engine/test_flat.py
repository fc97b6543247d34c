"""The flat vector that contains all parameters of a model."""

import numpy as np
import pytest

from gradwire_engine.flat import pack
from gradwire_engine.module import Parameter


def parameters():
    made = [Parameter(np.arange(6, dtype=np.float32).reshape(2, 3)), Parameter(np.full(3, 7.0, np.float32))]
    made[0].grad = np.full((2, 3), 0.5)
    return made


def test_the_parameters_become_views_into_one_vector():
    first, second = parameters()
    vector = pack([first, second])
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 7, 7, 7]
    assert (first.data.shape, second.data.shape, vector.dtype) == ((2, 3), (3,), np.float32)
    vector += 1
    assert (first.data[1, 2], second.data[2]) == (6, 8)
    assert first.grad.base is second.grad.base
    assert first.grad.base.tolist() == [0.5] * 6 + [0] * 3


def test_packed_parameters_are_not_packed_again():
    made = parameters()
    vector = pack(made)
    arrays = [(each.data, each.grad) for each in made]
    assert pack(made) is vector
    assert all(each.data is data and each.grad is grad for each, (data, grad) in zip(made, arrays, strict=True))


@pytest.mark.parametrize("choose", [lambda made: made[::-1], lambda made: made[:1], lambda made: [*made, made[0]]])
def test_parameters_in_another_order_or_number_get_another_vector(choose):
    made = parameters()
    vector = pack(made)
    chosen = choose(made)
    other = pack(chosen)
    assert other is not vector
    assert other.tolist() == [value for each in chosen for value in each.data.ravel()]
    assert all(np.shares_memory(each.data, other) for each in chosen)


def test_views_of_equal_size_in_other_places_are_not_mistaken_for_packed_ones():
    vector = np.arange(6, dtype=np.float64)
    made = [Parameter(np.zeros(3)), Parameter(np.zeros(3))]
    for each, start in zip(made, (3, 0), strict=True):
        each.bind(vector[start : start + 3], np.zeros(3))
    assert pack(made).tolist() == [3, 4, 5, 0, 1, 2]
    matrix = np.arange(6, dtype=np.float64).reshape(2, 3)
    for each, row in zip(made, matrix, strict=True):
        each.bind(row, np.zeros(3))
    assert pack(made).ndim == 1
    elsewhere = [Parameter(np.zeros(3)), Parameter(np.ones(3))]
    elsewhere[0].bind(np.zeros(6)[:3], np.zeros(3))
    assert pack(elsewhere).tolist() == [0, 0, 0, 1, 1, 1]
