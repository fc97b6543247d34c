"""The page sizes, page tokens, filters and orders of List calls, and the items that they select."""

import asyncio
import contextlib
import math
import operator
import time
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from server_parts import open_jobs

from gradwire_proto.v1.metrics_pb2 import Epoch, Metrics
from gradwire_proto.v1.model_service_pb2 import ListModelsRequest
from gradwire_proto.v1.spec_pb2 import JobSpec, ModelSpec
from gradwire_proto.v1.training_service_pb2 import JobState, ListJobsRequest
from gradwire_server.api.list_requests import MAX_FILTER_CONDITIONS, MAX_FILTER_LENGTH, parse_page
from gradwire_server.errors import InvalidFieldsError
from gradwire_server.principal import OPERATOR
from gradwire_server.scheduling.lease import Lease
from gradwire_server.store import job_queries
from gradwire_server.store.database import Database
from gradwire_server.store.job_metrics import METRIC_COLUMNS
from gradwire_server.store.paging import FieldClause, LabelClause

ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
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
        ({"filter": "color = RUNNING"}, "filter"),
        ({"filter": "status = RUNNING"}, "filter"),
        ({"filter": "labels = red"}, "filter"),
        ({"filter": "labels.color : red"}, "filter"),
        ({"filter": "state = RUNNING OR state = FAILED"}, "filter"),
        ({"filter": "state = RUNNING AND"}, "filter"),
        ({"filter": 'name = "a"b'}, "filter"),
        ({"filter": "x" * (MAX_FILTER_LENGTH + 1)}, "filter"),
        ({"filter": " AND ".join(["labels:a"] * (MAX_FILTER_CONDITIONS + 1))}, "filter"),
        ({"filter": "name = a\0"}, "filter"),
        ({"filter": "name < a"}, "filter"),
        ({"filter": "state >= RUNNING"}, "filter"),
        ({"filter": "labels.color < 3"}, "filter"),
        ({"filter": "test.loss = 0.1"}, "filter"),
        ({"filter": "test.loss < nan"}, "filter"),
        ({"filter": "test.loss < -Infinity"}, "filter"),
        ({"filter": "test.loss < 1e400"}, "filter"),
        ({"filter": "test.loss < 1_0"}, "filter"),
        ({"filter": "test.loss < ٣"}, "filter"),
        ({"filter": "test.loss < 0x1"}, "filter"),
        ({"filter": 'test.loss < ""'}, "filter"),
        ({"filter": "test.loss =< 1"}, "filter"),
        ({"filter": "test.loss < < 1"}, "filter"),
        ({"filter": f"test.loss < {'9' * 4000}"}, "filter"),
        ({"filter": "loss < 1"}, "filter"),
        ({"filter": "test.running_loss < 1"}, "filter"),
        ({"filter": "test_loss < 1"}, "filter"),
    ],
)
def test_an_invalid_list_request_names_the_field(changes, field):
    with pytest.raises(InvalidFieldsError) as caught:
        parse_page(ListJobsRequest(**changes), STATES, METRIC_COLUMNS)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("filter_", "words"),
    [
        ("test.los < 1", ["compares 'test.los' with <", "running_loss, and train. or test. followed by loss", "r2"]),
        ("color = red", ["a condition on 'color' with =", "labels.KEY", "metrics such as test.loss"]),
        ("test.loss : 1", ["compares test.loss with :", "<, <=, >, >="]),
        ("test.loss < small", ["compares test.loss with 'small', which is not a finite number"]),
    ],
)
def test_an_error_in_a_filter_names_what_is_possible(filter_, words):
    with pytest.raises(InvalidFieldsError) as caught:
        parse_page(ListJobsRequest(filter=filter_), STATES, METRIC_COLUMNS)
    assert all(word in caught.value.violations[0].description for word in words)


