"""Queries for tensors and the mark of the blob store. Each query is a function that takes a connection."""

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict

from sqlalchemy import Connection, Table, bindparam, func, insert, select
from sqlalchemy import delete as delete_from

from gradwire_engine.spec.summary import TensorSummary
from gradwire_server.store.tables import blob_store, job_tensors, jobs, model_tensors, models, summaries

_of_tensors = summaries.c.tensor.in_(bindparam("tensors", expanding=True))
_SUMMARIES = select(summaries).where(_of_tensors)
_COUNT_SUMMARIES = select(func.count()).select_from(summaries).where(_of_tensors)
_INSERT_REFERENCES = {table: insert(table) for table in (job_tensors, model_tensors)}


def find_summaries(connection: Connection, tensors: Collection[str]) -> dict[str, TensorSummary]:
    """Return the stored summaries of these tensors."""
    rows = connection.execute(_SUMMARIES, {"tensors": list(tensors)})
    return {row.tensor: TensorSummary(**json.loads(row.summary)) for row in rows}


def has_summaries(connection: Connection, tensors: Collection[str]) -> bool:
    """Return whether the summaries of all these tensors are stored."""
    return connection.scalar(_COUNT_SUMMARIES, {"tensors": list(tensors)}) == len(tensors)


def delete_summaries(connection: Connection, sha256: str) -> None:
    """Delete the summaries of a tensor that is deleted."""
    connection.execute(delete_from(summaries).where(summaries.c.tensor.like(f"{sha256}:%")))


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


def insert_references(connection: Connection, table: Table, owner: int, digests: Iterable[str]) -> None:
    """Store the tensors that a new job or model references.

    Args:
        connection: A connection in a transaction.
        table: `job_tensors` or `model_tensors`.
        owner: The key of the job or the model.
        digests: The digests of the tensors.
    """
    rows = [{"owner": owner, "sha256": sha256} for sha256 in sorted(set(digests))]
    if rows:
        connection.execute(_INSERT_REFERENCES[table], rows)


def referenced_tensors(connection: Connection) -> set[str]:
    """Return the digests of all tensors that a job or a model references."""
    return set(connection.scalars(select(job_tensors.c.sha256).union(select(model_tensors.c.sha256))))


def referenced_among(connection: Connection, digests: Collection[str]) -> set[str]:
    """Return the digests that a job or a model references."""
    of_jobs, of_models = (
        select(table.c.sha256).where(table.c.sha256.in_(list(digests))) for table in (job_tensors, model_tensors)
    )
    return set(connection.scalars(of_jobs.union(of_models)))


def owner_of(connection: Connection, sha256: str) -> str | None:
    """Return the name of a job or a model that references a tensor, or None."""
    job_id = connection.scalar(select(jobs.c.job_id).join(job_tensors).where(job_tensors.c.sha256 == sha256).limit(1))
    if job_id is not None:
        return f"jobs/{job_id}"
    model_id = connection.scalar(
        select(models.c.model_id).join(model_tensors).where(model_tensors.c.sha256 == sha256).limit(1)
    )
    return None if model_id is None else f"models/{model_id}"


def lock_tensors(connection: Connection, *, to_delete: bool) -> None:
    """Wait until no other transaction deletes tensors and, before a deletion, until none creates a job.

    In a SQLite file, writes are always executed one after another.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(select(blob_store.c.mark).with_for_update(read=not to_delete))
