"""Queries for jobs and events. Each query is a function that takes a connection and runs one or two statements.

Statements that run often are built only once, because building one takes several times as long as running it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, literal, select, update
from sqlalchemy import delete as delete_from

from gradwire_engine.spec.resolve import references
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, Job, JobState
from gradwire_server.store import tensor_queries
from gradwire_server.store.paging import Page, PagedTable, rows_of_page
from gradwire_server.store.tables import events, is_change_or_warning, job_labels, job_tensors, jobs, models

# The state of a deleted job whose events are still stored.
_DELETED = JobState.JOB_STATE_UNSPECIFIED
_exists = jobs.c.state != _DELETED

_PAGED = PagedTable(jobs, {"state": jobs.c.state, "name": jobs.c.job_id}, job_labels, _exists)

# The index of epochs is used only if the kind is part of the statement, and not a parameter.
_is_epoch = events.c.kind == literal("epoch", literal_execute=True)

_JOB = select(jobs).where(_exists)
_JOB_BY_ID = _JOB.where(jobs.c.job_id == bindparam("job_id"))
_JOB_BY_KEY = _JOB.where(jobs.c.id == bindparam("key"))
_JOB_TO_CHANGE = _JOB_BY_KEY.with_for_update()
_JOB_BY_REQUEST = _JOB.where(jobs.c.request_id == bindparam("request_id"))
_JOB_EXISTS = select(jobs.c.id).where(jobs.c.id == bindparam("key"), _exists)
_JOBS_IN_STATES = (
    select(jobs)
    .where(
        jobs.c.state.in_(bindparam("states", expanding=True)),
        jobs.c.id.not_in(bindparam("except_keys", expanding=True)),
    )
    .order_by(jobs.c.id)
)
_FIRST_JOBS_IN_STATES = _JOBS_IN_STATES.limit(bindparam("limit"))
_OWNER_OF_ID = (
    select(literal("jobs"))
    .where(jobs.c.job_id == bindparam("id"))
    .union_all(select(literal("models")).where(models.c.model_id == bindparam("id")))
)
_INSERT_JOB = insert(jobs).values(
    {
        name: bindparam(name)
        for name in (
            "job_id",
            "request_id",
            "classification",
            "state",
            "workers_lost",
            "crashes",
            "reported",
            "message",
        )
    }
)
_SAVE_JOB = (
    update(jobs)
    .where(jobs.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in ("state", "workers_lost", "crashes", "reported", "message")})
)
_INSERT_EVENTS = insert(events)
_EVENTS_AFTER = (
    select(events.c.message)
    .where(events.c.job == bindparam("key"), events.c.sequence > bindparam("sequence"), _JOB_EXISTS.exists())
    .order_by(events.c.sequence)
    .limit(bindparam("limit"))
)
_CHECKPOINT = (
    select(events.c.message)
    .where(events.c.job == bindparam("key"), events.c.kind == "checkpoint", events.c.epoch == bindparam("epoch"))
    .order_by(events.c.sequence.desc())
    .limit(1)
)


@dataclass
class JobRecord:
    """A stored job.

    Attributes:
        job_key: The integer key of the job, or 0 before the job is stored. Keys increase in order of arrival.
        job_id: The ID of the job. The name of the job is "jobs/{job_id}".
        classification: Whether the job reports classification metrics.
        workers_lost: The number of workers that died in a row without a new epoch in between.
        crashes: The number of server crashes in a row during which the job was running, without a new epoch in between.
        last_report: The sequence number of the last stored report of the current attempt.
        job: The job message that clients receive.
        state_changes: The state changes that the current transaction stores.
    """

    job_key: int
    job_id: str
    classification: bool
    workers_lost: int
    crashes: int
    last_report: int
    job: Job
    state_changes: list[Event] = field(default_factory=list)


def insert_job(connection: Connection, record: JobRecord, request_id: str) -> None:
    """Add a job, its labels and its references to tensors, and set the key of the record."""
    values = {"job_id": record.job_id, "request_id": request_id or None, "classification": record.classification}
    result = connection.execute(_INSERT_JOB, values | _changing_values(record))
    assert result.inserted_primary_key is not None
    record.job_key = result.inserted_primary_key[0]
    digests = [reference.sha256 for reference in references(record.job.spec).values()]
    tensor_queries.insert_references(connection, job_tensors, record.job_key, digests)
    labels = [{"owner": record.job_key, "key": key, "value": value} for key, value in record.job.labels.items()]
    if labels:
        connection.execute(insert(job_labels), labels)


def save_job(connection: Connection, record: JobRecord) -> None:
    """Store the changes to a job."""
    connection.execute(_SAVE_JOB, {"key": record.job_key} | _changing_values(record))


def delete_job(connection: Connection, job_key: int) -> None:
    """Delete a job. Its events remain until `delete_some_events` has deleted them."""
    for table in (job_labels, job_tensors):
        connection.execute(delete_from(table).where(table.c.owner == job_key))
    # No job has this ID, because IDs contain no space.
    values = {"job_id": f"deleted {job_key}", "request_id": None, "state": _DELETED, "message": b""}
    connection.execute(update(jobs).where(jobs.c.id == job_key).values(**values))


def first_deleted_job(connection: Connection) -> int | None:
    """Return the key of a deleted job whose events are not yet deleted, or None."""
    return connection.scalar(select(func.min(jobs.c.id)).where(jobs.c.state == _DELETED))


def delete_some_events(connection: Connection, job_key: int, most: int) -> bool:
    """Delete the first events of a deleted job. Returns whether no events are left."""
    first = connection.scalar(select(func.min(events.c.sequence)).where(events.c.job == job_key))
    if first is not None:
        chosen = (events.c.job == job_key, events.c.sequence < first + most)
        connection.execute(delete_from(events).where(*chosen))
        return False
    connection.execute(delete_from(jobs).where(jobs.c.id == job_key))
    return True


def find_job(connection: Connection, job_id: str) -> JobRecord | None:
    """Return the job with this ID, or None."""
    return _one_job(connection, _JOB_BY_ID, job_id=job_id)


def find_job_by_key(connection: Connection, job_key: int) -> JobRecord | None:
    """Return the job with this key, or None."""
    return _one_job(connection, _JOB_BY_KEY, key=job_key)


def find_job_by_request(connection: Connection, request_id: str) -> JobRecord | None:
    """Return the job that the request with this ID created, or None."""
    return _one_job(connection, _JOB_BY_REQUEST, request_id=request_id) if request_id else None


def owner_of_id(connection: Connection, job_id: str) -> str | None:
    """Return "jobs" or "models" if a job or a model has this ID, or None."""
    return connection.scalar(_OWNER_OF_ID, {"id": job_id})


def job_exists(connection: Connection, job_key: int) -> bool:
    """Return whether a job with this key exists."""
    return connection.scalar(_JOB_EXISTS, {"key": job_key}) is not None


def crashes_of(connection: Connection, job_keys: Collection[int]) -> dict[int, int]:
    """Return `JobRecord.crashes` of the jobs with these keys, by key."""
    query = select(jobs.c.id, jobs.c.crashes).where(jobs.c.id.in_(list(job_keys)))
    return {row.id: row.crashes for row in connection.execute(query)}


def lock_job(connection: Connection, job_key: int) -> JobRecord | None:
    """Lock a job and return it, or None if it was deleted. Other servers wait until the transaction ends."""
    return _one_job(connection, _JOB_TO_CHANGE, key=job_key)


def jobs_in_states(
    connection: Connection, states: Sequence[JobState], limit: int | None = None, except_keys: Collection[int] = ()
) -> list[JobRecord]:
    """Return the jobs that are in any of the states, in order of arrival, without those that have these keys."""
    values: dict[str, object] = {"states": list(states), "except_keys": list(except_keys)}
    query = _JOBS_IN_STATES if limit is None else _FIRST_JOBS_IN_STATES
    return [_job_record(row) for row in connection.execute(query, values | {"limit": limit})]


def list_jobs(connection: Connection, page: Page) -> tuple[list[Job], str]:
    """Return a page of jobs and the token of the next page."""
    rows, token = rows_of_page(connection, _PAGED, page)
    return [Job.FromString(row.message) for row in rows], token


def was_paused(connection: Connection, job_key: int) -> bool:
    """Return whether a job was ever paused."""
    return any(
        Event.FromString(serialized).state_change.state == JobState.JOB_STATE_PAUSED
        for serialized in connection.scalars(_changes_and_warnings(job_key))
    )


def insert_events(connection: Connection, job_key: int, new: Sequence[Event]) -> None:
    """Append events, which already have sequence numbers."""
    if new:
        connection.execute(_INSERT_EVENTS, [_event_values(job_key, event) for event in new])


def events_after(connection: Connection, job_key: int, sequence: int, limit: int) -> list[Event]:
    """Return the next events of a job after a sequence number, or none if the job was deleted."""
    values = {"key": job_key, "sequence": sequence, "limit": limit}
    return [Event.FromString(serialized) for serialized in connection.scalars(_EVENTS_AFTER, values)]


def epoch_event(connection: Connection, job_key: int, epoch: int) -> Event:
    """Return the event for a stored epoch."""
    query = select(events.c.message).where(events.c.job == job_key, events.c.kind == "epoch", events.c.epoch == epoch)
    return Event.FromString(connection.scalars(query).one())


def epochs_among(connection: Connection, job_key: int, numbers: Sequence[int]) -> list[Event]:
    """Return the events of these epochs, as far as they are stored, in order."""
    query = (
        select(events.c.message)
        .where(events.c.job == job_key, _is_epoch, events.c.epoch.in_(numbers))
        .order_by(events.c.epoch)
    )
    return [Event.FromString(serialized) for serialized in connection.scalars(query)]


def newest_changes_and_warnings(connection: Connection, job_key: int, limit: int) -> list[Event]:
    """Return the newest state changes and warnings of a job, in order."""
    return [
        Event.FromString(serialized) for serialized in connection.scalars(_changes_and_warnings(job_key).limit(limit))
    ][::-1]


def current_jobs(connection: Connection, job_keys: Collection[int]) -> list[tuple[int, Job]]:
    """Return the jobs that still exist, with their keys, in order of arrival."""
    query = select(jobs.c.id, jobs.c.message).where(jobs.c.id.in_(list(job_keys)), _exists).order_by(jobs.c.id)
    return [(row.id, Job.FromString(row.message)) for row in connection.execute(query)]


def keys_by_id(connection: Connection, job_ids: Collection[str]) -> dict[str, int]:
    """Return the keys of the jobs that exist, by their IDs."""
    query = select(jobs.c.id, jobs.c.job_id).where(jobs.c.job_id.in_(list(job_ids)))
    return {row.job_id: row.id for row in connection.execute(query)}


def newest_key(connection: Connection) -> int:
    """Return the key of the newest job, or 0."""
    return connection.scalar(select(func.max(jobs.c.id))) or 0


def checkpoint_of(connection: Connection, job_key: int, epoch: int) -> Checkpoint:
    """Return the newest stored checkpoint of an epoch. The job must have one."""
    values = {"key": job_key, "epoch": epoch}
    return Event.FromString(connection.scalars(_CHECKPOINT, values).one()).checkpoint


def job_keys(connection: Connection) -> set[int]:
    """Return the keys of all jobs."""
    return set(connection.scalars(select(jobs.c.id).where(_exists)))


def _one_job(connection: Connection, query: Select[*tuple[object, ...]], **values: object) -> JobRecord | None:
    row = connection.execute(query, values).first()
    return None if row is None else _job_record(row)


def _job_record(row: Row[*tuple[object, ...]]) -> JobRecord:
    job = Job.FromString(row.message)
    counts = row.workers_lost, row.crashes, row.reported
    return JobRecord(row.id, row.job_id, bool(row.classification), *counts, job)


def _changing_values(record: JobRecord) -> dict[str, object]:
    return {
        "state": record.job.state,
        "workers_lost": record.workers_lost,
        "crashes": record.crashes,
        "reported": record.last_report,
        "message": record.job.SerializeToString(),
    }


def _event_values(job_key: int, event: Event) -> dict[str, object]:
    kind = event.WhichOneof("kind")
    epoch = getattr(event, kind).epoch if kind in ("epoch", "checkpoint") else None
    return {
        "job": job_key,
        "sequence": event.sequence,
        "kind": kind,
        "epoch": epoch,
        "message": event.SerializeToString(),
    }


def _changes_and_warnings(job_key: int) -> Select[bytes]:
    """Return the query for the state changes and warnings of a job, newest first."""
    # SQLite uses the index only if the query needs no columns outside the index.
    inner = events.alias()
    numbers = select(inner.c.sequence).where(inner.c.job == job_key, is_change_or_warning)
    query = select(events.c.message).where(events.c.job == job_key, events.c.sequence.in_(numbers))
    return query.order_by(events.c.sequence.desc())