@pytest.mark.parametrize("word", ["0.25", "+0.25", ".25", "25e-2", "2.5E-1", '"0.25"', "0.250000"])
@pytest.mark.parametrize("comparison", [*ORDERS])
@pytest.mark.parametrize("space", ["", "  "])
def test_a_metric_is_compared_with_a_number(word, comparison, space):
    page = parse_page(ListJobsRequest(filter=f"test.loss{space}{comparison}{space}{word}"), STATES, METRIC_COLUMNS)
    assert page.clauses == (FieldClause("test.loss", comparison, 0.25),)


def test_models_have_no_metrics_to_compare():
    with pytest.raises(InvalidFieldsError, match="This list has no numbers"):
        parse_page(ListModelsRequest(filter="test.loss < 1"), {})


def test_the_metrics_of_filters_are_those_of_the_protocol():
    fields = [field.name for field in Metrics.DESCRIPTOR.fields]
    assert [*METRIC_COLUMNS] == ["running_loss", *(f"{which}.{name}" for which in ("train", "test") for name in fields)]


@pytest.mark.parametrize(
    "text", [" " * 40_000, " " * 4_000 + "<", "a" * 2_000 + " " * 2_000, "test.loss <" + " " * 4_000 + "%%"]
)
def test_a_filter_is_refused_in_linear_time(text):
    started = time.perf_counter()
    for _ in range(20):
        with contextlib.suppress(InvalidFieldsError):
            parse_page(ListJobsRequest(filter=text), STATES, METRIC_COLUMNS)
    assert time.perf_counter() - started < 1  # A few milliseconds, where quadratic time takes many seconds.


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
    for changed in ({"filter": ""}, {"order_by": ""}, {"order_by": "create_time desc"}):
        other = ListJobsRequest(**({"filter": request.filter, "order_by": request.order_by} | changed))
        other.page_token = request.page_token
        with pytest.raises(InvalidFieldsError, match="page_token"):
            parse_page(other, STATES)


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("name=jobs/a", FieldClause("name", "=", "a")),
        ("name != models/a", FieldClause("name", "!=", "a")),
        ("name : tensors/jobs/a", FieldClause("name", ":", "tensors/jobs/a")),
        ("labels.a.b-c = x", LabelClause("a.b-c", "=", "x")),
        ('labels.a != ""', LabelClause("a", "!=", "")),
        ("labels:a", LabelClause("a", ":", "")),
        ("state = QUEUED", FieldClause("state", "=", 1)),
    ],
)
def test_a_condition_is_parsed(text, clause):
    assert parse_page(ListJobsRequest(filter=f"  {text}\t"), STATES).clauses == (clause,)


def test_resources_without_a_state_have_no_filter_for_it():
    for text in ("state = RUNNING", "state : x", "state = ''"):
        with pytest.raises(InvalidFieldsError, match=r"Fields are name, labels and labels\.KEY"):
            parse_page(ListJobsRequest(filter=text), {})
    assert parse_page(ListJobsRequest(filter="name = a"), {}).clauses == (FieldClause("name", "=", "a"),)


def test_a_page_token_is_valid_only_with_its_order():
    page = parse_page(ListJobsRequest(order_by="create_time"), STATES)
    assert not page.newest_first
    assert page.after_key == 0
    for order_by in ("", "create_time desc"):
        request = ListJobsRequest(order_by=order_by, page_token=page.token_after(5))
        with pytest.raises(InvalidFieldsError, match="same filter and order_by"):
            parse_page(request, STATES)
        assert parse_page(ListJobsRequest(order_by=order_by), STATES).newest_first
    largest = ListJobsRequest(order_by="create_time", page_token=page.token_after(2**31 - 1))
    assert parse_page(largest, STATES).after_key == 2**31 - 1


def test_a_filter_at_its_limits_is_accepted():
    name = "x" * (MAX_FILTER_LENGTH - len("name = "))
    assert parse_page(ListJobsRequest(filter=f"name = {name}"), STATES).clauses == (FieldClause("name", "=", name),)
    conditions = " AND ".join(["labels:a"] * MAX_FILTER_CONDITIONS)
    assert len(parse_page(ListJobsRequest(filter=conditions), STATES).clauses) == MAX_FILTER_CONDITIONS


