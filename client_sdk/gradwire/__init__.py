"""gradwire: build a small network from the chapter's classes, and have it trained here or by a server.

import gradwire as gw
history = gw.fit(model, (X, y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model, lr=0.1), at="localhost:50051")
"""

from importlib.metadata import version

from gradwire._client import AsyncClient, Client
from gradwire._exceptions import (
    AlreadyExistsError,
    DataLossError,
    FailedPreconditionError,
    FieldViolation,
    GradwireError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
    ServiceFailureError,
    UnauthenticatedError,
    UnavailableError,
)
from gradwire._fit import fit
from gradwire._history import History
from gradwire._info import JobEvent, JobInfo, ModelInfo, Plan
from gradwire._job import AsyncJob, Job
from gradwire._local_server import LocalServer
from gradwire._model_files import load_model, save
from gradwire_engine import (
    MSE,
    SGD,
    CrossEntropy,
    Linear,
    Module,
    Parameter,
    ReLU,
    Sequential,
    TraceError,
    accuracy,
    seed,
)
from gradwire_engine.metrics import Metrics
from gradwire_engine.training import Epoch

__version__ = version("gradwire")

__all__ = [
    "MSE",
    "SGD",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "CrossEntropy",
    "DataLossError",
    "Epoch",
    "FailedPreconditionError",
    "FieldViolation",
    "GradwireError",
    "History",
    "InvalidArgumentError",
    "Job",
    "JobCancelledError",
    "JobEvent",
    "JobFailedError",
    "JobInfo",
    "Linear",
    "LocalServer",
    "Metrics",
    "ModelInfo",
    "Module",
    "NotFoundError",
    "OutOfRangeError",
    "Parameter",
    "Plan",
    "ReLU",
    "ResourceExhaustedError",
    "Sequential",
    "ServiceFailureError",
    "TraceError",
    "UnauthenticatedError",
    "UnavailableError",
    "__version__",
    "accuracy",
    "fit",
    "load_model",
    "save",
    "seed",
]
