"""JSON and query parameters of the gateway."""

import json

import pytest

from gradwire_proto.v1.training_service_pb2 import Job, ListJobsRequest, SampleEpochsRequest, WatchJobsRequest
from gradwire_server.http import json_messages
from gradwire_server.http.errors import CallError
from gradwire_server.http.json_messages import as_json, from_json, from_query, to_json


def test_a_message_is_unchanged_after_json():
    job = Job(name="jobs/a", labels={"run": "1"})
    text = to_json(job.SerializeToString(), Job)
    assert text == as_json(job) == b'{"name":"jobs/a","labels":{"run":"1"}}'
    assert Job.FromString(from_json(text, Job)) == job


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ([], ListJobsRequest, ListJobsRequest()),
        ([("pageSize", "3"), ("filter", "true")], ListJobsRequest, ListJobsRequest(page_size=3, filter="true")),
        ([("page_size", "3"), ("page_size", "4")], ListJobsRequest, ListJobsRequest(page_size=4)),
        ([("names", "a"), ("names", "b")], WatchJobsRequest, WatchJobsRequest(names=["a", "b"])),
        ([("includeNew", "true")], WatchJobsRequest, WatchJobsRequest(include_new=True)),
        ([("includeNew", "true"), ("includeNew", "false")], WatchJobsRequest, WatchJobsRequest()),
    ],
)
def test_query_parameters_set_fields(parameters, kind, message):
    assert kind.FromString(from_query(parameters, kind)) == message


@pytest.mark.parametrize(
    ("parameters", "kind", "field"),
    [
        ([("job", "digits")], Job, "job"),
        ([("spec", "{}")], Job, "spec"),
        ([("x" * 100, "1")], Job, "x" * 80),
        ([("includeNew", "1")], WatchJobsRequest, "(request)"),
        ([("includeNew", "yes")], WatchJobsRequest, "(request)"),
        ([("firstEpoch", "one")], SampleEpochsRequest, "(request)"),
    ],
)
def test_query_parameters_that_do_not_fit_are_refused(parameters, kind, field):
    with pytest.raises(CallError) as caught:
        from_query(parameters, kind)
    assert caught.value.message.startswith(f"{field} ")


# Deeper than Python's recursion limit.
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "text", [b"{", b"\xff", b"[]", b"null", b'{"labels": 1}', b'{"name": 1}', b'{"x": 1}', DEEP, b'{"a":' + DEEP + b"}"]
)
def test_text_that_does_not_fit_is_refused(text):
    with pytest.raises(CallError) as caught:
        from_json(text, Job)
    assert caught.value.status == 400
    assert "\n" not in caught.value.message


def test_json_with_too_many_values_is_refused_before_its_conversion(monkeypatch):
    monkeypatch.setattr(json_messages, "MAX_REQUEST_FIELDS", 6)
    # The object, the list, and four names.
    names = ["a", "b", "c", "d"]
    assert from_json(json.dumps({"names": names}).encode(), WatchJobsRequest)
    assert from_query([("names", name) for name in names], WatchJobsRequest)
    nested: dict[str, object] = {}
    for _ in range(7):
        nested = {"x": nested}
    too_many = [
        {"names": [*names, "e"]},
        nested,
        {name: name for name in "abcdef"},
        {"names": [[[]] * 5]},
        {"names": [[["a", "b"]], "c", "d"]},
    ]
    for content in too_many:
        with pytest.raises(CallError, match="at most 6 fields"):
            from_json(json.dumps(content).encode(), WatchJobsRequest)
    with pytest.raises(CallError, match="at most 6 fields"):
        from_query([("names", name) for name in "abcde"], WatchJobsRequest)
