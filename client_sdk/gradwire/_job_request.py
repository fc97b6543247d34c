"""What a user hands to fit or submit, checked and turned into a JobSpec and the tensors that it names."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire._arrays import to_array
from gradwire._exceptions import FieldViolation, invalid
from gradwire_engine.backend import Array
from gradwire_engine.losses import MSE, CrossEntropy, Loss
from gradwire_engine.module import Module
from gradwire_engine.optim import SGD
from gradwire_engine.spec.prepare import JobData, loss_message
from gradwire_engine.spec.resolve import resolve
from gradwire_engine.spec.summary import TensorSummary, summarize
from gradwire_engine.spec.tensors import data_type, tensor_ref
from gradwire_engine.spec.tracing import TracedModel, trace
from gradwire_engine.spec.validation import Violation, check_data, check_spec, is_classification
from gradwire_proto.v1.spec_pb2 import Dataset, Device, JobSpec, Optimizer, Sgd
from gradwire_proto.v1.tensor_pb2 import TensorRef

DEVICES = {"auto": Device.DEVICE_AUTO, "cpu": Device.DEVICE_CPU, "gpu": Device.DEVICE_GPU}

# The path to the spec in CreateJobRequest, which is how the service names fields.
_PREFIX = "job.spec."
_MOST_INT32 = 2**31 - 1
_MOST_UINT64 = 2**64 - 1


@dataclass(frozen=True)
class Submission:
    """A job that passed all checks: the resolved spec, its tensors by digest, and the model that gets the weights."""

    spec: JobSpec
    traced: TracedModel
    tensors: dict[str, Array]
    classification: bool

    def data(self) -> JobData:
        """Return the arrays of the job."""
        spec = self.spec
        return JobData(
            train=self._set(spec.train),
            test=self._set(spec.test) if spec.HasField("test") else None,
            given_weights=self.tensors[spec.initial_weights.sha256] if spec.HasField("initial_weights") else None,
        )

    def _set(self, dataset: Dataset) -> tuple[Array, Array]:
        return self._tensor(dataset.inputs), self._tensor(dataset.targets)

    def _tensor(self, reference: TensorRef) -> Array:
        # Two tensors of the same bytes may differ in shape.
        return self.tensors[reference.sha256].reshape(tuple(reference.shape))


def make_submission(
    model: Module,
    train: tuple[Any, Any],
    *,
    test: tuple[Any, Any] | None = None,
    loss: Loss,
    optimizer: SGD,
    epochs: int = 10,
    batch_size: int = 64,
    shuffle: bool = True,
    seed: int = 0,
    dtype: Any = None,
    device: str = "auto",
    evaluate_every: int = 1,
) -> Submission:
    """Trace the model, convert the data, and check everything that can be checked without a server."""
    _check_objects(model, loss, optimizer, device)
    traced = trace(model)
    given = traced.given_weights()
    job_dtype = _job_dtype(dtype, given)
    tensors: dict[str, Array] = {}

    def reference(array: Array) -> TensorRef:
        ref = tensor_ref(array)
        tensors[ref.sha256] = array
        return ref

    def dataset(pair: Any, name: str) -> Dataset:
        inputs, targets = _pair(pair, name)
        return Dataset(
            inputs=reference(to_array(inputs, f"{_PREFIX}{name}.inputs", job_dtype)),
            targets=reference(to_array(targets, f"{_PREFIX}{name}.targets", job_dtype)),
        )

    spec = JobSpec(
        model=traced.spec,
        loss=loss_message(loss),
        optimizer=Optimizer(sgd=Sgd(learning_rate=optimizer.lr)),
        train=dataset(train, "train"),
        test=None if test is None else dataset(test, "test"),
        epochs=_whole(epochs, "epochs", _MOST_INT32),
        batch_size=_whole(batch_size, "batch_size", _MOST_INT32),
        shuffle=bool(shuffle),
        seed=_whole(seed, "seed", _MOST_UINT64),
        dtype=data_type(job_dtype),
        device=DEVICES[device],
        evaluate_every=_whole(evaluate_every, "evaluate_every", _MOST_INT32, least=1),
        initial_weights=None if given is None else reference(given.astype(job_dtype, copy=True)),
    )
    _refuse(check_spec(spec))
    summaries: dict[str, TensorSummary] = {}

    def summary(ref: TensorRef) -> TensorSummary:
        key = f"{ref.sha256} {list(ref.shape)}"
        if key not in summaries:
            summaries[key] = summarize(tensors[ref.sha256].reshape(tuple(ref.shape)))
        return summaries[key]

    _refuse(check_data(spec, summary))
    return Submission(resolve(spec), traced, tensors, is_classification(spec, summary))


def _check_objects(model: Module, loss: Loss, optimizer: SGD, device: str) -> None:
    if not isinstance(loss, MSE | CrossEntropy):
        raise _wrong("loss", f"must be MSE() or CrossEntropy(), got {loss!r}")
    if not isinstance(optimizer, SGD):
        raise _wrong("optimizer", f"must be SGD(model, lr=...), got {optimizer!r}")
    if isinstance(model, Module):
        of_model = optimizer.module is model or (
            optimizer.module is None and set(optimizer.parameters()) == set(model.parameters())
        )
        if not of_model:
            raise _wrong(
                "optimizer", "is made for another model, or for some of its parameters only: use SGD(model, lr=...)"
            )
    if device not in DEVICES:
        raise _wrong("device", f"must be one of {', '.join(DEVICES)}, got {device!r}")


def _job_dtype(dtype: Any, given: Array | None) -> "np.dtype[Any]":
    """What was asked for, else the model's own, else float32."""
    try:
        chosen = np.dtype(dtype) if dtype is not None else np.dtype(np.float32) if given is None else given.dtype
    except TypeError as error:
        raise _wrong("dtype", f'must be "float32" or "float64", got {dtype!r}') from error
    if chosen not in (np.float32, np.float64):
        raise _wrong("dtype", f'must be "float32" or "float64", got {chosen}')
    return chosen


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise _wrong(name, f"must be a pair (inputs, targets), got {type(value).__name__}")
    return value[0], value[1]


def _whole(value: Any, field: str, most: int, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise _wrong(field, f"must be a whole number, got {value!r}")
    if not least <= value <= most:
        raise _wrong(field, f"must be {least}..{most}, got {value}")
    return int(value)


def _wrong(field: str, description: str) -> Exception:
    return invalid([FieldViolation(_PREFIX + field, description)])


def _refuse(violations: list[Violation]) -> None:
    if violations:
        raise invalid([FieldViolation(_PREFIX + each.field, each.description) for each in violations])
