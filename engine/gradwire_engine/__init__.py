"""The textbook classes, and the plans that train them efficiently. This package doesn't depend on gRPC or Ray."""

from gradwire_engine.layers import Linear, ReLU
from gradwire_engine.losses import MSE, CrossEntropy
from gradwire_engine.metrics import accuracy
from gradwire_engine.module import Module, Parameter, Sequential
from gradwire_engine.optim import SGD
from gradwire_engine.randomness import seed
from gradwire_engine.symbol import TraceError

__all__ = [
    "MSE",
    "SGD",
    "CrossEntropy",
    "Linear",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "TraceError",
    "accuracy",
    "seed",
]
