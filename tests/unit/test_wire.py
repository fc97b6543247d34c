"""What is on the wire stays what it was: messages of earlier versions, and their JSON, are read and written as then."""

import math
from pathlib import Path

import pytest
from google.protobuf import json_format

from gradwire_engine.spec.validation import check_spec
from gradwire_proto.v1.spec_pb2 import JobSpec, Layer
from gradwire_proto.v1.training_service_pb2 import CreateJobRequest, GetJobRequest, WatchJobResponse
from gradwire_server.api.unknown_fields import refuse_unknown_fields
from gradwire_server.errors import ServiceError

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = {"create_job_request": CreateJobRequest, "watch_job_response": WatchJobResponse}
# A field with the number 100 and the value 1, as a newer client might send it.
FROM_THE_FUTURE = b"\xa0\x06\x01"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.binpb")), ids=lambda path: path.name)
def test_a_golden_message_is_read_and_written_as_it_was(path):
    kind = KINDS[path.name.split(".")[0]]
    message = kind.FromString(path.read_bytes())
    assert message.SerializeToString(deterministic=True) == path.read_bytes()
    as_json = path.with_suffix(".json").read_text()
    assert json_format.MessageToJson(message) + "\n" == as_json
    assert json_format.Parse(as_json, kind()).SerializeToString(deterministic=True) == path.read_bytes()


def test_the_job_of_an_older_client_is_one_that_can_be_trained():
    request = CreateJobRequest.FromString((GOLDEN / "create_job_request.v1.binpb").read_bytes())
    refuse_unknown_fields(request)
    assert check_spec(request.job.spec) == []


def test_64_bit_numbers_and_nan_survive_json():
    message = WatchJobResponse.FromString((GOLDEN / "watch_job_response.v1.binpb").read_bytes())
    again = json_format.Parse(json_format.MessageToJson(message), WatchJobResponse())
    assert again.events[1].sequence == 2**53 + 1
    assert math.isnan(again.events[1].epoch.running_loss)


def fields_refused(message):
    with pytest.raises(ServiceError) as caught:
        refuse_unknown_fields(message)
    (bad_request,) = [detail for detail in caught.value.details if detail.DESCRIPTOR.name == "BadRequest"]
    return [violation.field for violation in bad_request.field_violations]


def test_fields_of_a_newer_client_are_refused_where_they_stand():
    assert fields_refused(GetJobRequest.FromString(FROM_THE_FUTURE)) == ["(request)"]
    request = CreateJobRequest()
    request.job.spec.optimizer.sgd.MergeFromString(FROM_THE_FUTURE)
    request.job.spec.model.layers.add()
    request.job.spec.model.layers.append(Layer.FromString(FROM_THE_FUTURE))
    assert fields_refused(request) == ["job.spec.model.layers[1]", "job.spec.optimizer.sgd"]


def test_enums_of_a_newer_client_are_refused_by_name():
    spec = CreateJobRequest.FromString((GOLDEN / "create_job_request.v1.binpb").read_bytes()).job.spec
    newer = JobSpec()
    newer.CopyFrom(spec)
    newer.device, newer.dtype = 99, 99
    newer.model.layers[0].linear.initialization = 99
    newer.train.targets.dtype = 99
    fields = {violation.field for violation in check_spec(newer)}
    assert fields == {"device", "dtype", "model.layers[0].linear.initialization", "train.targets"}
