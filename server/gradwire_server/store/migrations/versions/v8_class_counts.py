"""The tables of the class counts of kept epochs and models."""

import sqlalchemy as sa
from alembic import op

revision = "8"
down_revision = "7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables. Older jobs and models have no class counts."""
    for name, owners in (("job_class_counts", "jobs"), ("model_class_counts", "models")):
        op.create_table(
            name,
            sa.Column("owner", sa.Integer, sa.ForeignKey(f"{owners}.id"), primary_key=True),
            sa.Column("epoch", sa.Integer, primary_key=True),
            sa.Column("message", sa.LargeBinary, nullable=False),
        )
