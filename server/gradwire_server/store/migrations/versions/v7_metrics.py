"""The metrics of the last epoch of each job, for filters."""

import math
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.training_service_pb2 import Job

revision = "7"
down_revision = "6"
branch_labels = None
depends_on = None

_SETS = ("train", "test")
_METRICS = ("loss", "accuracy", "precision", "recall", "f1", "mean_absolute_error", "r2")
_COLUMNS = ("running_loss", *(f"{which}_{metric}" for which in _SETS for metric in _METRICS))
# The number of jobs whose messages are in memory at a time. A message has at most a few hundred kB.
_BATCH = 50


def upgrade() -> None:
    """Add the columns, and fill them from the stored jobs."""
    for name in _COLUMNS:
        op.add_column("jobs", sa.Column(name, sa.Float(53)))
    table = sa.table("jobs", sa.column("id"), *map(sa.column, _COLUMNS))
    fill = sa.update(table).where(table.c.id == sa.bindparam("key"))
    fill = fill.values({name: sa.bindparam(f"new_{name}") for name in _COLUMNS})
    for jobs in _batches():
        rows = [{"key": key, **_values(job.last_epoch)} for key, job in jobs if job.HasField("last_epoch")]
        if rows:
            op.get_bind().execute(fill, rows)


def _batches() -> Iterator[list[tuple[int, Job]]]:
    """Yield the jobs, with their keys."""
    table = sa.table("jobs", sa.column("id"), sa.column("message", sa.LargeBinary))
    query = sa.select(table).order_by(table.c.id).limit(_BATCH)
    last = 0
    while found := op.get_bind().execute(query.where(table.c.id > last)).all():
        yield [(row.id, Job.FromString(row.message)) for row in found]
        last = found[-1].id


def _values(epoch: Epoch) -> dict[str, float | None]:
    values = {"running_loss": epoch.running_loss}
    for which in _SETS:
        if epoch.HasField(which):
            metrics = getattr(epoch, which)
            values[f"{which}_loss"] = metrics.loss
            values |= {f"{which}_{name}": getattr(metrics, name) for name in _METRICS[1:] if metrics.HasField(name)}
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    return {f"new_{name}": known.get(name) for name in _COLUMNS}
