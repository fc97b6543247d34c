"""The exception hierarchy, and the conversion of gRPC errors to exceptions."""

import pickle

import grpc
import pytest
from scripted_server import rpc_error, status

import gradwire as gw
from gradwire import _exceptions
from gradwire._argument_names import argument_of, invalid_argument
from gradwire._retry import retry_delay
from gradwire._status import error_from_rpc

Code = grpc.StatusCode
TREE = [
    each
    for each in vars(_exceptions).values()
    if isinstance(each, type) and issubclass(each, Exception) and each.__module__ == "gradwire._exceptions"
]


def translated(made):
    return error_from_rpc(rpc_error(made), "somewhere:50051")


def test_every_exception_of_the_sdk_is_in_the_hierarchy_and_in_both_diagrams():
    assert len(TREE) == 16
    for each in TREE:
        assert issubclass(each, gw.GradwireError)
        assert getattr(gw, each.__name__) is each
        for drawing in (_exceptions.__doc__, gw.GradwireError.__doc__):
            assert each.__name__ in drawing


@pytest.mark.parametrize("kind", TREE)
def test_exceptions_can_be_pickled(kind):
    error = kind("it went wrong")
    error.reason = "REASON"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.reason) == ("it went wrong", "REASON")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (gw.InvalidArgumentError, ValueError),
        (gw.NotFoundError, LookupError),
        (gw.UnavailableError, ConnectionError),
        (gw.DeadlineExceededError, TimeoutError),
        (gw.TraceError, TypeError),
        (gw.FileError, ValueError),
    ],
)
def test_exceptions_derive_from_the_matching_python_exception(kind, builtin):
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.INVALID_ARGUMENT, gw.InvalidArgumentError),
        (Code.NOT_FOUND, gw.NotFoundError),
        (Code.ALREADY_EXISTS, gw.AlreadyExistsError),
        (Code.FAILED_PRECONDITION, gw.FailedPreconditionError),
        (Code.OUT_OF_RANGE, gw.OutOfRangeError),
        (Code.DATA_LOSS, gw.DataLossError),
        (Code.RESOURCE_EXHAUSTED, gw.ResourceExhaustedError),
        (Code.UNAUTHENTICATED, gw.UnauthenticatedError),
        (Code.UNAVAILABLE, gw.UnavailableError),
        (Code.DEADLINE_EXCEEDED, gw.DeadlineExceededError),
        (Code.INTERNAL, gw.InternalError),
        (Code.UNIMPLEMENTED, gw.InternalError),
    ],
)
def test_each_code_has_its_exception_with_message_reason_and_metadata(code, kind):
    error = translated(status(code, "what the server said", reason="A_REASON", metadata={"job": "jobs/x"}))
    assert type(error) is kind
    assert str(error) == "what the server said"
    assert error.reason == "A_REASON"
    assert error.metadata == {"job": "jobs/x"}


def test_an_error_without_details_has_no_reason():
    error = translated(status(Code.NOT_FOUND, "no such thing"))
    assert (error.reason, error.metadata, error.retry_after) == (None, {}, None)


def test_a_reason_from_another_domain_is_ignored():
    made = status(Code.NOT_FOUND, "no such thing", reason="THEIRS")
    made.details[0].value = made.details[0].value.replace(b"gradwire.dev", b"elsewhere.io")
    assert translated(made).reason is None


def test_invalid_fields_are_named_by_their_arguments_and_keep_their_paths():
    violations = {
        "job.spec.train.targets": "must be class indices 0..2",
        "job.spec.optimizer.sgd.learning_rate": "must be finite",
        "job.spec.test.inputs": "has 3 features, but train.inputs has 4",
        "job_id": "must start with a letter",
    }
    error = translated(status(Code.INVALID_ARGUMENT, "raw", reason="INVALID_FIELDS", violations=violations))
    assert str(error) == (
        "train targets: must be class indices 0..2; lr: must be finite; "
        "test inputs: has 3 features, but train inputs has 4; name: must start with a letter"
    )
    assert [violation.field for violation in error.violations] == list(violations)
    assert error.reason == "INVALID_FIELDS"


