"""The Literal types of the public API, and the type of a data set."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from numpy.typing import ArrayLike

DType = Literal["float32", "float64"]
Device = Literal["auto", "cpu", "gpu"]
ModelFormat = Literal["safetensors", "npz", "onnx"]
# UNKNOWN and unknown represent values from a newer server that this version of the SDK does not know.
JobState = Literal["QUEUED", "STARTING", "RUNNING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED", "UNKNOWN"]
StopReason = Literal["ALL_EPOCHS", "EARLY_STOPPING", "TIME_LIMIT", "REQUESTED", "UNKNOWN"]
EventKind = Literal["state_change", "epoch", "checkpoint", "warning", "unknown"]

# Inputs and targets with the same number of rows: arrays, nested lists, pandas objects or torch CPU tensors.
Dataset: TypeAlias = tuple[ArrayLike, ArrayLike]

# A function that is called with the number of bytes that have been sent or received, and the total number.
TransferProgress: TypeAlias = Callable[[int, int], None]
