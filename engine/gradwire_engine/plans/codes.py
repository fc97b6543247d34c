"""The integers by which generated code knows losses and element types. The compiled and the CUDA plan share them."""

from typing import Any, NamedTuple

import numpy as np

from gradwire_engine.losses import MSE
from gradwire_engine.plans.base import Problem

# The losses: cross-entropy of logits, cross-entropy of probabilities, and squared errors.
LOGITS, PROBABILITIES, SQUARED_ERROR = range(3)

# The dtypes of data that generated code reads, each with its C type. The code of a dtype is its position.
SOURCE_TYPES = {
    "float32": "float",
    "float64": "double",
    "uint8": "unsigned char",
    "int8": "signed char",
    "uint16": "unsigned short",
    "int16": "short",
    "uint32": "unsigned int",
    "int32": "int",
    "int64": "long long",
}
_SOURCE_CODES = {name: code for code, name in enumerate(SOURCE_TYPES)}


class LossTerms(NamedTuple):
    """A loss as generated code computes it, row by row.

    Attributes:
        code: Which loss.
        gradient_factor: The factor of the gradient of a row besides 1 / rows.
        loss_share: The weight of the loss of a row in the mean over the rows. It is 1 / outputs for squared errors,
            because the loss of a row is then a sum over the outputs.
    """

    code: int
    gradient_factor: float
    loss_share: float


def loss_terms(problem: Problem) -> LossTerms:
    """Return the terms of the loss of a problem. The formulas are those of losses.py."""
    if isinstance(problem.loss, MSE):
        outputs = problem.network.out_features
        return LossTerms(SQUARED_ERROR, 2 / outputs, 1 / outputs)
    return LossTerms(LOGITS if problem.loss.from_logits else PROBABILITIES, 1.0, 1.0)


def source_code(dtype: "np.dtype[Any]") -> int:
    """Return the code of a dtype that generated code reads."""
    return _SOURCE_CODES[dtype.name]
