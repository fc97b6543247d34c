"""The wire format is frozen: messages of earlier versions are read and written unchanged, in binary and JSON form."""

import math
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.unknown_fields import UnknownFieldSet

from gradwire_engine.spec.validation import check_spec
from gradwire_proto.v1.spec_pb2 import JobSpec, Layer
from gradwire_proto.v1.training_service_pb2 import CreateJobRequest, GetJobRequest, WatchJobResponse
from gradwire_server.api.request_fields import check_fields
from gradwire_server.errors import InvalidFieldsError

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import make as golden  # noqa: E402

FILES = golden.golden_files()
MESSAGES = [entry for file in FILES for entry in file["messages"]]
# A field with the number 100 and the value 1, which represents a field that a newer client might send.
FROM_THE_FUTURE = b"\xa0\x06\x01"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.binpb")), ids=lambda path: path.name)
def test_an_example_is_read_and_written_unchanged(path):
    kind = golden.message_class(path.name.partition(".")[0])
    example = kind.FromString(path.read_bytes())
    assert example.SerializeToString(deterministic=True) == path.read_bytes()
    as_json = path.with_suffix(".json").read_text()
    assert json_format.MessageToJson(example) + "\n" == as_json
    assert json_format.Parse(as_json, kind()).SerializeToString(deterministic=True) == path.read_bytes()


@pytest.mark.parametrize("entry", MESSAGES, ids=lambda entry: entry["type"])
def test_every_field_keeps_its_name_number_and_type(entry):
    kind = golden.message_class(entry["type"])
    received = kind.FromString(bytes.fromhex(entry["bytes"]))
    assert len(UnknownFieldSet(received)) == 0
    assert json_format.MessageToDict(received) == entry["json"]
    sent = json_format.ParseDict(entry["json"], kind())
    assert sent.SerializeToString(deterministic=True).hex() == entry["bytes"]


@pytest.mark.parametrize("file", FILES)
def test_no_enum_value_or_method_is_removed(file):
    values = {(enum, *value) for enum, values in golden.enums().items() for value in values.items()}
    assert {(enum, *value) for enum, values in file["enums"].items() for value in values.items()} <= values
    methods = golden.methods()
    assert {path: methods.get(path) for path in file["methods"]} == file["methods"]


def test_the_golden_messages_have_every_field_enum_and_method():
    advice = "the protocol has something new: run tests/golden/make.py with the name of the next version"
    assert golden.new_entries() == [], advice
    assert any(golden.enums() == file["enums"] and golden.methods() == file["methods"] for file in FILES), advice


def test_the_job_of_an_older_client_can_be_trained():
    request = CreateJobRequest.FromString((GOLDEN / "CreateJobRequest.v1.binpb").read_bytes())
    check_fields(request.SerializeToString(), request.DESCRIPTOR)
    assert check_spec(request.job.spec) == []


def test_64_bit_numbers_and_nan_survive_json():
    response = WatchJobResponse.FromString((GOLDEN / "WatchJobResponse.v1.binpb").read_bytes())
    again = json_format.Parse(json_format.MessageToJson(response), WatchJobResponse())
    assert again.events[1].sequence == 2**53 + 1
    assert math.isnan(again.events[1].epoch.running_loss)


def fields_refused(request):
    with pytest.raises(InvalidFieldsError) as caught:
        check_fields(request.SerializeToString(), request.DESCRIPTOR)
    return [violation.field for violation in caught.value.violations]


def test_a_field_of_a_newer_client_is_refused_with_its_path():
    assert fields_refused(GetJobRequest.FromString(FROM_THE_FUTURE)) == ["(request)"]
    request = CreateJobRequest()
    request.job.spec.optimizer.sgd.MergeFromString(FROM_THE_FUTURE)
    request.job.spec.model.layers.add()
    request.job.spec.model.layers.append(Layer.FromString(FROM_THE_FUTURE))
    assert fields_refused(request) == ["job.spec.model.layers[1]", "job.spec.optimizer.sgd"]


def test_an_enum_value_of_a_newer_client_is_refused_with_its_path():
    spec = CreateJobRequest.FromString((GOLDEN / "CreateJobRequest.v1.binpb").read_bytes()).job.spec
    newer = JobSpec()
    newer.CopyFrom(spec)
    newer.device, newer.dtype = 99, 99
    newer.model.layers[0].linear.initialization = 99
    newer.train.targets.dtype = 99
    fields = {violation.field for violation in check_spec(newer)}
    assert fields == {"device", "dtype", "model.layers[0].linear.initialization", "train.targets"}
