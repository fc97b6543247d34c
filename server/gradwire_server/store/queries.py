"""What is asked of the tables: functions of a connection, each one statement or two."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, Table, insert, select, update
from sqlalchemy import delete as delete_from

from gradwire_engine.spec.resolve import references
from gradwire_engine.spec.summary import TensorSummary
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, Job, JobState
from gradwire_server.api.list_requests import Clause, Page
from gradwire_server.store.tables import blob_store, events, jobs, models, summaries

TERMINAL = (JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED)


@dataclass
class JobRow:
    """A job as it is stored. `id` counts the jobs in order of arrival."""

    id: int
    job_id: str
    classification: bool
    workers_lost: int
    reported: int
    message: Job

    @property
    def ended(self) -> bool:
        """Whether the job is in a state that it never leaves."""
        return self.message.state in TERMINAL


def insert_job(connection: Connection, job: Job, job_id: str, request_id: str, classification: bool) -> JobRow:
    """Add a job and return its row."""
    values = {"job_id": job_id, "request_id": request_id or None, "state": job.state, "classification": classification}
    result = connection.execute(insert(jobs).values(**values, workers_lost=0, message=job.SerializeToString()))
    assert result.inserted_primary_key is not None
    return JobRow(result.inserted_primary_key[0], job_id, classification, 0, 0, job)


def save_job(connection: Connection, row: JobRow) -> None:
    """Store what has changed in a job."""
    values = {"state": row.message.state, "workers_lost": row.workers_lost, "reported": row.reported}
    connection.execute(
        update(jobs).where(jobs.c.id == row.id).values(**values, message=row.message.SerializeToString())
    )


def delete_job(connection: Connection, job: int) -> None:
    """Delete a job and its events."""
    connection.execute(delete_from(events).where(events.c.job == job))
    connection.execute(delete_from(jobs).where(jobs.c.id == job))


def was_paused(connection: Connection, job: int) -> bool:
    """Whether a job has ever been set aside."""
    changes = select(events.c.message).where(events.c.job == job, events.c.kind == "state_change")
    return any(
        Event.FromString(message).state_change.state == JobState.JOB_STATE_PAUSED
        for message in connection.scalars(changes)
    )


def find_job(connection: Connection, job_id: str) -> JobRow | None:
    """Return the job with that id, or None."""
    return _one_job(connection, select(jobs).where(jobs.c.job_id == job_id))


def find_number(connection: Connection, number: int) -> JobRow | None:
    """Return the job with that number, or None."""
    return _one_job(connection, select(jobs).where(jobs.c.id == number))


def job_to_change(connection: Connection, number: int) -> JobRow | None:
    """Return a job to be changed, or None where it has been deleted; other servers wait for this transaction."""
    return _one_job(connection, select(jobs).where(jobs.c.id == number).with_for_update())


def job_of_request(connection: Connection, request_id: str) -> JobRow | None:
    """Return the job that a request with this id has made, or None."""
    return _one_job(connection, select(jobs).where(jobs.c.request_id == request_id)) if request_id else None


def jobs_in_states(connection: Connection, states: Sequence[JobState], limit: int | None = None) -> list[JobRow]:
    """Return the jobs that are in one of the states, in order of arrival."""
    query = select(jobs).where(jobs.c.state.in_(states)).order_by(jobs.c.id).limit(limit)
    return [_job_row(row) for row in connection.execute(query)]


def list_jobs(connection: Connection, page: Page) -> tuple[list[Job], str]:
    """Return a page of jobs, and the token of the next page."""
    columns = {"state": jobs.c.state, "name": jobs.c.job_id}
    rows, token = _page(connection, jobs, columns, page)
    return [Job.FromString(row.message) for row in rows], token


def insert_events(connection: Connection, job: int, new: Sequence[Event]) -> None:
    """Append events, whose sequence numbers are set already."""
    if new:
        connection.execute(insert(events), [_event_values(job, event) for event in new])


def events_after(connection: Connection, job: int, sequence: int, limit: int) -> list[Event]:
    """Return the job's next events after a sequence number."""
    query = (
        select(events.c.message)
        .where(events.c.job == job, events.c.sequence > sequence)
        .order_by(events.c.sequence)
        .limit(limit)
    )
    return [Event.FromString(message) for message in connection.scalars(query)]


def epoch_event(connection: Connection, job: int, epoch: int) -> Event:
    """Return the event of an epoch that is known to be stored."""
    query = select(events.c.message).where(events.c.job == job, events.c.kind == "epoch", events.c.epoch == epoch)
    return Event.FromString(connection.scalars(query).one())


