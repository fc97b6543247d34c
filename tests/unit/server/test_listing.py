"""Pages, filters and orders of lists, as they are asked for."""

import pytest

from gradwire_proto.v1.training_service_pb2 import (
    ListJobsRequest,
)
from gradwire_server.api.list_requests import parse_page
from gradwire_server.errors import ServiceError

STATES = {"RUNNING": 3, "FAILED": 6}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_size": 1001}, "page_size"),
        ({"page_token": "what?"}, "page_token"),
        ({"page_token": "MTI6YWJj"}, "page_token"),
        ({"order_by": "name"}, "order_by"),
        ({"filter": "state"}, "filter"),
        ({"filter": "state = ASLEEP"}, "filter"),
        ({"filter": "state : RUNNING"}, "filter"),
        ({"filter": "color = red"}, "filter"),
        ({"filter": "state = RUNNING OR state = FAILED"}, "filter"),
    ],
)
def test_list_requests_that_make_no_sense_name_the_field(changes, field):
    with pytest.raises(ServiceError) as caught:
        parse_page(ListJobsRequest(**changes), STATES)
    assert caught.value.details[1].field_violations[0].field == field


def test_a_filter_is_understood_and_its_page_token_belongs_to_it():
    request = ListJobsRequest(filter='state != FAILED AND name : "dig its"', order_by="create_time")
    page = parse_page(request, STATES)
    assert [(c.field, c.operator, c.value) for c in page.clauses] == [("state", "!=", 6), ("name", ":", "dig its")]
    request.page_token = page.token_after(12)
    assert parse_page(request, STATES).after == 12
    request.filter = ""
    with pytest.raises(ServiceError):
        parse_page(request, STATES)
