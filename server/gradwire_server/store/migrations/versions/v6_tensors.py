"""The tables of the tensors that jobs and models reference."""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from gradwire_engine.spec.resolve import references
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.training_service_pb2 import Job

revision = "6"
down_revision = "5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and fill them from the stored jobs and models."""
    for name, owners, find in (("job_tensors", "jobs", _of_job), ("model_tensors", "models", _of_model)):
        table = op.create_table(
            name,
            sa.Column("owner", sa.Integer, sa.ForeignKey(f"{owners}.id"), primary_key=True),
            sa.Column("sha256", sa.String(64), primary_key=True),
        )
        op.create_index(f"{name}_by_sha256", name, ["sha256"])
        for owner, message in _messages(owners):
            op.bulk_insert(table, [{"owner": owner, "sha256": sha256} for sha256 in sorted(find(message))])


def _messages(owners: str) -> Iterator[tuple[int, bytes]]:
    """Yield the key and the message of each row. Only one message is in memory at a time."""
    connection = op.get_bind()
    table = sa.table(owners, sa.column("id"), sa.column("message", sa.LargeBinary))
    for key in connection.scalars(sa.select(table.c.id).order_by(table.c.id)).all():
        yield key, connection.scalars(sa.select(table.c.message).where(table.c.id == key)).one()


def _of_job(message: bytes) -> set[str]:
    return {reference.sha256 for reference in references(Job.FromString(message).spec).values()}


def _of_model(message: bytes) -> set[str]:
    return {Model.FromString(message).weights.sha256}