def test_paths_in_the_text_of_other_errors_are_named_by_their_arguments():
    error = translated(status(Code.FAILED_PRECONDITION, "job.spec.device: the cluster has no GPU", reason="NO_GPU"))
    assert str(error) == "device: the cluster has no GPU"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("job 'jobs/x' does not exist", "job 'x' does not exist"),
        ("model 'models/a-b' of a deleted job already exists", "model 'a-b' of a deleted job already exists"),
        ("job.spec.device is DEVICE_GPU, but ... Use DEVICE_AUTO", 'device is "gpu", but ... Use "auto"'),
        ("Create a job with continue_job to continue it", "Create a job with resume_from= to continue it"),
        (
            "after_sequence must be 0 to 3, the last event of job 'jobs/x'",
            "after must be 0 to 3, the last event of job 'x'",
        ),
        ("must be DATA_TYPE_FLOAT32 or DATA_TYPE_FLOAT64", "must be float32 or float64"),
        ("cannot read '/data/jobs/x'", "cannot read '/data/jobs/x'"),
    ],
)
def test_the_names_of_the_wire_become_what_the_user_wrote(said, message):
    error = translated(status(Code.FAILED_PRECONDITION, said, reason="A_REASON", metadata={"job": "jobs/x"}))
    assert (str(error), error.metadata) == (message, {"job": "jobs/x"})


@pytest.mark.parametrize(
    ("field", "argument"),
    [
        ("job.spec.epochs", "epochs"),
        ("job.spec.model.layers[1].linear.in_features", "in_features of layer 'fc2'"),
        ("job.spec.model.layers[0].relu", "layer 'fc1'"),
        ("job.spec.model.layers[2].name", "name of layer 2"),
        ("job.spec.model.layers[7]", "layer 7"),
        ("job.labels", "labels"),
        ("job.continue_job", "resume_from"),
        ("job.initial_model", "initial_model"),
        ("page_size", "limit"),
        ("filter", "filter"),
    ],
)
def test_fields_have_the_names_of_the_call(field, argument):
    assert argument_of(field, ["fc1", "fc2"]) == argument


def test_an_argument_that_the_sdk_refuses_has_the_path_of_its_field():
    error = invalid_argument("epochs", "must be at least 1")
    assert str(error) == "epochs: must be at least 1"
    assert [violation.field for violation in error.violations] == ["job.spec.epochs"]
    assert invalid_argument("page_size", "is wrong", "").violations[0].field == "page_size"


def test_details_that_contradict_the_status_are_ignored():
    made = status(Code.NOT_FOUND, "no such thing", reason="A_REASON")
    made.code = Code.INTERNAL.value[0]
    error = error_from_rpc(
        grpc.aio.AioRpcError(
            Code.NOT_FOUND,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(("grpc-status-details-bin", made.SerializeToString())),
            "no such thing",
        ),
        "somewhere:50051",
    )
    assert (type(error), str(error), error.reason) == (gw.NotFoundError, "no such thing", None)


def test_a_missing_server_error_says_what_to_start_and_set():
    error = translated(status(Code.UNAVAILABLE, "connection refused"))
    assert "no gradwire server answers at somewhere:50051 (connection refused)" in str(error)
    assert "GRADWIRE_ADDRESS" in str(error)


def test_the_message_of_an_unavailable_server_is_kept():
    error = translated(
        status(Code.UNAVAILABLE, "the database does not respond", reason="STORE_UNAVAILABLE", retry_after=2)
    )
    assert isinstance(error, gw.UnavailableError)
    assert str(error) == "the database does not respond"
    assert error.retry_after == 2


def test_a_timeout_is_not_reported_as_a_missing_server():
    error = translated(status(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))
    assert "did not answer in time" in str(error)
    assert "timeout=" in str(error)


def test_a_server_that_ends_during_a_call_is_unavailable():
    assert isinstance(translated(status(Code.CANCELLED, "bye")), gw.UnavailableError)


def test_calls_to_an_unavailable_server_are_retried_after_growing_waits():
    error = gw.UnavailableError("away")
    waits = [retry_delay(error, attempt) for attempt in range(8)]
    assert waits[0] == 0.1
    assert waits == sorted(waits)
    assert waits[-1] == 8


def test_the_wait_that_a_server_asks_for_is_respected():
    assert retry_delay(gw.UnavailableError("x", retry_after=2.5), 0) == 2.5
    assert retry_delay(gw.ResourceExhaustedError("x", retry_after=5), 3) == 5
    assert retry_delay(gw.ResourceExhaustedError("x", retry_after=3600), 0) is None


@pytest.mark.parametrize("kind", [gw.ResourceExhaustedError, gw.DeadlineExceededError, gw.InternalError])
def test_other_errors_are_not_retried(kind):
    assert retry_delay(kind("x"), 0) is None
