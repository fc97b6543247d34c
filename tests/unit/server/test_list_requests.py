"""The page sizes, page tokens, filters and orders of List calls, and the items that they select."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwire_proto.v1.training_service_pb2 import JobState, ListJobsRequest
from gradwire_server.api.list_requests import MAX_FILTER_CONDITIONS, MAX_FILTER_LENGTH, parse_page
from gradwire_server.errors import InvalidFieldsError
from gradwire_server.principal import OPERATOR
from gradwire_server.store.paging import FieldClause, LabelClause

STATES = {"RUNNING": 3, "FAILED": 6, "CANCELLED": 7, "QUEUED": 1}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "what?"}, "page_token"),
        ({"page_token": "MTI6YWJj"}, "page_token"),
        ({"order_by": "name"}, "order_by"),
        ({"filter": "state"}, "filter"),
        ({"filter": "state = ASLEEP"}, "filter"),
        ({"filter": "state : RUNNING"}, "filter"),
        ({"filter": "color = red"}, "filter"),
        ({"filter": "labels = red"}, "filter"),
        ({"filter": "labels.color : red"}, "filter"),
        ({"filter": "state = RUNNING OR state = FAILED"}, "filter"),
        ({"filter": "state = RUNNING AND"}, "filter"),
        ({"filter": 'name = "a"b'}, "filter"),
        ({"filter": "x" * (MAX_FILTER_LENGTH + 1)}, "filter"),
        ({"filter": " AND ".join(["labels:a"] * (MAX_FILTER_CONDITIONS + 1))}, "filter"),
        ({"filter": "name = a\0"}, "filter"),
    ],
)
def test_an_invalid_list_request_names_the_field(changes, field):
    with pytest.raises(InvalidFieldsError) as caught:
        parse_page(ListJobsRequest(**changes), STATES)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(("requested", "size"), [(0, 50), (7, 7), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_size_above_the_maximum_is_reduced(requested, size):
    assert parse_page(ListJobsRequest(page_size=requested), STATES).size == size


def test_a_filter_is_parsed_and_a_page_token_is_valid_only_with_it():
    request = ListJobsRequest(
        filter='state != FAILED AND name : "dig its"  AND labels.team="a AND b" AND labels:owner',
        order_by="create_time",
    )
    page = parse_page(request, STATES)
    assert page.clauses == (
        FieldClause("state", "!=", 6),
        FieldClause("name", ":", "dig its"),
        LabelClause("team", "=", "a AND b"),
        LabelClause("owner", ":", ""),
    )
    request.page_token = page.token_after(12)
    assert parse_page(request, STATES).after_key == 12
    request.filter = ""
    with pytest.raises(InvalidFieldsError):
        parse_page(request, STATES)


def test_a_page_token_with_a_key_that_no_row_can_have_is_refused():
    page = parse_page(ListJobsRequest(), STATES)
    with pytest.raises(InvalidFieldsError):
        parse_page(ListJobsRequest(page_token=page.token_after(2**31)), STATES)


@given(st.text(alphabet='ab ="!:.AND\t', max_size=60))
def test_any_filter_is_parsed_or_refused(text):
    with contextlib.suppress(InvalidFieldsError):
        parse_page(ListJobsRequest(filter=text), STATES)


JOBS = {
    "digits-1": {"team": "vision", "stage": "test"},
    "digits-2": {"team": "vision"},
    "a_b": {"team": "speech"},
    "axb": {},
}


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ("", ["axb", "a_b", "digits-2", "digits-1"]),
        ("labels.team = vision", ["digits-2", "digits-1"]),
        ("labels.team != vision", ["axb", "a_b"]),
        ("labels : stage", ["digits-1"]),
        ('name : "digits" AND labels.team = "vision" AND labels.stage != "test"', ["digits-2"]),
        ('name : "a_b"', ["a_b"]),
        ("name = jobs/axb", ["axb"]),
        ("name != axb", ["a_b", "digits-2", "digits-1"]),
        ("state = CANCELLED", ["digits-2"]),
        ("state != CANCELLED", ["axb", "a_b", "digits-1"]),
    ],
)
def test_a_filter_selects_jobs_and_pages_follow_each_other(jobs, filter_, found):
    async def scenario():
        for job_id, labels in JOBS.items():
            await jobs.create(job_id, labels=labels)
        await jobs.commands.cancel(OPERATOR, "jobs/digits-2")
        seen, token = [], ""
        while True:
            request = ListJobsRequest(filter=filter_, page_size=2, page_token=token)
            page, token = await jobs.queries.list(OPERATOR, parse_page(request, dict_of_states()))
            seen += [job.name.removeprefix("jobs/") for job in page]
            if not token:
                return seen

    assert asyncio.run(scenario()) == found


def dict_of_states():
    return {name.removeprefix("JOB_STATE_"): number for name, number in JobState.items()}


def test_the_labels_of_a_deleted_job_are_deleted(jobs):
    async def scenario():
        await jobs.create("a", labels={"team": "vision"})
        await jobs.commands.cancel(OPERATOR, "jobs/a")
        await jobs.commands.delete(OPERATOR, "jobs/a")

    asyncio.run(scenario())  # If labels remained, their foreign key would prevent this.
