"""The forward pass of a network in blocks of rows."""

import numpy as np
import pytest

from gradwire_engine.inference import blocks_of, forward
from gradwire_engine.losses import MSE
from gradwire_engine.network import Network
from gradwire_engine.plans import Problem, ReferencePlan


@pytest.mark.parametrize("stack", [[(3, 8), None, (8, 2)], [None, (3, 2)], [(3, 2), None]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_are_bit_identical_to_those_of_the_reference_plan(stack, dtype):
    network = Network.from_stack(stack)
    random = np.random.default_rng(0)
    vector = random.standard_normal(network.size).astype(dtype)
    inputs = random.integers(-9, 9, (5000, 3))
    expected = ReferencePlan(Problem(network, MSE(), np.dtype(dtype)), vector).predict(inputs)
    vector.flags.writeable = False
    outputs = [forward(network, vector, inputs[rows]) for rows in blocks_of(network, 5000, vector.itemsize)]
    assert np.concatenate(outputs).tobytes() == expected.tobytes()


def test_blocks_are_smaller_for_wide_layers():
    def sizes(width, rows):
        network = Network.from_stack([(1, width), (width, 1)])
        return [rows.stop - rows.start for rows in blocks_of(network, rows, 4)]

    assert sizes(10, 9000) == [4096, 4096, 808]
    assert sizes(100_000, 200) == [83, 83, 34]
    assert sizes(1_000_000, 9) == [8, 1]
    assert sizes(100_000_000, 2) == [1, 1]
