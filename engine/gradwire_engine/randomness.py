"""Random numbers from NumPy PCG64 generators on the host, so that CPU jobs and GPU jobs draw the same numbers."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, get_args

import numpy as np

from gradwire_engine.backend import Array

# The ways to initialize the weights of a Linear layer; see `draw_weights`.
Init = Literal["kaiming", "simple"]
INITS: tuple[Init, ...] = get_args(Init)


class Purpose(IntEnum):
    """The purposes for which a job draws random numbers. Never renumber these values: results depend on them."""

    WEIGHTS = 0
    ROW_ORDER = 1


class _EagerGenerator:
    """Holds the generator for layers that are created in the user's process. It is None until it is first needed."""

    # The generator is created lazily because the first use of numpy.random imports it, which is slow.
    current: np.random.Generator | None = None


_eager = _EagerGenerator()


def seed(value: int) -> None:
    """Seed the weights of layers that are created after this call. Without a seed, weights differ between processes."""
    _eager.current = _generator(np.random.SeedSequence(value))


def eager_generator() -> np.random.Generator:
    """Return the generator from which new layers draw their weights. `seed` replaces this generator."""
    if _eager.current is None:
        _eager.current = _generator(np.random.SeedSequence())
    return _eager.current


def job_generator(job_seed: int, purpose: Purpose, index: int) -> np.random.Generator:
    """Return a new random number generator for the weights of a layer or the row order of an epoch.

    The generator depends only on the arguments, so a job that continues from a checkpoint draws the same numbers as an
    uninterrupted job.

    Args:
        job_seed: The seed of the job.
        purpose: The purpose of the numbers.
        index: For weights, the index of the Linear layer. For the row order, the number of the epoch.
    """
    return _generator(np.random.SeedSequence(job_seed, spawn_key=(int(purpose), index)))


def draw_weights(
    generator: np.random.Generator, in_features: int, out_features: int, init: Init, dtype: np.dtype
) -> Array:
    """Draw W of shape (out_features, in_features).

    "kaiming" draws from N(0, 2 / in_features), as in He et al. 2015, https://arxiv.org/abs/1502.01852, equation 10.
    "simple" draws from N(0, 1) * 0.01. The numbers are drawn as float64 and then rounded to `dtype`, so that float32
    models and float64 models start from the same weights.
    """
    scale = {"kaiming": float(np.sqrt(2.0 / in_features)), "simple": 0.01}[init]
    return (generator.standard_normal((out_features, in_features)) * scale).astype(dtype)


def _generator(sequence: np.random.SeedSequence) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(sequence))
