"""Jobs that would need too much memory, or write too many events, are refused."""

import asyncio
from unittest import mock

import pytest

from gradwire_engine.spec.memory import job_memory
from gradwire_engine.spec.resolve import resolve
from gradwire_proto.v1.spec_pb2 import Dataset, EarlyStopping, JobSpec, KeepPolicy, Layer, Linear, ModelSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.errors import InvalidFieldsError, JobTooLargeError
from gradwire_server.jobs.admission import Admission
from gradwire_server.jobs.job_size import SizeLimits
from gradwire_server.principal import OPERATOR

DATA = Dataset(
    inputs=TensorRef(dtype=DataType.DATA_TYPE_UINT8, shape=[100, 30]),
    targets=TensorRef(dtype=DataType.DATA_TYPE_UINT8, shape=[100]),
)
LIMITS = SizeLimits(log_bytes=170_000, threads=1)


def spec_of(*widths, **fields):
    layers = [Layer(linear=Linear(out_features=width)) for width in widths]
    return resolve(JobSpec(model=ModelSpec(layers=layers), train=DATA, **{"batch_size": 10, "epochs": 1, **fields}))


@pytest.mark.parametrize(
    ("fields", "initial_epoch", "fits"),
    [
        ({}, 0, 1000),
        ({"test": DATA}, 0, 772),
        ({"evaluate_every": 10}, 0, 1360),
        ({}, 50, 1050),
    ],
)
def test_a_job_with_too_many_epochs_is_refused_with_the_number_that_fits(fields, initial_epoch, fits):
    LIMITS.check_log(spec_of(3, epochs=fits, **fields), initial_epoch)
    for epochs in (fits + 1, 2**31 - 1):
        with pytest.raises(InvalidFieldsError, match=f"use at most {fits} epochs") as caught:
            LIMITS.check_log(spec_of(3, epochs=epochs, **fields), initial_epoch)
        assert caught.value.violations[0].field == "job.spec.epochs"
        assert caught.value.metadata == {"max_epochs": str(fits)}


def test_a_job_that_needs_more_memory_than_a_worker_has_is_refused():
    spec = spec_of(30_000_000, 1, dtype=DataType.DATA_TYPE_FLOAT64)
    needed = job_memory(spec)
    LIMITS.check_memory(spec, needed)
    LIMITS.check_memory(spec, 0)  # Unknown.
    with pytest.raises(JobTooLargeError, match=r"960000001 parameters, trained on 10 rows.* only 7\.0 GiB") as caught:
        LIMITS.check_memory(spec, 7 << 30)
    assert caught.value.metadata == {
        "field": "job.spec",
        "needed_bytes": str(needed),
        "available_bytes": str(7 << 30),
    }


@pytest.mark.parametrize(
    ("epochs", "every", "initial_epoch", "min_every"),
    [
        (1000, 1, 0, None),
        (1001, 1, 0, 2),
        (10_000, 10, 0, None),
        (10_009, 10, 0, None),
        (10_010, 10, 0, 11),
        (2000, 1, 1000, None),
        (2001, 1, 1000, 2),
        (2**31 - 1, 2**31 - 1, 0, None),
        (2**31 - 1, 1, 0, 2_147_484),
    ],
)
def test_a_job_that_would_keep_too_many_epochs_is_refused_with_the_smallest_step(
    epochs, every, initial_epoch, min_every
):
    spec = spec_of(1, epochs=epochs, keep=KeepPolicy(every=every))
    if min_every is None:
        assert LIMITS.check_kept(spec, initial_epoch) == (epochs // every - initial_epoch // every) * 31 * 4
        return
    with pytest.raises(InvalidFieldsError, match=f"at most 1000: use {min_every} or more") as caught:
        LIMITS.check_kept(spec, initial_epoch)
    assert caught.value.violations[0].field == "job.spec.keep.every"
    assert caught.value.metadata == {"min_every": str(min_every)}
    assert LIMITS.check_kept(spec_of(1, epochs=epochs, keep=KeepPolicy(every=min_every)), initial_epoch) > 0


def test_the_kept_epochs_of_a_large_model_are_limited_by_their_size():
    spec = spec_of(30_000_000, epochs=100, keep=KeepPolicy(every=1))  # 3.72 GB for each epoch.
    with pytest.raises(
        InvalidFieldsError, match=r"keeps the weights of 100 epochs\. This job can keep those of at most 4"
    ):
        LIMITS.check_kept(spec, 0)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, 0),
        ({"keep": KeepPolicy(best=True)}, 1),
        ({"early_stopping": EarlyStopping(patience=1, restore_best=True)}, 1),
        ({"early_stopping": EarlyStopping(patience=1)}, 0),
    ],
)
def test_the_best_epoch_counts_as_one(fields, kept):
    assert LIMITS.check_kept(spec_of(1, epochs=5, **fields), 0) == kept * 31 * 4


def test_the_tensors_of_a_job_that_is_too_large_are_not_read():
    spec = JobSpec(epochs=1, batch_size=10)
    spec.model.layers.add().linear.out_features = 1
    spec.loss.mean_squared_error.SetInParent()
    spec.optimizer.sgd.learning_rate = 0.1
    for reference, features in ((spec.train.inputs, 1_000_000), (spec.train.targets, 1)):
        reference.CopyFrom(TensorRef(dtype=DataType.DATA_TYPE_UINT8, shape=[10, features], sha256=64 * "a"))
    blobs = mock.Mock()
    admission = Admission(
        database=mock.Mock(),
        blobs=blobs,
        disk_space=mock.Mock(),
        warm_start=mock.Mock(apply=mock.AsyncMock(return_value=Job(spec=spec))),
        cluster_has_gpu=lambda: False,
        limits=LIMITS,
        worker_memory=lambda: 1 << 20,
    )
    with pytest.raises(JobTooLargeError):
        asyncio.run(admission.admit(OPERATOR, Job(spec=spec)))
    assert blobs.mock_calls == []
