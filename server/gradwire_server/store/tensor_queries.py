"""Queries for tensors and the mark of the blob store. Each query is a function that takes a connection."""

import json
from dataclasses import asdict

from sqlalchemy import Connection, insert, select
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
    """Return the mark of this database's blob store, and whether the blob store may not contain the mark yet.

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
    referenced = set()
    for serialized in connection.scalars(select(jobs.c.message).execution_options(yield_per=500)):
        referenced |= {reference.sha256 for reference in references(Job.FromString(serialized).spec).values()}
    for serialized in connection.scalars(select(models.c.message).execution_options(yield_per=500)):
        referenced.add(Model.FromString(serialized).weights.sha256)
    return referenced
