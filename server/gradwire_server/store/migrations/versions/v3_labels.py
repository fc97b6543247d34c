"""The tables for searching the labels of jobs and models."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    for name, owners in (("job_labels", "jobs"), ("model_labels", "models")):
        op.create_table(
            name,
            sa.Column("owner", sa.Integer, sa.ForeignKey(f"{owners}.id"), primary_key=True),
            sa.Column("key", sa.String(63), primary_key=True),
            sa.Column("value", sa.String(63), nullable=False),
        )
        op.create_index(f"{name}_by_key_and_value", name, ["key", "value"])
