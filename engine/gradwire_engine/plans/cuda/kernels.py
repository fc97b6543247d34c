"""The CUDA C++ source of the kernels, and named tuples for their arguments.

The fields of the named tuples have the same names and order as the parameters in the .cu files. The types must match
too: `Device.launch` passes integers and booleans as int, and all other values unchanged.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradwire_engine.plans.codes import LOGITS, PROBABILITIES, SOURCE_TYPES, SQUARED_ERROR

STEP_KERNELS = ("gather", "add_bias", "mask", "losses", "end_step", "count_classes", "sum_errors")
PERSISTENT_KERNEL = "persistent_steps"

# For kernels.cu: the number of threads in a block, and the number of parts into which sum_errors divides the rows.
BLOCK = 256
PARTS = 64
# For persistent.cu: the number of threads in a block, and the number of first-layer outputs that a block computes.
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
    """The arguments of `losses`. The dtype of `factor` must match the outputs."""

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
    """The arguments of `count_classes` and `sum_errors`."""

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
    """The arguments of `persistent_steps`. The dtype of `rate` must match the weights."""

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
    """Return the CUDA C++ source of STEP_KERNELS. The dtype for arithmetic is "float32" or "float64"."""
    return _definitions(dtype, BLOCK=BLOCK, PARTS=PARTS) + _text("rows.cu") + _text("kernels.cu")


def persistent_source(dtype: str) -> str:
    """Return the CUDA C++ source of PERSISTENT_KERNEL. The dtype for arithmetic is "float32" or "float64"."""
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
