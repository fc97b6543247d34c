"""The CUDA C++ text of the kernels, and their arguments by name.

The fields of the argument tuples have the names and the order of the parameters in the .cu files. The type of an
argument must be that of its parameter: `Device.launch` passes integers and booleans as int, and everything else as it
is.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradwire_engine.plans.codes import LOGITS, PROBABILITIES, SOURCE_TYPES, SQUARED_ERROR

STEP_KERNELS = ("gather", "add_bias", "mask", "losses", "end_step", "count_classes", "sum_errors")
PERSISTENT_KERNEL = "persistent_steps"

# For kernels.cu: the threads of a block, and the parts into which sum_errors divides the rows.
BLOCK = 256
PARTS = 64
# For persistent.cu: the threads of a block, and the outputs of the first layer that a block owns.
PERSISTENT_THREADS = 512
OUTPUTS_PER_BLOCK = 4


class GatherArguments(NamedTuple):
    """The arguments of `gather`."""

    source: Any
    source_type: int
    order: Any
    position: Any
    rows: int
    width: int
    relu: bool
    out: Any


class LossesArguments(NamedTuple):
    """The arguments of `losses`. factor has the dtype of the outputs."""

    outputs: Any
    targets: Any
    target_type: int
    is_labels: bool
    order: Any
    position: Any
    rows: int
    width: int
    loss: int
    relu: bool
    factor: np.floating[Any]
    train: bool
    row_losses: Any


class MetricsArguments(NamedTuple):
    """The arguments of `count_classes` and of `sum_errors`."""

    outputs: Any
    targets: Any
    target_type: int
    is_labels: bool
    order: Any
    position: Any
    rows: int
    width: int
    sums: Any


class PersistentArguments(NamedTuple):
    """The arguments of `persistent_steps`. rate has the dtype of the weights."""

    weights: Any
    layers: Any
    layer_count: int
    inputs: Any
    input_type: int
    relu_input: bool
    targets: Any
    target_type: int
    is_labels: bool
    order: Any
    row_count: np.int64
    batch: int
    loss: int
    gradient_factor: np.float64
    loss_share: np.float64
    rate: np.floating[Any]
    exchange_outputs: Any
    exchange_gradients: Any
    exchange_losses: Any
    arrivals: Any
    loss_sum: Any


def step_source(dtype: str) -> str:
    """Return the CUDA C++ of STEP_KERNELS for arithmetic in "float32" or "float64"."""
    return _definitions(dtype, BLOCK=BLOCK, PARTS=PARTS) + _text("rows.cu") + _text("kernels.cu")


def persistent_source(dtype: str) -> str:
    """Return the CUDA C++ of PERSISTENT_KERNEL for arithmetic in "float32" or "float64"."""
    definitions = _definitions(dtype, THREADS=PERSISTENT_THREADS, OUTPUTS_PER_BLOCK=OUTPUTS_PER_BLOCK)
    return definitions + _text("rows.cu") + _text("persistent.cu")


def _definitions(dtype: str, **numbers: int) -> str:
    types = " ".join(f"CASE({code}, {c_type})" for code, c_type in enumerate(SOURCE_TYPES.values()))
    definitions = {
        "REAL": SOURCE_TYPES[dtype],
        "INDEX": SOURCE_TYPES["int64"],
        "FOR_EACH_SOURCE_TYPE(CASE)": types,
        "LOGITS": LOGITS,
        "PROBABILITIES": PROBABILITIES,
        "SQUARED_ERROR": SQUARED_ERROR,
        **numbers,
    }
    return "".join(f"#define {name} {value}\n" for name, value in definitions.items())


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text()
