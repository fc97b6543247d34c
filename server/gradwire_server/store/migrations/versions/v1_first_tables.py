"""Jobs, their events, models, and summaries of tensors."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(63), nullable=False, unique=True),
        sa.Column("request_id", sa.String(128), unique=True),
        sa.Column("state", sa.Integer, nullable=False, index=True),
        sa.Column("classification", sa.Integer, nullable=False),
        sa.Column("workers_lost", sa.Integer, nullable=False),
        sa.Column("reported", sa.BigInteger, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "events",
        sa.Column("job", sa.Integer, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("epoch", sa.Integer),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    is_epoch = sa.text("kind = 'epoch'")
    op.create_index(
        "one_event_per_epoch",
        "events",
        ["job", "epoch"],
        unique=True,
        sqlite_where=is_epoch,
        postgresql_where=is_epoch,
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model_id", sa.String(63), nullable=False, unique=True),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "summaries",
        sa.Column("tensor", sa.String, primary_key=True),
        sa.Column("summary", sa.String, nullable=False),
    )
