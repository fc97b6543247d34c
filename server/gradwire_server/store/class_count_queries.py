"""Queries for class counts. Each query is a function that takes a connection and runs a few statements."""

from collections.abc import Collection

from sqlalchemy import Connection, Select, insert, select
from sqlalchemy import delete as delete_from

from gradwire_proto.v1.metrics_pb2 import ClassCounts
from gradwire_server.store.tables import job_class_counts, jobs, model_class_counts, models


def put(connection: Connection, job_key: int, counts: ClassCounts) -> None:
    """Store the class counts of a kept epoch of a job. They replace those of an earlier attempt."""
    delete(connection, job_key, [counts.epoch])
    values = {"owner": job_key, "epoch": counts.epoch, "message": counts.SerializeToString()}
    connection.execute(insert(job_class_counts).values(**values))


def delete(connection: Connection, job_key: int, epochs: Collection[int]) -> None:
    """Delete the class counts of epochs that a job no longer keeps."""
    chosen = (job_class_counts.c.owner == job_key, job_class_counts.c.epoch.in_(list(epochs)))
    connection.execute(delete_from(job_class_counts).where(*chosen))


def copy_to_model(connection: Connection, job_key: int, job_id: str, epoch: int) -> None:
    """Copy the class counts of an epoch of a job, if there are any, to the model with the same ID."""
    query = (
        select(models.c.id, job_class_counts.c.epoch, job_class_counts.c.message)
        .join(job_class_counts, job_class_counts.c.owner == job_key)
        .where(models.c.model_id == job_id, job_class_counts.c.epoch == epoch)
    )
    connection.execute(insert(model_class_counts).from_select(["owner", "epoch", "message"], query))


def find_of_job(connection: Connection, job_id: str, epoch: int) -> ClassCounts | None:
    """Return the class counts of an epoch of a job, or None."""
    query = (
        select(job_class_counts.c.message).join(jobs).where(jobs.c.job_id == job_id, job_class_counts.c.epoch == epoch)
    )
    return _one(connection, query)


def find_of_model(connection: Connection, model_id: str) -> ClassCounts | None:
    """Return the class counts of a model, or None."""
    return _one(connection, select(model_class_counts.c.message).join(models).where(models.c.model_id == model_id))


def _one(connection: Connection, query: Select[bytes]) -> ClassCounts | None:
    serialized = connection.scalars(query).first()
    return None if serialized is None else ClassCounts.FromString(serialized)
