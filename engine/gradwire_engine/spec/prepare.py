"""Turns a resolved spec and its arrays into a runnable job: plan, starting weights, configuration and examples."""

from dataclasses import dataclass

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.examples import Examples
from gradwire_engine.losses import MSE, CrossEntropy, Loss
from gradwire_engine.plans import ChosenPlan, Problem, choose_plan
from gradwire_engine.randomness import Init, Purpose, draw_weights, job_generator
from gradwire_engine.spec.resolve import linear_layers, network
from gradwire_engine.spec.tensors import numpy_dtype
from gradwire_engine.training import TrainingConfig
from gradwire_proto.v1.spec_pb2 import Device, Initialization, JobSpec
from gradwire_proto.v1.spec_pb2 import Loss as LossMessage

_INITS: dict[Initialization, Init] = {
    Initialization.INITIALIZATION_KAIMING: "kaiming",
    Initialization.INITIALIZATION_SIMPLE: "simple",
}
_DEVICE_NAMES = {
    Device.DEVICE_AUTO: "auto",
    Device.DEVICE_CPU: "cpu",
    Device.DEVICE_GPU: "gpu",
}


@dataclass(frozen=True)
class JobData:
    """The arrays of a job. They can be memory-mapped files.

    Attributes:
        train: The inputs and targets of the training set; see Dataset in spec.proto.
        test: The inputs and targets of the test set, if there is one.
        given_weights: The vector from JobSpec.initial_weights, if it is set.
    """

    train: tuple[Array, Array]
    test: tuple[Array, Array] | None
    given_weights: Array | None


@dataclass(frozen=True)
class PreparedJob:
    """The arguments for `training.train`. The plan is in `chosen`."""

    chosen: ChosenPlan
    config: TrainingConfig
    train_set: Examples
    test_set: Examples | None


def prepare(spec: JobSpec, data: JobData, classification: bool, weights: Array | None = None) -> PreparedJob:
    """Prepare a job to run on this machine.

    Args:
        spec: A valid, resolved spec.
        data: The arrays of the job.
        classification: Whether epochs report classification metrics; see `validation.is_classification`.
        weights: The flat vector of a checkpoint to continue from. If it is None, the job starts from the beginning.

    Raises:
        NoGpuError: The spec requires a GPU, but this process has no working GPU.
    """
    if weights is None:
        weights = starting_weights(spec, data.given_weights)
    problem = Problem(network(spec.model), loss_of(spec.loss), numpy_dtype(spec.dtype))
    return PreparedJob(
        chosen=choose_plan(problem, weights, _DEVICE_NAMES[spec.device]),
        config=config_of(spec),
        train_set=Examples.of(*data.train, classification),
        test_set=Examples.of(*data.test, classification) if data.test else None,
    )


def starting_weights(spec: JobSpec, given: Array | None) -> Array:
    """Return the flat vector of initial weights for a resolved spec.

    Layers with INITIALIZATION_GIVEN take their weights from `given`, in layer order. The weights of all other layers
    are drawn with the job's seed.
    """
    dtype = numpy_dtype(spec.dtype)
    net = network(spec.model)
    vector = np.zeros(net.size, dtype)
    taken = 0
    for index, (layer, dense) in enumerate(zip(linear_layers(spec.model), net.layers, strict=True)):
        if layer.linear.initialization == Initialization.INITIALIZATION_GIVEN:
            assert given is not None, "validation has ensured that weights are given"
            vector[dense.offset : dense.offset + dense.size] = given[taken : taken + dense.size]
            taken += dense.size
        else:
            generator = job_generator(spec.seed, Purpose.WEIGHTS, index)
            init = _INITS[layer.linear.initialization]
            W, _ = dense.weights(vector)
            W[...] = draw_weights(generator, dense.in_features, dense.out_features, init, dtype)
    return vector


def config_of(spec: JobSpec) -> TrainingConfig:
    """Return the training configuration of a resolved spec."""
    return TrainingConfig(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        learning_rate=spec.optimizer.sgd.learning_rate,
        shuffle=spec.shuffle,
        seed=spec.seed,
        evaluate_every=spec.evaluate_every,
    )


def loss_message(loss: Loss) -> LossMessage:
    """Convert a loss to a message."""
    message = LossMessage()
    if isinstance(loss, CrossEntropy):
        message.cross_entropy.from_probabilities = not loss.from_logits
    else:
        message.mean_squared_error.SetInParent()
    return message


def loss_of(message: LossMessage) -> Loss:
    """Convert a message to a loss."""
    if message.HasField("cross_entropy"):
        return CrossEntropy(from_logits=not message.cross_entropy.from_probabilities)
    return MSE()
