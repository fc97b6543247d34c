"""Queries for tensors and the mark of the blob store. Each query is a function that takes a connection."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, func, insert, select
from sqlalchemy import delete as delete_from

from gradwire_engine.spec.resolve import references
from gradwire_engine.spec.summary import TensorSummary
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.store.tables import blob_store, jobs, models, summaries


def find_summary(connection: Connection, tensor: str) -> TensorSummary | None:
    """Return the stored summary of a tensor, or None."""
    text = connection.scalars(select(summaries.c.summary).where(summaries.c.tensor == tensor)).first()
    return None if text is None else TensorSummary(**json.loads(text))


def save_summary(connection: Connection, tensor: str, summary: TensorSummary) -> None:
    """Store the summary of a tensor."""
    connection.execute(delete_from(summaries).where(summaries.c.tensor == tensor))
    connection.execute(insert(summaries).values(tensor=tensor, summary=json.dumps(asdict(summary))))


def blob_store_mark(connection: Connection, candidate: str) -> tuple[str, bool]:
    """Return the ID that this database shares with its blob store, and whether the blob store might still lack it.

    Args:
        connection: A connection in a transaction.
        candidate: The mark to store if there is no mark.
    """
    mark = connection.scalar(select(blob_store.c.mark))
    if mark is None:
        connection.execute(insert(blob_store).values(mark=candidate))
        return candidate, True
    return mark, connection.scalar(select(jobs.c.id).limit(1)) is None


def referenced_tensors(connection: Connection) -> set[str]:
    """Return the digests of all tensors that a job or a model references."""
    return {sha256 for owner in _owners(connection, LastOwner(0, 0)) for sha256 in owner.tensors}


@dataclass(frozen=True)
class LastOwner:
    """The keys of the newest job and the newest model."""

    job: int
    model: int


def last_owner(connection: Connection) -> LastOwner:
    """Return the keys of the newest job and the newest model."""
    newest = [connection.scalar(select(func.max(table.c.id))) or 0 for table in (jobs, models)]
    return LastOwner(*newest)


def owner_of(connection: Connection, sha256: str, after: LastOwner) -> str | None:
    """Return the name of a job or a model that references a tensor, or None.

    Args:
        connection: A connection.
        sha256: The digest of the tensor.
        after: Only jobs and models that are newer than these are considered.
    """
    return next((owner.name for owner in _owners(connection, after) if sha256 in owner.tensors), None)


def lock_tensors(connection: Connection, *, to_delete: bool) -> None:
    """Wait until no other transaction deletes tensors and, before a deletion, until none creates a job.

    In a SQLite file, writes are always executed one after another.
    """
    connection.execute(select(blob_store.c.mark).with_for_update(read=not to_delete))


@dataclass(frozen=True)
class _Owner:
    """A job or a model, and the tensors that it references."""

    name: str
    tensors: set[str]


def _owners(connection: Connection, after: LastOwner) -> Iterator[_Owner]:
    newer = select(jobs.c.message).where(jobs.c.id > after.job)
    for serialized in connection.scalars(newer.execution_options(yield_per=500)):
        job = Job.FromString(serialized)
        yield _Owner(job.name, {reference.sha256 for reference in references(job.spec).values()})
    newer = select(models.c.message).where(models.c.id > after.model)
    for serialized in connection.scalars(newer.execution_options(yield_per=500)):
        model = Model.FromString(serialized)
        yield _Owner(model.name, {model.weights.sha256})
