"""The spec of a job that starts from the weights of an earlier job or model."""

import pytest

from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef
from gradwire_server.errors import CannotStartFromError, InvalidFieldsError
from gradwire_server.jobs.warm_start import _Start, _starting_from

FLOAT32, FLOAT64 = DataType.DATA_TYPE_FLOAT32, DataType.DATA_TYPE_FLOAT64
JOB, MODEL = ("job.continue_job", "jobs/x"), ("job.initial_model", "models/x")


def spec_of(*widths, **fields):
    layers = [{"linear": {"in_features": 4, "out_features": width}} for width in widths]
    return JobSpec(model={"layers": layers}, **fields)


def start_of(field, source, epochs=0):
    return _Start(field, source, {}, spec_of(3).model, TensorRef(dtype=FLOAT32, shape=[15]), epochs)


@pytest.mark.parametrize("dtype", [DataType.DATA_TYPE_UNSPECIFIED, FLOAT32])
def test_a_job_has_the_dtype_of_the_weights_that_it_starts_from(dtype):
    assert _starting_from(start_of(*JOB), spec_of(3, dtype=dtype)).dtype == FLOAT32


@pytest.mark.parametrize("dtype", [DataType.DATA_TYPE_INT8, 1000])
def test_a_dtype_that_is_no_float_is_left_to_the_check_of_the_spec(dtype):
    assert _starting_from(start_of(*JOB), spec_of(3, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("start", "requested", "error", "message"),
    [
        (
            start_of(*JOB),
            spec_of(3, dtype=FLOAT64),
            InvalidFieldsError,
            "is float64, but job 'jobs/x' has float32. Use the",
        ),
        (start_of(*MODEL), spec_of(3, dtype=FLOAT64), InvalidFieldsError, "but model 'models/x' has float32"),
        (start_of(*JOB, epochs=5), spec_of(3, epochs=5), InvalidFieldsError, "is 5, but job 'jobs/x' already has 5"),
        (
            start_of(*MODEL),
            spec_of(2),
            CannotStartFromError,
            "model 'models/x' has layers of widths 4-3, but this job has 4-2",
        ),
    ],
)
def test_a_job_that_does_not_fit_the_weights_is_refused(start, requested, error, message):
    with pytest.raises(error, match=message):
        _starting_from(start, requested)
