"""Defines small networks with PyTorch-like classes and trains them in this process or on a server.

Example:
    import gradwire as gw

    model = gw.Sequential(gw.Linear(64, 32), gw.ReLU(), gw.Linear(32, 10))
    history = gw.fit(model, (X, y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model, lr=0.1), at="localhost:50051")
    print(history.epochs[-1].train.accuracy)
"""

import os

# gRPC reads this variable when it is loaded. Without it, gRPC logs every failed TLS handshake, which the SDK's errors
# already report.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from gradwire import callbacks
from gradwire._client import AsyncClient, Client
from gradwire._confusion_matrix import ConfusionMatrix
from gradwire._exceptions import (
    AlreadyExistsError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    FileError,
    GradwireError,
    InternalError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
    TraceError,
    UnauthenticatedError,
    UnavailableError,
)
from gradwire._fit import fit
from gradwire._history import History, plot
from gradwire._info import JobEvent, JobInfo, ModelInfo, Plan, StoredTensorInfo, TensorInfo
from gradwire._job import AsyncJob, Job
from gradwire._local_server import LocalServer
from gradwire._model_files import load_model, save
from gradwire._options import TrainingOptions
from gradwire._show import watch
from gradwire._stopping import EarlyStopping
from gradwire._types import Dataset, Device, DType, EventKind, JobState, ModelFormat, StopReason
from gradwire._workers import QueuedJob, WorkerInfo, WorkersInfo
from gradwire_engine import (
    MSE,
    SGD,
    CrossEntropy,
    Linear,
    Module,
    Parameter,
    ReLU,
    Sequential,
    accuracy,
    seed,
)
from gradwire_engine.classification import ClassificationReport, ClassReport, classification_report, confusion_matrix
from gradwire_engine.metrics import Metrics
from gradwire_engine.training import Epoch

__all__ = [
    "MSE",
    "SGD",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncJob",
    "ClassReport",
    "ClassificationReport",
    "Client",
    "ConfusionMatrix",
    "CrossEntropy",
    "DType",
    "DataLossError",
    "Dataset",
    "DeadlineExceededError",
    "Device",
    "EarlyStopping",
    "Epoch",
    "EventKind",
    "FailedPreconditionError",
    "FieldViolation",
    "FileError",
    "GradwireError",
    "History",
    "InternalError",
    "InvalidArgumentError",
    "Job",
    "JobCancelledError",
    "JobEvent",
    "JobFailedError",
    "JobInfo",
    "JobState",
    "Linear",
    "LocalServer",
    "Metrics",
    "ModelFormat",
    "ModelInfo",
    "Module",
    "NotFoundError",
    "OutOfRangeError",
    "Parameter",
    "Plan",
    "QueuedJob",
    "ReLU",
    "ResourceExhaustedError",
    "Sequential",
    "StopReason",
    "StoredTensorInfo",
    "TensorInfo",
    "TraceError",
    "TrainingOptions",
    "UnauthenticatedError",
    "UnavailableError",
    "WorkerInfo",
    "WorkersInfo",
    "__version__",
    "accuracy",
    "callbacks",
    "classification_report",
    "confusion_matrix",
    "fit",
    "load_model",
    "plot",
    "save",
    "seed",
    "watch",
]


def __getattr__(name: str) -> str:
    """Read the version on first use, because importlib.metadata takes longer to import than the rest of the SDK."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("gradwire")
    raise AttributeError(f"module 'gradwire' has no attribute {name!r}")
