"""The number of server crashes during a job, and whether the last lease holder ended in an orderly way."""

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("jobs", sa.Column("crashes", sa.Integer, nullable=False, server_default="0"))
    op.add_column("lease", sa.Column("orderly", sa.Integer, nullable=False, server_default="1"))