def test_a_page_token_with_a_key_that_no_row_can_have_is_refused():
    page = parse_page(ListJobsRequest(), STATES)
    with pytest.raises(InvalidFieldsError):
        parse_page(ListJobsRequest(page_token=page.token_after(2**31)), STATES)


@settings(deadline=None)
@given(st.text(alphabet='ab ="!:.AND\t<>1e', max_size=60))
def test_any_filter_is_parsed_or_refused(text):
    with contextlib.suppress(InvalidFieldsError):
        parse_page(ListJobsRequest(filter=text), STATES, METRIC_COLUMNS)


# Names with characters that are special in LIKE or in base64, and labels that share values.
JOBS = {
    "digits-1": {"team": "vision", "stage": "test"},
    "digits-2": {"team": "vision"},
    "a_b": {"team": "speech"},
    "axb": {},
    "a%b": {"team": "vi%on", "stage": "test"},
    "a\\b": {"stage": "final"},
    "a-b": {"team": "speech", "stage": "final"},
}
CANCELLED = ("digits-2", "a-b")


def location_of(request, tmp_path_factory, name):
    """A new SQLite file or Postgres database, depending on the parameter of the fixture."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres").create(name)
    return tmp_path_factory.mktemp(name) / "gradwire.db"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def stored(request, tmp_path_factory):
    """The jobs of `JOBS` in each kind of database, created in this order, all in the same second."""
    database = Database(location_of(request, tmp_path_factory, "stored"))
    lease = Lease(database)
    opened = open_jobs(database, lease)

    async def fill():
        assert await lease.try_acquire()
        for job_id, labels in JOBS.items():
            await opened.create(job_id, labels=labels)
        for job_id in CANCELLED:
            await opened.commands.cancel(OPERATOR, f"jobs/{job_id}")

    asyncio.run(fill())
    yield opened
    database.close()


def pages_of(jobs, size, filter_="", order_by=""):
    """The names of the jobs on each page."""

    async def scenario():
        pages, token = [], ""
        while not pages or token:
            request = ListJobsRequest(filter=filter_, order_by=order_by, page_size=size, page_token=token)
            page, token = await jobs.queries.list(OPERATOR, parse_page(request, dict_of_states()))
            pages.append([job.name.removeprefix("jobs/") for job in page])
            assert len(pages) <= len(JOBS) + 1, "the pages do not end"
        return pages

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ("", ["a-b", "a\\b", "a%b", "axb", "a_b", "digits-2", "digits-1"]),
        ("labels.team = vision", ["digits-2", "digits-1"]),
        ("labels.team != vision", ["a-b", "a\\b", "a%b", "axb", "a_b"]),
        ("labels : stage", ["a-b", "a\\b", "a%b", "digits-1"]),
        ('name : "digits" AND labels.team = "vision" AND labels.stage != "test"', ["digits-2"]),
        ('name : "a_b"', ["a_b"]),
        ('name : "a%b"', ["a%b"]),
        ('name : "a\\b"', ["a\\b"]),
        ('name : "%"', ["a%b"]),
        ('labels.team = "vi%on"', ["a%b"]),
        ("name = jobs/axb", ["axb"]),
        ("name != axb", ["a-b", "a\\b", "a%b", "a_b", "digits-2", "digits-1"]),
        ("state = CANCELLED", ["a-b", "digits-2"]),
        ("state != CANCELLED", ["a\\b", "a%b", "axb", "a_b", "digits-1"]),
        ("name = nobody", []),
    ],
)
def test_a_filter_selects_jobs(stored, filter_, found):
    assert [name for page in pages_of(stored, 3, filter_) for name in page] == found


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8])
@pytest.mark.parametrize("order_by", ["", "create_time desc", "create_time"])
def test_every_page_but_the_last_is_full_and_none_is_empty(stored, size, order_by):
    names = list(JOBS) if order_by == "create_time" else [*reversed(JOBS)]
    assert pages_of(stored, size, order_by=order_by) == [names[at : at + size] for at in range(0, len(names), size)]


def test_an_empty_list_is_one_empty_page(stored):
    assert pages_of(stored, 3, "name = nobody") == [[]]


def test_a_job_created_during_pagination_does_not_move_other_jobs_between_pages(jobs):
    async def scenario():
        for job_id in "abcd":
            await jobs.create(job_id)
        first, token = await jobs.queries.list(OPERATOR, parse_page(ListJobsRequest(page_size=2), {}))
        await jobs.create("e")
        following = ListJobsRequest(page_size=2, page_token=token)
        second, token = await jobs.queries.list(OPERATOR, parse_page(following, {}))
        return [job.name for job in (*first, *second)], token

    assert asyncio.run(scenario()) == (["jobs/d", "jobs/c", "jobs/b", "jobs/a"], "")


def dict_of_states():
    return {name.removeprefix("JOB_STATE_"): number for name, number in JobState.items()}


NAMES = ["a", "ab", "b", "b_a", "bxa", "a%b", "axxb", "a\\b", "aab", "ba", "c", "ca"]
TEAMS = ["red", "re_", "r%", ""]
# The losses of the jobs. None: the job has no epoch.
LOSSES = [0.1, 0.25, math.nan, math.inf, None, 0.0, 1e-300, -0.5, 1e300, 0.1 + 2**-56, 0.5, -math.inf]


@dataclass(frozen=True)
class Listed:
    """A job in the list."""

    name: str
    state: str
    labels: dict[str, str]
    epoch: Epoch | None

    def matches(self, field, operator, value):
        """Apply the filter rules, which are implemented a second time in plain Python."""
        if field == "labels":
            return value in self.labels
        if operator in ORDERS:
            actual = self.metric(field)
            return actual is not None and not math.isnan(actual) and ORDERS[operator](actual, float(value))
        actual = self.labels.get(field.removeprefix("labels.")) if "." in field else getattr(self, field)
        if operator == ":":
            return value in actual
        return (actual == value) == (operator == "=")

    def metric(self, field):
        """The value of a metric such as "test.loss" in the last epoch, or None."""
        which, _, name = field.rpartition(".")
        if self.epoch is None or (which and not self.epoch.HasField(which)):
            return None
        metrics = getattr(self.epoch, which) if which else self.epoch
        has_presence = metrics.DESCRIPTOR.fields_by_name[name].has_presence
        return None if has_presence and not metrics.HasField(name) else getattr(metrics, name)


def last_epoch(number):
    """An epoch with some of the losses, so that each set has metrics that others do not have."""
    loss = LOSSES[number]
    if loss is None:
        return None
    epoch = Epoch(epoch=3, running_loss=LOSSES[number - 1] or 0.0)
    if number % 3:
        epoch.train.CopyFrom(Metrics(loss=loss, accuracy=abs(loss) % 1 if number % 2 else None))
    if number % 4:
        epoch.test.CopyFrom(Metrics(loss=LOSSES[number - 5] or 0.0, r2=loss))
    return epoch


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def listed(request, tmp_path_factory):
    """A store with jobs of every kind, in order of arrival, and the function that lists them."""
    database = Database(location_of(request, tmp_path_factory, "listed"))
    lease = Lease(database)
    jobs = open_jobs(database, lease)
    population = [
        Listed(
            name,
            ("QUEUED", "CANCELLED", "PAUSED")[number % 3],
            {key: TEAMS[(number + shift) % 4] for shift, key in enumerate(("team", "run")) if (number >> shift) % 3},
            last_epoch(number),
        )
        for number, name in enumerate(NAMES)
    ]

    async def fill():
        await lease.try_acquire()
        for each in population:
            await jobs.create(each.name, labels=each.labels)
            # No command accepts a name such as "a%b", but the store can contain one.
            await database.write(lambda connection, each=each: set_state_and_epoch(connection, each))

    asyncio.run(fill())
    with asyncio.Runner() as runner:
        yield population, lambda page: runner.run(jobs.queries.list(OPERATOR, page))
    database.close()


def set_state_and_epoch(connection, each):
    record = job_queries.find_job(connection, each.name)
    record.job.state = dict_of_states()[each.state]
    # An earlier epoch has every metric. The last one replaces all of them.
    full = Metrics(loss=0.3, accuracy=0.3, precision=0.3, recall=0.3, f1=0.3, mean_absolute_error=0.3, r2=0.3)
    if each.epoch is not None:
        record.job.last_epoch.CopyFrom(Epoch(epoch=2, running_loss=0.3, train=full, test=full))
        job_queries.save_job(connection, record)
        record.job.last_epoch.CopyFrom(each.epoch)
    job_queries.save_job(connection, record)


values = st.sampled_from([*NAMES, *TEAMS, "_", "%", "x", "A", "RED"])
conditions = st.one_of(
    st.tuples(st.just("name"), st.sampled_from(["=", "!=", ":"]), values),
    st.tuples(st.just("state"), st.sampled_from(["=", "!="]), st.sampled_from(["QUEUED", "CANCELLED", "PAUSED"])),
    st.tuples(st.sampled_from(["labels.team", "labels.run"]), st.sampled_from(["=", "!="]), values),
    st.tuples(st.just("labels"), st.just(":"), st.sampled_from(["team", "run", "nothing"])),
    st.tuples(
        st.sampled_from([*METRIC_COLUMNS]),
        st.sampled_from([*ORDERS]),
        st.sampled_from(["0.1", "0", "-0.5", "0.25", "1e-300", "1e308", "-1e308", "0.30", "5e-324"]),
    ),
)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(
    clauses=st.lists(conditions, max_size=3),
    order=st.sampled_from(["", "create_time", "create_time desc"]),
    size=st.integers(1, len(NAMES) + 1),
)
@example(clauses=[("name", ":", "A")], order="", size=3)
@example(clauses=[("train.loss", ">", "-1e308")], order="", size=3)
@example(clauses=[("train.loss", "<=", "0.1"), ("test.r2", ">=", "0.1")], order="", size=3)
@example(clauses=[("test.accuracy", "<", "1")], order="", size=3)
def test_any_filter_selects_the_same_pages_as_plain_python(listed, clauses, order, size):
    population, list_page = listed
    expected = [each.name for each in population if all(each.matches(*clause) for clause in clauses)]
    if order != "create_time":
        expected.reverse()
    text = " AND ".join(f'{field} {operator} "{value}"' for field, operator, value in clauses)
    found, token = [], ""
    while True:
        request = ListJobsRequest(filter=text, order_by=order, page_size=size, page_token=token)
        page, token = list_page(parse_page(request, dict_of_states(), METRIC_COLUMNS))
        found.append([job.name.removeprefix("jobs/") for job in page])
        if not token:
            break
    assert found == ([expected[start : start + size] for start in range(0, len(expected), size)] or [[]])


def test_the_labels_of_a_deleted_job_are_deleted(jobs):
    async def scenario():
        await jobs.create("a", labels={"team": "vision"})
        await jobs.commands.cancel(OPERATOR, "jobs/a")
        await jobs.commands.delete(OPERATOR, "jobs/a")

    asyncio.run(scenario())  # If labels remained, their foreign key would prevent this.


def test_a_page_of_large_jobs_ends_before_it_takes_more_than_three_megabytes(jobs):
    large = JobSpec(model=ModelSpec(class_names=["x" * 1_000_000]))
    small = JobSpec()

    async def scenario():
        for number, spec in enumerate([large] * 4 + [small, JobSpec(model=ModelSpec(class_names=["x" * 4_000_000]))]):
            await jobs.create(f"job-{number}", spec=spec)
        pages, token = [], ""
        while token or not pages:
            request = ListJobsRequest(page_size=100, page_token=token, order_by="create_time")
            found, token = await jobs.queries.list(OPERATOR, parse_page(request, STATES))
            pages.append([job.name.removeprefix("jobs/job-") for job in found])
        assert pages == [["0", "1"], ["2", "3", "4"], ["5"]]

    asyncio.run(scenario())
