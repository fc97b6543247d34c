"""Where random numbers come from: host NumPy PCG64 generators, split by purpose, so that CPU and GPU see the same."""

from enum import IntEnum

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from gradwire_engine.backend import Array


class Purpose(IntEnum):
    """What a job draws. The values are part of what a seed means: never renumber them."""

    WEIGHTS = 0
    ROW_ORDER = 1


class _EagerGenerator:
    """The generator of layers that are made in the user's own process."""

    def __init__(self) -> None:
        self.current = Generator(PCG64())


_eager = _EagerGenerator()


def seed(value: int) -> None:
    """Seed what eager layers draw for their weights from now on. Without it, each process draws differently."""
    _eager.current = Generator(PCG64(SeedSequence(value)))


def eager_generator() -> Generator:
    """Return the generator that eager layers draw from; `seed` replaces it."""
    return _eager.current


def job_generator(job_seed: int, purpose: Purpose, index: int) -> Generator:
    """Return a fresh generator for one thing that a job draws, say the order of the rows in epoch `index`.

    It depends on its arguments alone, so a job that goes on at any epoch draws what it would have drawn there.
    """
    return Generator(PCG64(SeedSequence(job_seed, spawn_key=(int(purpose), index))))


def draw_weights(generator: Generator, in_features: int, out_features: int, init: str, dtype: np.dtype) -> Array:
    """Draw W of shape (out_features, in_features).

    "kaiming" is N(0, 2 / in_features), He et al. 2015, https://arxiv.org/abs/1502.01852, eq. 10; "simple" is
    N(0, 1) * 0.01. The draw is in float64 for every dtype, so that float32 and float64 start from the same weights.
    """
    scales = {"kaiming": float(np.sqrt(2.0 / in_features)), "simple": 0.01}
    if init not in scales:
        raise ValueError(f"init must be one of {', '.join(map(repr, scales))}, got {init!r}")
    return (generator.standard_normal((out_features, in_features)) * scales[init]).astype(dtype)
