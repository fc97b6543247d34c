"""The validation rules for a JobSpec and its data, which the server and at="local" share.

The functions return violations instead of raising them. `check_spec` needs only the message. `check_data` also needs
summaries of the tensors. Call it only for a spec that passes `check_spec`.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gradwire_engine.spec.resolve import linear_layers
from gradwire_engine.spec.stopping import default_monitor, monitors
from gradwire_engine.spec.summary import TensorSummary
from gradwire_engine.spec.tensors import TensorError, TensorType, numpy_dtype, tensor_type
from gradwire_engine.stopping import MAX_SECONDS
from gradwire_proto.v1.spec_pb2 import Dataset, Device, Initialization, JobSpec, Layer, ModelSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef

MAX_LAYERS = 1000
MAX_FEATURES = 1_000_000
MAX_PARAMETERS = 1_000_000_000
MAX_CLASS_NAME_LENGTH = 128

Summarize = Callable[[TensorRef], TensorSummary]


@dataclass(frozen=True)
class Violation:
    """A violation of a validation rule.

    Attributes:
        field: The path of the field in the spec, for example "model.layers[0].linear.in_features".
        description: The problem with the field, and how to fix it.
    """

    field: str
    description: str


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with a noun, for example "1 row", "2 rows" or, with `plural`, "2 classes"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def check_spec(spec: JobSpec) -> list[Violation]:
    """Check the model, the numbers and the tensor shapes, and return the violations."""
    found = [*_check_model(spec.model, spec.train.inputs.shape), *_check_numbers(spec)]
    if not spec.HasField("train"):
        return [*found, Violation("train", "is missing: set the inputs and targets to train on")]
    sets = [("train", spec.train), *([("test", spec.test)] if spec.HasField("test") else [])]
    malformed = [violation for name, dataset in sets for violation in _check_dataset(name, dataset)]
    found += malformed
    if not malformed:
        found += _check_widths(spec)
    return [*found, *_check_initial_weights(spec)]


def is_classification(spec: JobSpec, summarize: Summarize) -> bool:
    """Return whether the job reports classification metrics instead of regression metrics.

    It does if the loss is cross-entropy, or if the targets are class indices or one-hot rows. The spec must be valid.
    """
    targets = spec.train.targets
    return (
        spec.loss.HasField("cross_entropy")
        or _is_class_indices(targets, linear_layers(spec.model)[-1].linear.out_features)
        or (len(targets.shape) == 2 and targets.shape[1] > 1 and summarize(targets).one_hot)
    )


def check_data(spec: JobSpec, summarize: Summarize) -> list[Violation]:
    """Check the elements of the tensors, and return the violations. The spec must pass `check_spec`."""
    outputs = linear_layers(spec.model)[-1].linear.out_features
    found: list[Violation] = []
    for name, dataset in (("train", spec.train), ("test", spec.test)):
        if not spec.HasField(name):
            continue
        found += _check_finite(f"{name}.inputs", dataset.inputs, summarize)
        bad_targets = _check_finite(f"{name}.targets", dataset.targets, summarize)
        found += bad_targets or _check_target_values(f"{name}.targets", dataset.targets, spec, outputs, summarize)
    if spec.HasField("initial_weights"):
        found += _check_finite("initial_weights", spec.initial_weights, summarize)
    return found or [*_check_monitor(spec, summarize)]


def _check_model(model: ModelSpec, inputs_shape: Sequence[int]) -> Iterator[Violation]:
    if len(model.layers) > MAX_LAYERS:
        yield Violation("model.layers", f"has {len(model.layers)} layers: use at most {MAX_LAYERS}")
        return
    if not linear_layers(model):
        yield Violation("model.layers", "has no Linear layer, so there is nothing to train: add one")
        return
    names: dict[str, int] = {}
    width = 0
    features = inputs_shape[-1] if len(inputs_shape) == 2 else 0
    parameters = 0
    for position, layer in enumerate(model.layers):
        path = f"model.layers[{position}]"
        name = layer.name or str(position)
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", name):
            yield Violation(f"{path}.name", f"must be 1 to 128 letters, digits, '_', '-' or '.', got {name[:160]!r}")
        if name in names:
            yield Violation(f"{path}.name", f"{name!r} is already the name of layer {names[name]}: choose another")
        names[name] = position
        if layer.WhichOneof("kind") is None:
            yield Violation(path, "must be linear or relu: this service supports no other kind of layer")
        if layer.HasField("linear"):
            yield from _check_linear(f"{path}.linear", layer, width)
            parameters += ((layer.linear.in_features or width or features) + 1) * layer.linear.out_features
            width = layer.linear.out_features
    if parameters > MAX_PARAMETERS:
        yield Violation("model.layers", f"has {parameters} parameters in total: use at most {MAX_PARAMETERS}")
    yield from _check_class_names(model.class_names, outputs=width)


def _check_class_names(names: Sequence[str], outputs: int) -> Iterator[Violation]:
    field = "model.class_names"
    if names and len(names) != outputs:
        description = f"has {counted(len(names), 'name')}, but the model has {counted(outputs, 'output')}"
        yield Violation(field, f"{description}: make them the same")
        return
    seen: set[str] = set()
    for name in names:
        if not 1 <= len(name) <= MAX_CLASS_NAME_LENGTH:
            description = f"must have names of 1 to {MAX_CLASS_NAME_LENGTH} characters, got {name[:160]!r}"
            yield Violation(field, description)
            return
        if name in seen:
            yield Violation(field, f"has {name!r} more than once: use each name once")
            return
        seen.add(name)


def _check_linear(path: str, layer: Layer, width: int) -> Iterator[Violation]:
    linear = layer.linear
    if not 1 <= linear.out_features <= MAX_FEATURES:
        yield Violation(f"{path}.out_features", f"must be 1 to {MAX_FEATURES}, got {linear.out_features}")
    if not 0 <= linear.in_features <= MAX_FEATURES:
        yield Violation(
            f"{path}.in_features", f"must be 1 to {MAX_FEATURES}, or 0 to infer it, got {linear.in_features}"
        )
    elif width and linear.in_features not in (0, width):
        yield Violation(
            f"{path}.in_features",
            f"is {linear.in_features}, but the previous Linear has out_features={width}: make them the same",
        )
    if linear.initialization not in Initialization.values():
        yield Violation(f"{path}.initialization", f"must be a known Initialization, got {linear.initialization}")


def _check_numbers(spec: JobSpec) -> Iterator[Violation]:
    if spec.loss.WhichOneof("kind") is None:
        yield Violation("loss", "must be mean_squared_error or cross_entropy")
    if spec.optimizer.WhichOneof("kind") != "sgd":
        yield Violation("optimizer", "must be sgd")
    else:
        rate = spec.optimizer.sgd.learning_rate
        if not (math.isfinite(rate) and rate > 0):
            yield Violation("optimizer.sgd.learning_rate", f"must be finite and greater than 0, got {rate}")
    for field in ("epochs", "batch_size"):
        if getattr(spec, field) < 1:
            yield Violation(field, f"must be at least 1, got {getattr(spec, field)}")
    if spec.evaluate_every < 0:
        yield Violation("evaluate_every", f"must be at least 1, or 0 for the default of 1, got {spec.evaluate_every}")
    if spec.dtype not in (DataType.DATA_TYPE_UNSPECIFIED, DataType.DATA_TYPE_FLOAT32, DataType.DATA_TYPE_FLOAT64):
        yield Violation("dtype", "must be DATA_TYPE_FLOAT32 or DATA_TYPE_FLOAT64, the types that models are trained in")
    if spec.device not in Device.values():
        yield Violation("device", f"must be a known Device, got {spec.device}")
    yield from _check_stopping(spec)


def _check_stopping(spec: JobSpec) -> Iterator[Violation]:
    stopping = spec.early_stopping
    if spec.HasField("early_stopping"):
        if not 1 <= stopping.patience <= max(1, spec.epochs):
            description = f"must be at least 1 and at most epochs, which is {spec.epochs}, got {stopping.patience}"
            yield Violation("early_stopping.patience", description)
        if not 0 <= stopping.min_delta < math.inf:
            yield Violation("early_stopping.min_delta", f"must be finite and at least 0, got {stopping.min_delta}")
    if spec.HasField("max_seconds") and not 0 < spec.max_seconds <= MAX_SECONDS:
        description = f"must be greater than 0 and at most {MAX_SECONDS:.0e} seconds, got {spec.max_seconds}"
        yield Violation("max_seconds", description)
    if spec.keep.every < 0:
        yield Violation("keep.every", f"must be at least 1, or 0 to keep no such epochs, got {spec.keep.every}")


def _check_monitor(spec: JobSpec, summarize: Summarize) -> Iterator[Violation]:
    if not spec.HasField("early_stopping"):
        return
    monitor = spec.early_stopping.monitor or default_monitor(spec)
    existing = monitors(spec, is_classification(spec, summarize))
    if monitor not in existing:
        advice = "" if spec.HasField("test") or not monitor.startswith("test.") else " There is no test set."
        description = f"is {monitor[:80]!r}, which this job does not have.{advice} It has {', '.join(existing)}"
        yield Violation("early_stopping.monitor", description)


def _check_dataset(name: str, dataset: Dataset) -> list[Violation]:
    found: list[Violation] = []
    for field, dimensions, expected in (
        ("inputs", (2,), "(rows, features); reshape images with x.reshape(len(x), -1)"),
        ("targets", (1, 2), "(rows,) or (rows, outputs)"),
    ):
        reference = getattr(dataset, field)
        if not dataset.HasField(field):
            found.append(Violation(f"{name}.{field}", "is missing"))
            continue
        try:
            tensor_type(reference)
        except TensorError as error:
            found.append(Violation(f"{name}.{field}", str(error)))
            continue
        if len(reference.shape) not in dimensions:
            found.append(Violation(f"{name}.{field}", f"must have shape {expected}; got {_shape(reference)}"))
    rows = dataset.inputs.shape[:1], dataset.targets.shape[:1]
    if not found and rows[0] != rows[1]:
        found.append(
            Violation(
                f"{name}.targets",
                f"has {counted(rows[1][0], 'row')}, but {name}.inputs has {rows[0][0]}: make them the same",
            )
        )
    return found


def _check_widths(spec: JobSpec) -> Iterator[Violation]:
    """Compare the data sets with the model and with each other."""
    linears = linear_layers(spec.model)
    if not linears:
        return
    features = spec.train.inputs.shape[1]
    if features > MAX_FEATURES:
        yield Violation("train.inputs", f"has {features} features: use at most {MAX_FEATURES}")
    first, last = linears[0].linear, linears[-1].linear
    if first.in_features not in (0, features):
        position = list(spec.model.layers).index(linears[0])
        yield Violation(
            f"model.layers[{position}].linear.in_features",
            f"is {first.in_features}, but train.inputs has {counted(features, 'feature')}: make them the same",
        )
    if spec.HasField("test") and spec.test.inputs.shape[1] != features:
        yield Violation(
            "test.inputs",
            f"has {counted(spec.test.inputs.shape[1], 'feature')}, but train.inputs has {features}: make them the same",
        )
    yield from _check_target_shape("train.targets", spec.train.targets, spec, last.out_features)
    if spec.HasField("test"):
        yield from _check_target_shape("test.targets", spec.test.targets, spec, last.out_features)
        if len({_is_class_indices(each.targets, last.out_features) for each in (spec.train, spec.test)}) > 1:
            yield Violation("test.targets", "must be of the same kind as train.targets: both class indices, or neither")


def _is_class_indices(targets: TensorRef, outputs: int) -> bool:
    """Return whether targets are class indices. If there is only one output, integers are regression targets."""
    return outputs > 1 and len(targets.shape) == 1 and np.issubdtype(numpy_dtype(targets.dtype), np.integer)


def _check_target_shape(field: str, targets: TensorRef, spec: JobSpec, outputs: int) -> Iterator[Violation]:
    cross_entropy = spec.loss.HasField("cross_entropy")
    if cross_entropy and outputs < 2:
        yield Violation(
            "loss.cross_entropy", f"needs a model with at least 2 outputs, one for each class; this one has {outputs}"
        )
    elif len(targets.shape) == 2 and targets.shape[1] != outputs:
        columns = f"has {counted(targets.shape[1], 'column')}, but the model has {counted(outputs, 'output')}"
        yield Violation(field, f"{columns}: make them the same")
    elif len(targets.shape) == 1 and not _is_class_indices(targets, outputs):
        if cross_entropy:
            yield Violation(field, "must be integers (class indices) or one-hot rows for cross-entropy, got 1-D floats")
        elif outputs != 1:
            yield Violation(field, f"is 1-D floats, which need a model with one output; this one has {outputs}")


def _check_initial_weights(spec: JobSpec) -> Iterator[Violation]:
    given = [
        layer
        for layer in linear_layers(spec.model)
        if layer.linear.initialization == Initialization.INITIALIZATION_GIVEN
    ]
    if not given:
        if spec.HasField("initial_weights"):
            yield Violation(
                "initial_weights",
                "is set, but no layer has INITIALIZATION_GIVEN: clear it, or mark the layers that it is for",
            )
        return
    if not spec.HasField("initial_weights"):
        yield Violation(
            "initial_weights",
            "is missing, but there are layers with INITIALIZATION_GIVEN: set it, or draw their weights",
        )
        return
    if any(layer.linear.in_features == 0 for layer in given):
        yield Violation(
            "model.layers", "has a Linear with INITIALIZATION_GIVEN but without in_features: set in_features"
        )
    size = sum((layer.linear.in_features + 1) * layer.linear.out_features for layer in given)
    if spec.dtype not in DataType.values():
        return  # _check_numbers reports an unknown dtype.
    expected = TensorType(numpy_dtype(spec.dtype or DataType.DATA_TYPE_FLOAT32), (size,))
    try:
        actual = tensor_type(spec.initial_weights)
    except TensorError as error:
        yield Violation("initial_weights", str(error))
        return
    if actual != expected:
        yield Violation(
            "initial_weights",
            f"must have dtype {expected.dtype} and shape [{size}], to fit the job's dtype and the layers with "
            f"INITIALIZATION_GIVEN; got {actual.dtype} and {list(actual.shape)}",
        )


def _check_finite(field: str, reference: TensorRef, summarize: Summarize) -> list[Violation]:
    row = summarize(reference).first_bad_row
    if row < 0:
        return []
    return [Violation(field, f"must be finite, but row {row} contains a NaN or an infinity: clean the data")]


def _check_target_values(
    field: str, targets: TensorRef, spec: JobSpec, outputs: int, summarize: Summarize
) -> Iterator[Violation]:
    summary = summarize(targets)
    cross_entropy = spec.loss.HasField("cross_entropy")
    if _is_class_indices(targets, outputs) and not (summary.minimum >= 0 and summary.maximum < outputs):
        regression = "" if cross_entropy else f". Targets of a regression have shape (rows, {outputs})"
        yield Violation(
            field,
            f"must be class indices 0..{outputs - 1} for a model with {outputs} outputs, "
            f"got {summary.minimum:.0f}..{summary.maximum:.0f}{regression}",
        )
    if cross_entropy and len(targets.shape) == 2 and not summary.distributions:
        yield Violation(field, "must be one-hot or have rows of numbers >= 0 that sum to 1, for cross-entropy")


def _shape(reference: TensorRef) -> str:
    return str(tuple(reference.shape))
