"""Random numbers: NumPy PCG64 generators on the host, one for each purpose, so that CPU and GPU draw the same."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, get_args

import numpy as np

from gradwire_engine.backend import Array

# How the weights of a Linear are drawn; see `draw_weights`.
Init = Literal["kaiming", "simple"]
INITS: tuple[Init, ...] = get_args(Init)


class Purpose(IntEnum):
    """What a job draws random numbers for. The result of a seed depends on these values: never renumber them."""

    WEIGHTS = 0
    ROW_ORDER = 1


class _EagerGenerator:
    """Holds the generator of layers that are created in the process of the user; None until one is needed."""

    # numpy.random is slow to import, and NumPy imports it when it is first used.
    current: np.random.Generator | None = None


_eager = _EagerGenerator()


def seed(value: int) -> None:
    """Seed the weights of the layers that are created from now on. Without it, every process draws other weights."""
    _eager.current = _generator(np.random.SeedSequence(value))


def eager_generator() -> np.random.Generator:
    """Return the generator that new layers draw their weights from. `seed` replaces it."""
    if _eager.current is None:
        _eager.current = _generator(np.random.SeedSequence())
    return _eager.current


def job_generator(job_seed: int, purpose: Purpose, index: int) -> np.random.Generator:
    """Return a new generator for one thing that a job draws.

    It depends only on its arguments, so a job that continues after any epoch draws the same as one that ran through.

    Args:
        job_seed: The seed of the job.
        purpose: What is drawn.
        index: Which one: the index of a Linear layer for its weights, the number of an epoch for its row order.
    """
    return _generator(np.random.SeedSequence(job_seed, spawn_key=(int(purpose), index)))


def draw_weights(
    generator: np.random.Generator, in_features: int, out_features: int, init: Init, dtype: np.dtype
) -> Array:
    """Draw W of shape (out_features, in_features).

    "kaiming" draws from N(0, 2 / in_features), as in He et al. 2015, https://arxiv.org/abs/1502.01852, equation 10;
    "simple" from N(0, 1) * 0.01. Every dtype is drawn in float64 and then rounded, so that float32 and float64 models
    start from the same weights.
    """
    scale = {"kaiming": float(np.sqrt(2.0 / in_features)), "simple": 0.01}[init]
    return (generator.standard_normal((out_features, in_features)) * scale).astype(dtype)


def _generator(sequence: np.random.SeedSequence) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(sequence))
