"""Reads valid specs: fills in defaults and widths, lists the referenced tensors, and converts the layers."""

from gradwire_engine.network import Network
from gradwire_engine.spec.stopping import default_monitor
from gradwire_engine.spec.tensors import numpy_dtype
from gradwire_proto.v1.spec_pb2 import Device, Initialization, JobSpec, Layer, ModelSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef

# The maximum number of items that `architecture` shows.
_MAX_WIDTHS = 12


def resolve(spec: JobSpec) -> JobSpec:
    """Return a copy of a valid spec with all defaults filled in, such as layer names, widths, dtype and device."""
    resolved = JobSpec()
    resolved.CopyFrom(spec)
    for position, layer in enumerate(resolved.model.layers):
        layer.name = layer.name or str(position)
    width = spec.train.inputs.shape[1]
    for layer in linear_layers(resolved.model):
        layer.linear.in_features = width
        layer.linear.initialization = layer.linear.initialization or Initialization.INITIALIZATION_KAIMING
        width = layer.linear.out_features
    resolved.dtype = spec.dtype or DataType.DATA_TYPE_FLOAT32
    resolved.device = spec.device or Device.DEVICE_AUTO
    resolved.evaluate_every = spec.evaluate_every or 1
    if spec.HasField("early_stopping"):
        resolved.early_stopping.monitor = spec.early_stopping.monitor or default_monitor(spec)
    return resolved


def linear_layers(spec: ModelSpec) -> list[Layer]:
    """Return the Linear layers of a model in order. The returned messages are those in `spec`, not copies."""
    return [layer for layer in spec.layers if layer.HasField("linear")]


def architecture(spec: ModelSpec) -> str:
    """Return the widths of a resolved model as text, for example "784-128-32-10". Long text is shortened."""
    linears = [layer.linear for layer in linear_layers(spec)]
    widths = [str(linears[0].in_features), *(str(linear.out_features) for linear in linears)]
    if len(widths) > _MAX_WIDTHS:
        widths = [*widths[: _MAX_WIDTHS - 2], "...", widths[-1]]
    return "-".join(widths)


def network(spec: ModelSpec) -> Network:
    """Convert a resolved model spec to a network."""
    return Network.from_stack(
        [
            (layer.linear.in_features, layer.linear.out_features) if layer.HasField("linear") else None
            for layer in spec.layers
        ]
    )


def weights_bytes(spec: JobSpec) -> int:
    """Return the size of the weights of a resolved spec, in bytes."""
    return network(spec.model).size * numpy_dtype(spec.dtype).itemsize


def references(spec: JobSpec) -> dict[str, TensorRef]:
    """Return the tensors that a spec refers to, keyed by field path, for example "train.inputs"."""
    found = {"train.inputs": spec.train.inputs, "train.targets": spec.train.targets}
    if spec.HasField("test"):
        found |= {"test.inputs": spec.test.inputs, "test.targets": spec.test.targets}
    if spec.HasField("initial_weights"):
        found["initial_weights"] = spec.initial_weights
    return found
