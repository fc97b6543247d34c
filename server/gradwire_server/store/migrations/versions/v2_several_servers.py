"""The lease of the scheduling server and the mark of the blob store."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and drop the table that contained the revision before gradwire used Alembic."""
    op.create_table(
        "lease",
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("expires", sa.Float(53), nullable=False),
    )
    op.execute("INSERT INTO lease (token, holder, expires) VALUES (0, '', 0)")
    op.create_table("blob_store", sa.Column("mark", sa.String, nullable=False))
    op.execute("DROP TABLE IF EXISTS schema")
