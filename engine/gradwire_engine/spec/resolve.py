"""A checked spec as things that run: the network, the loss, the starting weights, the plan, and a Module to keep."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.examples import Examples
from gradwire_engine.layers import Linear, ReLU
from gradwire_engine.losses import MSE, CrossEntropy, Loss
from gradwire_engine.module import Module, Sequential
from gradwire_engine.network import Network
from gradwire_engine.plans import ChosenPlan, Problem, choose_plan
from gradwire_engine.randomness import Purpose, draw_weights, job_generator
from gradwire_engine.spec.tensors import numpy_dtype
from gradwire_engine.training import TrainingConfig
from gradwire_proto.v1.spec_pb2 import Device, Initialization, JobSpec, Layer, ModelSpec
from gradwire_proto.v1.spec_pb2 import Linear as LinearMessage
from gradwire_proto.v1.spec_pb2 import Loss as LossMessage
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef

_INIT_NAMES = {
    Initialization.INITIALIZATION_UNSPECIFIED: "kaiming",
    Initialization.INITIALIZATION_KAIMING: "kaiming",
    Initialization.INITIALIZATION_SIMPLE: "simple",
}
_DEVICE_NAMES = {
    Device.DEVICE_UNSPECIFIED: "auto",
    Device.DEVICE_AUTO: "auto",
    Device.DEVICE_CPU: "cpu",
    Device.DEVICE_GPU: "gpu",
}


def resolve(spec: JobSpec) -> JobSpec:
    """Return a copy of a valid spec with nothing left open: names, widths, dtype, device, evaluate_every."""
    resolved = JobSpec()
    resolved.CopyFrom(spec)
    width = spec.train.inputs.shape[1]
    for position, layer in enumerate(resolved.model.layers):
        layer.name = layer.name or str(position)
        if layer.WhichOneof("kind") == "linear":
            layer.linear.in_features = width
            width = layer.linear.out_features
            layer.linear.initialization = layer.linear.initialization or Initialization.INITIALIZATION_KAIMING
    resolved.dtype = spec.dtype or DataType.DATA_TYPE_FLOAT32
    resolved.device = spec.device or Device.DEVICE_AUTO
    resolved.evaluate_every = spec.evaluate_every or 1
    return resolved


def references(spec: JobSpec) -> dict[str, TensorRef]:
    """Return the tensors that a job names, by the path of their field in the spec."""
    found = {"train.inputs": spec.train.inputs, "train.targets": spec.train.targets}
    if spec.HasField("test"):
        found |= {"test.inputs": spec.test.inputs, "test.targets": spec.test.targets}
    if spec.HasField("initial_weights"):
        found["initial_weights"] = spec.initial_weights
    return found


def network(spec: ModelSpec) -> Network:
    """Return the network of a resolved model spec."""
    return Network.from_stack(
        [
            (layer.linear.in_features, layer.linear.out_features) if layer.WhichOneof("kind") == "linear" else None
            for layer in spec.layers
        ]
    )


def loss_message(loss: Loss) -> LossMessage:
    """Put a loss into a message."""
    message = LossMessage()
    if isinstance(loss, CrossEntropy):
        message.cross_entropy.from_probabilities = not loss.from_logits
    else:
        message.mean_squared_error.SetInParent()
    return message


def loss_of(message: LossMessage) -> Loss:
    """Take the loss out of a message."""
    if message.WhichOneof("kind") == "cross_entropy":
        return CrossEntropy(from_logits=not message.cross_entropy.from_probabilities)
    return MSE()


def config_of(spec: JobSpec) -> TrainingConfig:
    """Return how a resolved spec wants to be trained."""
    return TrainingConfig(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        learning_rate=spec.optimizer.sgd.learning_rate,
        shuffle=spec.shuffle,
        seed=spec.seed,
        evaluate_every=spec.evaluate_every,
    )


def starting_weights(spec: JobSpec, given: Array | None) -> Array:
    """Return the flat vector with which a resolved job starts: given weights where there are some, else drawn ones."""
    dtype = numpy_dtype(spec.dtype)
    net = network(spec.model)
    linears = [layer.linear for layer in spec.model.layers if layer.WhichOneof("kind") == "linear"]
    vector = np.zeros(net.size, dtype)
    taken = 0
    for index, (message, place) in enumerate(zip(linears, net.layers, strict=True)):
        if message.initialization == Initialization.INITIALIZATION_GIVEN:
            assert given is not None, "validation has ensured that weights are given"
            vector[place.offset : place.offset + place.size] = given[taken : taken + place.size]
            taken += place.size
        else:
            generator = job_generator(spec.seed, Purpose.WEIGHTS, index)
            init = _INIT_NAMES[message.initialization]
            W, _ = place.weights(vector)
            W[...] = draw_weights(generator, place.in_features, place.out_features, init, dtype)
    return vector


@dataclass(frozen=True)
class JobData:
    """The arrays of a job, possibly mapped files: (inputs, targets) of each set, and the given weights."""

    train: tuple[Array, Array]
    test: tuple[Array, Array] | None
    given_weights: Array | None


@dataclass(frozen=True)
class PreparedJob:
    """A job that can be handed to `training.train`."""

    chosen: ChosenPlan
    config: TrainingConfig
    train_set: Examples
    test_set: Examples | None


def prepare(spec: JobSpec, data: JobData, classification: bool, weights: Array | None = None) -> PreparedJob:
    """Make a resolved, checked spec ready to run, from its start or from the weights of a checkpoint."""
    if weights is None:
        weights = starting_weights(spec, data.given_weights)
    problem = Problem(network(spec.model), loss_of(spec.loss), numpy_dtype(spec.dtype))
    return PreparedJob(
        chosen=choose_plan(problem, weights, _DEVICE_NAMES[spec.device]),
        config=config_of(spec),
        train_set=Examples.of(*data.train, classification),
        test_set=Examples.of(*data.test, classification) if data.test else None,
    )


def build(spec: ModelSpec, weights: Array) -> Module:
    """Return a Module with the layers, names and weights of a resolved model."""
    net = network(spec)
    places = iter(net.layers)
    modules: dict[str, Module] = {}
    for layer in spec.layers:
        if layer.WhichOneof("kind") == "linear":
            linear = Linear(layer.linear.out_features, dtype=weights.dtype)
            W, b = next(places).weights(weights)
            linear.set_weights(W.copy(), b.copy())
            modules[layer.name] = linear
        else:
            modules[layer.name] = ReLU()
    return Sequential(**modules)


def stack_of_widths(widths: list[int]) -> ModelSpec:
    """Return the model of the command line: Linear layers between the widths, a ReLU after each but the last."""
    layers: list[Layer] = []
    for index, (in_features, out_features) in enumerate(pairwise(widths), start=1):
        layers.append(
            Layer(name=f"fc{index}", linear=LinearMessage(in_features=in_features, out_features=out_features))
        )
        if index < len(widths) - 1:
            layers.append(Layer(name=f"relu{index}", relu={}))
    return ModelSpec(layers=layers)
