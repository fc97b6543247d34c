"""The text of the kernels, and the codes that they know types and losses by."""

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
    "end_step",
    "count_classes",
    "sum_errors",
)
# The threads of a block in kernels.cu, and the parts into which sum_errors divides the rows.
BLOCK = 256
PARTS = 64
# For narrow.cu: the threads of a block, and the outputs of the first layer that a block has.
THREADS = 512
OWN = 4


def step_source(dtype: str) -> str:
    """Return the CUDA C++ of the kernels that NAMES lists, for arithmetic in "float32" or "float64"."""
    return _definitions(dtype, BLOCK=BLOCK, PARTS=PARTS) + _text("rows.cu") + _text("kernels.cu")


def narrow_source(dtype: str) -> str:
    """Return the CUDA C++ of narrow_steps, likewise."""
    return _definitions(dtype, THREADS=THREADS, OWN=OWN) + _text("rows.cu") + _text("persistent.cu")


def loss_code(loss: Loss) -> int:
    """Return the code of a loss in the kernels."""
    if isinstance(loss, MSE):
        return 2
    return 0 if loss.from_logits else 1


def loss_factors(loss: Loss, outputs: int) -> tuple[float, float]:
    """Return what a row's gradient is multiplied with beside 1 / rows, and a row's share in the batch's loss."""
    return (2 / outputs, 1 / outputs) if isinstance(loss, MSE) else (1.0, 1.0)


def typed(array: Any) -> tuple[Any, np.int32]:
    """Return what a kernel is given for data on the device: the array and the code of its type."""
    return array, np.int32(SOURCES.index(array.dtype.name))


def _definitions(dtype: str, **numbers: int) -> str:
    definitions = {"REAL": {"float32": "float", "float64": "double"}[dtype], "INDEX": "long long", **numbers}
    return "".join(f"#define {name} {value}\n" for name, value in definitions.items())


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text()
