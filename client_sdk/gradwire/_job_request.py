"""Checks a model, data and options, and converts them to a JobSpec and the tensors that it references."""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

from gradwire._argument_names import SPEC, invalid, invalid_argument
from gradwire._arrays import to_array
from gradwire._class_names import classes_in, encoded, text_labels, whole_numbers
from gradwire._exceptions import FieldViolation, TraceError
from gradwire._options import TrainingOptions
from gradwire._stopping import keep_policy
from gradwire._types import Dataset
from gradwire_engine.backend import Array
from gradwire_engine.losses import CrossEntropy
from gradwire_engine.module import Module
from gradwire_engine.optim import SGD
from gradwire_engine.spec.resolve import linear_layers, resolve
from gradwire_engine.spec.summary import TensorSummary, summarize
from gradwire_engine.spec.tensors import data_type, tensor_ref
from gradwire_engine.spec.tracing import TracedModel, trace
from gradwire_engine.spec.validation import Violation, check_data, check_spec, counted, is_classification
from gradwire_engine.symbol import TraceError as EngineTraceError
from gradwire_proto.v1 import spec_pb2
from gradwire_proto.v1.spec_pb2 import JobSpec, ModelSpec, Optimizer, Sgd
from gradwire_proto.v1.tensor_pb2 import TensorRef

_DEVICES = {
    "auto": spec_pb2.Device.DEVICE_AUTO,
    "cpu": spec_pb2.Device.DEVICE_CPU,
    "gpu": spec_pb2.Device.DEVICE_GPU,
}


@dataclass(frozen=True)
class JobRequest:
    """A job that has passed all checks that are possible without a server.

    Attributes:
        spec: The resolved spec.
        traced: The model, which receives the trained weights.
        tensors: The elements of the spec's tensors, keyed by SHA-256 digest.
        classification: Whether the epochs report classification metrics.
    """

    spec: JobSpec
    traced: TracedModel
    tensors: dict[str, Array]
    classification: bool

    def array(self, reference: TensorRef) -> Array:
        """Return a tensor that the spec references."""
        # Two tensors with the same bytes can have different shapes.
        return self.tensors[reference.sha256].reshape(tuple(reference.shape))


def make_job_request(model: Module, train: Dataset, test: Dataset | None, options: TrainingOptions) -> JobRequest:
    """Trace the model, convert the data, and check everything that can be checked without a server.

    Raises:
        InvalidArgumentError: An argument is invalid.
        TraceError: The model is not a stack of Linear and ReLU layers.
    """
    from gradwire_engine.spec.prepare import loss_message  # noqa: PLC0415  (imports the plans)

    traced = trace_model(model)
    _check_optimizer(model, options.optimizer)
    given = traced.given_weights()
    dtype = _job_dtype(options, given)
    sets, class_names = _data_sets(train, test, options, dtype, traced.spec)
    tensors: dict[str, Array] = {}

    def reference(array: Array) -> TensorRef:
        ref = tensor_ref(array)
        tensors[ref.sha256] = array
        return ref

    spec = JobSpec(
        model=ModelSpec(layers=traced.spec.layers, class_names=class_names),
        loss=loss_message(options.loss),
        optimizer=Optimizer(sgd=Sgd(learning_rate=options.optimizer.lr)),
        **{
            name: spec_pb2.Dataset(inputs=reference(inputs), targets=reference(targets))
            for name, (inputs, targets) in sets.items()
        },
        epochs=int(options.epochs),
        batch_size=int(options.batch_size),
        shuffle=bool(options.shuffle),
        seed=secrets.randbits(32) if options.seed is None else int(options.seed),
        dtype=data_type(dtype),
        device=_DEVICES[options.device],
        evaluate_every=int(options.evaluate_every),
        initial_weights=None if given is None else reference(given.astype(dtype, copy=True)),
        early_stopping=options.early_stopping.message() if options.early_stopping else None,
        max_seconds=None if options.max_seconds is None else float(options.max_seconds),
        keep=keep_policy(options.keep) if options.keep != "last" else None,
    )
    classification = _check(spec, tensors)
    return JobRequest(resolve(spec), traced, tensors, classification)


def trace_model(model: Module) -> TracedModel:
    """Trace a model.

    Raises:
        TraceError: The model is not a stack of Linear and ReLU layers.
    """
    try:
        return trace(model)
    except EngineTraceError as error:
        raise TraceError(str(error)) from None


def _check(spec: JobSpec, tensors: dict[str, Array]) -> bool:
    """Check a spec and its data. Raise an error if they are invalid, and return whether the job is a classification."""
    names = [layer.name for layer in spec.model.layers]
    _refuse(check_spec(spec), names)
    summaries: dict[str, TensorSummary] = {}

    def summary(ref: TensorRef) -> TensorSummary:
        key = f"{ref.sha256} {list(ref.shape)}"
        if key not in summaries:
            summaries[key] = summarize(tensors[ref.sha256].reshape(tuple(ref.shape)))
        return summaries[key]

    _refuse(check_data(spec, summary), names)
    return is_classification(spec, summary)


def _refuse(violations: list[Violation], layer_names: list[str]) -> None:
    if violations:
        raise invalid([FieldViolation(SPEC + each.field, each.description) for each in violations], layer_names)


