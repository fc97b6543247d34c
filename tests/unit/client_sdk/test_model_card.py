"""Model cards, which the server writes."""

import pytest

import gradwire as gw
from gradwire_proto.v1.model_service_pb2 import GetModelCardResponse
from gradwire_proto.v1.training_service_pb2 import Job


def test_the_card_of_a_model_or_a_job_is_that_of_the_server(scripted):
    scripted.answer("GetModelCard", lambda request: GetModelCardResponse(markdown=f"# {request.name}"))
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", state=5, model="models/x"))
    with gw.Client(scripted.address) as client:
        assert client.models.card("x") == client.jobs.get("x").card() == "# models/x"


def test_a_job_without_a_model_has_no_card(scripted):
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", state=3))
    with (
        gw.Client(scripted.address) as client,
        pytest.raises(gw.FailedPreconditionError, match="has no model, because it is RUNNING"),
    ):
        client.jobs.get("x").card()
