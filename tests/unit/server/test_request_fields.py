"""The check of requests before they are parsed: it agrees with protobuf, and does a bounded amount of work."""

import contextlib
import tracemalloc

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_proto.v1.model_service_pb2 import PredictRequest
from gradwire_proto.v1.tensor_service_pb2 import FindMissingTensorsRequest
from gradwire_proto.v1.training_service_pb2 import CreateJobRequest, GetJobRequest
from gradwire_server.api.request_fields import check_fields
from gradwire_server.errors import InvalidFieldsError
from gradwire_server.limits import MAX_NAMED_FIELDS, MAX_REQUEST_FIELDS

JOB = CreateJobRequest(job_id="a", validate_only=True)
JOB.job.labels["team"] = "vision"
JOB.job.spec.optimizer.sgd.learning_rate = 0.5
JOB.job.spec.model.layers.add().linear.out_features = 300
JOB.job.spec.train.inputs.shape.extend([4, 2**40])


def test_a_packed_field_that_is_too_long_is_refused_without_copying_it():
    length = 4 << 20
    inner = b"\x12\x80\x80\x80\x02" + bytes(length)
    message = b"\x12\x85\x80\x80\x02" + inner
    tracemalloc.start()
    try:
        with pytest.raises(InvalidFieldsError, match="must have at most"):
            check_fields(message, PredictRequest.DESCRIPTOR)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


class CountingBytes(bytes):
    """Bytes that count how often one of them is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def refusal(data, kind):
    with pytest.raises(InvalidFieldsError) as caught:
        check_fields(data, kind.DESCRIPTOR)
    return [(each.field, each.description) for each in caught.value.violations]


def test_a_valid_request_passes():
    check_fields(JOB.SerializeToString(), CreateJobRequest.DESCRIPTOR)
    check_fields(b"", CreateJobRequest.DESCRIPTOR)


def test_a_packed_field_may_be_unpacked():
    check_fields(b"\x0a\x04\x10\x01\x10\x02", FindMissingTensorsRequest.DESCRIPTOR)
    assert list(FindMissingTensorsRequest.FromString(b"\x0a\x04\x10\x01\x10\x02").tensors[0].shape) == [1, 2]


@pytest.mark.parametrize("data", [b"\xff", b"\x0a", b"\x0a\x05ab", b"\x0a" + 11 * b"\x80", b"\x0a\xff\xff\xff\xff\x0f"])
def test_malformed_bytes_are_refused(data):
    ((field, description),) = refusal(data, GetJobRequest)
    assert field == "(request)"
    assert "not a valid message" in description
    with pytest.raises(DecodeError):
        GetJobRequest.FromString(data)


def test_a_field_with_another_type_is_unknown():
    assert "field number 1" in refusal(b"\x08\x01", GetJobRequest)[0][1]


def test_the_check_stops_at_the_tenth_unknown_field():
    data = CountingBytes(500_000 * b"\xa0\x06\x01")
    assert len(refusal(data, GetJobRequest)) == MAX_NAMED_FIELDS
    assert data.reads < 100


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (500_000 * b"\x0a\x00", CreateJobRequest),
        # A shape with a million sizes, packed.
        (b"\x0a\xc4\x84\x3d\x12\xc0\x84\x3d" + bytes(1_000_000), FindMissingTensorsRequest),
        (b"\x12\xc4\x84\x3d\x12\xc0\x84\x3d" + bytes(1_000_000), PredictRequest),
    ],
)
def test_the_work_for_a_request_with_too_many_fields_is_bounded(data, kind):
    counted = CountingBytes(data)
    ((field, description),) = refusal(counted, kind)
    assert (field, str(MAX_REQUEST_FIELDS) in description) == ("(request)", True)
    assert counted.reads <= 4 * MAX_REQUEST_FIELDS


def has_unknown(message):
    messages = [
        each
        for descriptor, value in message.ListFields()
        if descriptor.message_type is not None and not descriptor.message_type.GetOptions().map_entry
        for each in (value if descriptor.is_repeated else [value])
    ]
    return len(UnknownFieldSet(message)) > 0 or any(map(has_unknown, messages))


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_the_check_agrees_with_protobuf_about_mutated_requests(data):
    mutated = bytearray(JOB.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, len(mutated) - 1))
        mutated[position] = data.draw(st.integers(0, 255))
    try:
        check_fields(bytes(mutated), CreateJobRequest.DESCRIPTOR)
    except InvalidFieldsError:
        return
    with contextlib.suppress(DecodeError):  # For example, text that is not UTF-8.
        assert not has_unknown(CreateJobRequest.FromString(bytes(mutated)))