def _check_optimizer(model: Module, optimizer: SGD) -> None:
    of_model = optimizer.module is model or (
        optimizer.module is None and set(optimizer.parameters()) == set(model.parameters())
    )
    if not of_model:
        raise invalid_argument(
            "optimizer", "belongs to another model, or to only some parameters of this one. Use SGD(model, lr=...)."
        )
    if not isinstance(optimizer.lr, Real):
        raise invalid_argument("optimizer.sgd.learning_rate", f"must be a number, got {optimizer.lr!r}")


def _job_dtype(options: TrainingOptions, given: Array | None) -> "np.dtype[np.generic]":
    if options.dtype is not None:
        return np.dtype(options.dtype)
    return np.dtype(np.float32) if given is None else given.dtype


def _data_sets(
    train: Dataset,
    test: Dataset | None,
    options: TrainingOptions,
    dtype: "np.dtype[np.generic]",
    model: ModelSpec,
) -> tuple[dict[str, tuple[Array, Array]], Sequence[str]]:
    """Return the arrays of "train" and, if there is one, of "test", and the class names, if there are any."""
    linears = linear_layers(model)
    converter = _Targets(
        outputs=linears[-1].linear.out_features if linears else 0,
        dtype=dtype,
        cross_entropy=isinstance(options.loss, CrossEntropy),
        class_names=[str(name) for name in options.classes] if options.classes is not None else model.class_names,
    )
    sets = {"train": _pair(train, "train", converter)}
    if test is not None:
        if options.validation_split is not None:
            raise invalid_argument("validation_split", "cannot be used together with test=. Pass only one of them.", "")
        sets["test"] = _pair(test, "test", converter)
        _check_columns(train[0], test[0])
    elif options.validation_split is not None:
        sets["train"], sets["test"] = split(*sets["train"], options.validation_split)
    return sets, converter.class_names


@dataclass
class _Targets:
    """Converts targets for one model.

    Attributes:
        outputs: The model's number of outputs, or 0 if it has no Linear layers.
        dtype: The type for floats.
        cross_entropy: Whether the loss is cross-entropy.
        class_names: The names of the classes. If there are none, the first text targets determine them.
    """

    outputs: int
    dtype: "np.dtype[np.generic]"
    cross_entropy: bool
    class_names: Sequence[str]

    def convert(self, targets: ArrayLike, field: str) -> Array:
        """Return targets as numbers."""
        labels = text_labels(targets, field)
        if labels is not None:
            if not self.class_names and field == f"{SPEC}test.targets":
                raise invalid_argument(
                    "test.targets", "is text, but the train targets are numbers. Name the classes: classes="
                )
            self.class_names = self.class_names or classes_in(labels, self.outputs, field)
            return encoded(labels, self.class_names, field)
        array = to_array(targets, field, self.dtype)
        if array.ndim == 2 and array.shape[1] == 1 and self.outputs > 1:  # A column of class indices.
            array = array[:, 0]
        is_floats = array.ndim == 1 and array.dtype.kind == "f"
        return whole_numbers(array, field) if is_floats and self.outputs > 1 and self.cross_entropy else array


def _pair(dataset: Dataset, name: str, converter: _Targets) -> tuple[Array, Array]:
    if not isinstance(dataset, tuple | list) or len(dataset) != 2:
        size = f" of {len(dataset)}" if isinstance(dataset, tuple | list) else ""
        raise invalid_argument(name, f"must be a pair (inputs, targets), got {type(dataset).__name__}{size}")
    inputs = to_array(dataset[0], f"{SPEC}{name}.inputs", converter.dtype)
    return inputs, converter.convert(dataset[1], f"{SPEC}{name}.targets")


def _check_columns(train: ArrayLike, test: ArrayLike) -> None:
    """Reject two data frames with the same columns in different orders, because inputs are matched by position."""
    columns, others = (list(getattr(each, "columns", [])) for each in (train, test))
    if columns != others and sorted(map(str, columns)) == sorted(map(str, others)):
        description = "has the columns of the train inputs in another order. Use, for example, test[train.columns]"
        raise invalid_argument("test.inputs", description)


def split(inputs: Array, targets: Array, fraction: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Split a data set into its first rows for training and its last rows for evaluation.

    Args:
        inputs: An array of shape (rows, features).
        targets: An array of shape (rows,) or (rows, outputs).
        fraction: The fraction of rows for evaluation. As in Keras, floor(rows * (1 - fraction)) rows are used for
            training.

    Raises:
        InvalidArgumentError: One of the two sets would be empty.
    """
    rows = len(inputs) if inputs.ndim else 0
    # The small number compensates for rounding errors: 10 * (1 - 0.9) is less than 1.
    train_rows = math.floor(rows * (1 - fraction) + 1e-9)
    if not 0 < train_rows < rows:
        description = (
            f"{fraction:g} of {counted(rows, 'row')} leaves {train_rows} to train on and {rows - train_rows} to "
            "evaluate on"
        )
        raise invalid_argument("validation_split", f"{description}. Both must be at least 1.", "")
    return (inputs[:train_rows], targets[:train_rows]), (inputs[train_rows:], targets[train_rows:])
