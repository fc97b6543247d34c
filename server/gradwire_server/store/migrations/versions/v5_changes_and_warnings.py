"""An index of the state changes and warnings of a job."""

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    condition = sa.text("kind IN ('state_change', 'warning')")
    columns = ["job", "kind", "sequence"]
    op.create_index("state_changes_and_warnings", "events", columns, sqlite_where=condition, postgresql_where=condition)
