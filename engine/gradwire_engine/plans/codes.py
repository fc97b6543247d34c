"""The integer codes for losses and element types in generated code. The compiled plan and the CUDA plan share them."""

from typing import Any, NamedTuple

import numpy as np

from gradwire_engine.losses import MSE
from gradwire_engine.plans.base import Problem

# The loss codes: cross-entropy of logits, cross-entropy of probabilities, and squared errors.
LOGITS, PROBABILITIES, SQUARED_ERROR = range(3)

# The dtypes that generated code can read, and their C types. The code of a dtype is its position in this dict.
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
    """The parameters that generated code uses to compute a loss row by row.

    Attributes:
        code: The loss code.
        gradient_factor: A factor that is applied to the gradient of each row, in addition to 1 / rows.
        loss_share: A factor that is applied to the loss of each row. For squared errors it is 1 / outputs, because
            generated code computes the sum over the outputs, not the mean.
    """

    code: int
    gradient_factor: float
    loss_share: float


def loss_terms(problem: Problem) -> LossTerms:
    """Return the loss parameters of a problem, which correspond to the formulas in losses.py."""
    if isinstance(problem.loss, MSE):
        outputs = problem.network.out_features
        return LossTerms(SQUARED_ERROR, 2 / outputs, 1 / outputs)
    return LossTerms(LOGITS if problem.loss.from_logits else PROBABILITIES, 1.0, 1.0)


def source_code(dtype: "np.dtype[Any]") -> int:
    """Return the code of a supported dtype."""
    return _SOURCE_CODES[dtype.name]