def last_checkpoint(connection: Connection, job: int) -> Checkpoint:
    """Return the newest checkpoint of a job that is known to have one."""
    query = (
        select(events.c.message)
        .where(events.c.job == job, events.c.kind == "checkpoint")
        .order_by(events.c.sequence.desc())
        .limit(1)
    )
    return Event.FromString(connection.scalars(query).one()).checkpoint


def insert_model(connection: Connection, model_id: str, model: Model) -> None:
    """Add a model."""
    connection.execute(insert(models).values(model_id=model_id, message=model.SerializeToString()))


def find_model(connection: Connection, model_id: str) -> Model | None:
    """Return the model with that id, or None."""
    message = connection.scalars(select(models.c.message).where(models.c.model_id == model_id)).first()
    return None if message is None else Model.FromString(message)


def list_models(connection: Connection, page: Page) -> tuple[list[Model], str]:
    """Return a page of models, and the token of the next page."""
    rows, token = _page(connection, models, {"name": models.c.model_id}, page)
    return [Model.FromString(row.message) for row in rows], token


def delete_model(connection: Connection, model_id: str) -> bool:
    """Delete a model; whether it was there."""
    return connection.execute(delete_from(models).where(models.c.model_id == model_id)).rowcount > 0


def find_summary(connection: Connection, tensor: str) -> TensorSummary | None:
    """Return what is remembered of a tensor, or None."""
    text = connection.scalars(select(summaries.c.summary).where(summaries.c.tensor == tensor)).first()
    return None if text is None else TensorSummary(**json.loads(text))


def save_summary(connection: Connection, tensor: str, summary: TensorSummary) -> None:
    """Remember what was found out of a tensor."""
    connection.execute(delete_from(summaries).where(summaries.c.tensor == tensor))
    connection.execute(insert(summaries).values(tensor=tensor, summary=json.dumps(asdict(summary))))


def blob_store_mark(connection: Connection, candidate: str) -> tuple[str, bool]:
    """Return the mark of the blob store that this database belongs to; and whether it may lie there not yet.

    candidate: the mark where there is none so far.
    """
    mark = connection.scalar(select(blob_store.c.mark))
    if mark is None:
        connection.execute(insert(blob_store).values(mark=candidate))
        return candidate, True
    return mark, connection.scalar(select(jobs.c.id).limit(1)) is None


def job_numbers(connection: Connection) -> set[int]:
    """Return the numbers of all jobs."""
    return set(connection.scalars(select(jobs.c.id)))


def named_tensors(connection: Connection) -> set[str]:
    """Return the digests of all tensors that a job or a model needs."""
    named = set()
    for message in connection.scalars(select(jobs.c.message).execution_options(yield_per=500)):
        named |= {reference.sha256 for reference in references(Job.FromString(message).spec).values()}
    for message in connection.scalars(select(models.c.message).execution_options(yield_per=500)):
        named.add(Model.FromString(message).weights.sha256)
    return named


def _one_job(connection: Connection, query: Select[*tuple[object, ...]]) -> JobRow | None:
    row = connection.execute(query).first()
    return None if row is None else _job_row(row)


def _job_row(row: Row[*tuple[object, ...]]) -> JobRow:
    message = Job.FromString(row.message)
    return JobRow(row.id, row.job_id, bool(row.classification), row.workers_lost, row.reported, message)


def _event_values(job: int, event: Event) -> dict[str, object]:
    kind = event.WhichOneof("kind")
    epoch = getattr(event, kind).epoch if kind in ("epoch", "checkpoint") else None
    message = event.SerializeToString()
    return {"job": job, "sequence": event.sequence, "kind": kind, "epoch": epoch, "message": message}


def _page(
    connection: Connection, table: Table, columns: dict[str, Column[object]], page: Page
) -> tuple[Sequence[Row[*tuple[object, ...]]], str]:
    query = select(table).order_by(table.c.id.desc() if page.newest_first else table.c.id).limit(page.size + 1)
    if page.after:
        query = query.where(table.c.id < page.after if page.newest_first else table.c.id > page.after)
    for clause in page.clauses:
        query = query.where(_condition(columns, clause))
    rows = connection.execute(query).all()
    token = page.token_after(rows[page.size - 1].id) if len(rows) > page.size else ""
    return rows[: page.size], token


def _condition(columns: dict[str, Column[object]], clause: Clause) -> ColumnElement[bool]:
    column = columns[clause.field]
    if clause.operator == ":":
        return column.contains(clause.value, autoescape=True)
    return column == clause.value if clause.operator == "=" else column != clause.value
