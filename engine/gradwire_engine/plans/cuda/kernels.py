"""The text of the kernels, and the codes that they know types and losses by."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gradwire_engine.losses import MSE, Loss

# The types in which data may lie on the device; any other is converted on the host. A code is the place here.
SOURCES = ("float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64")
NAMES = (
    "gather",
    "add_bias",
    "mask",
    "losses",
    "sum_losses",
    "end_step",
    "count_classes",
    "sum_errors",
)
# The parts into which sum_losses divides a batch.
PARTS = 64


@cache
def source(dtype: str) -> str:
    """Return the CUDA C++ of all kernels, for arithmetic in "float32" or "float64"."""
    real = {"float32": "float", "float64": "double"}[dtype]
    text = Path(__file__).with_name("kernels.cu").read_text()
    return f"typedef long long INDEX;\n#define REAL {real}\n{text}"


def loss_code(loss: Loss) -> int:
    """Return the code of a loss in the kernels."""
    if isinstance(loss, MSE):
        return 2
    return 0 if loss.from_logits else 1


def loss_factors(loss: Loss, outputs: int) -> tuple[float, float]:
    """Return what a row's gradient is multiplied with beside 1 / rows, and a row's share in the batch's loss."""
    return (2 / outputs, 1 / outputs) if isinstance(loss, MSE) else (1.0, 1.0)


def type_code(dtype: "np.dtype[Any]") -> int:
    """Return the code of a type that data has on the device."""
    return SOURCES.index(dtype.name)
