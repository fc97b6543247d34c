"""The tables. A row contains a serialized protobuf message, and separate columns for the values that queries use.

Each change to the tables needs a revision in `migrations`. A test compares the tables with the revisions.
"""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, text

from gradwire_server.store.job_metrics import METRIC_COLUMNS

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    # The job key. Keys increase in order of arrival.
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(63), nullable=False, unique=True),
    Column("request_id", String(128), unique=True),
    # A gradwire.v1.JobState. 0 means that the job was deleted, but some of its events are still stored.
    Column("state", Integer, nullable=False, index=True),
    # Whether epochs report classification metrics.
    Column("classification", Integer, nullable=False),
    # The number of workers that died in a row without a new epoch in between.
    Column("workers_lost", Integer, nullable=False, default=0),
    # The number of server crashes in a row during which the job was running, without a new epoch in between.
    Column("crashes", Integer, nullable=False, default=0, server_default="0"),
    # The sequence number of the last stored report of the current attempt. A server that takes over continues after it.
    Column("reported", BigInteger, nullable=False, default=0),
    # A gradwire.v1.Job.
    Column("message", LargeBinary, nullable=False),
    # The metrics of the last epoch. NULL stands for NaN, too.
    *(Column(name, Float(53)) for name in METRIC_COLUMNS.values()),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("job", Integer, ForeignKey("jobs.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    # The name of the event's kind and, for an epoch or a checkpoint, the number of the epoch.
    Column("kind", String(16), nullable=False),
    Column("epoch", Integer),
    # A gradwire.v1.Event.
    Column("message", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
# A job has at most one event for each epoch.
_is_epoch = events.c.kind == "epoch"
Index(
    "one_event_per_epoch",
    events.c.job,
    events.c.epoch,
    unique=True,
    sqlite_where=_is_epoch,
    postgresql_where=_is_epoch,
)

# State changes and warnings, of which there are few even if a job has many epochs. The statements that use the index
# contain this condition.
is_change_or_warning = text("kind IN ('state_change', 'warning')")
Index(
    "state_changes_and_warnings",
    events.c.job,
    events.c.kind,
    events.c.sequence,
    sqlite_where=is_change_or_warning,
    postgresql_where=is_change_or_warning,
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model_id", String(63), nullable=False, unique=True),
    # A gradwire.v1.Model.
    Column("message", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)


def _labels(name: str, owners: Table) -> Table:
    return Table(
        name,
        metadata,
        Column("owner", Integer, ForeignKey(owners.c.id), primary_key=True),
        Column("key", String(63), primary_key=True),
        Column("value", String(63), nullable=False),
        Index(f"{name}_by_key_and_value", "key", "value"),
    )


job_labels = _labels("job_labels", jobs)
model_labels = _labels("model_labels", models)


def _tensors(name: str, owners: Table) -> Table:
    return Table(
        name,
        metadata,
        Column("owner", Integer, ForeignKey(owners.c.id), primary_key=True),
        Column("sha256", String(64), primary_key=True),
        Index(f"{name}_by_sha256", "sha256"),
    )


# The tensors that each job and each model references.
job_tensors = _tensors("job_tensors", jobs)
model_tensors = _tensors("model_tensors", models)


def _class_counts(name: str, owners: Table) -> Table:
    return Table(
        name,
        metadata,
        Column("owner", Integer, ForeignKey(owners.c.id), primary_key=True),
        Column("epoch", Integer, primary_key=True),
        # A gradwire.v1.ClassCounts without class names.
        Column("message", LargeBinary, nullable=False),
    )


# The class counts of the kept epochs of each job, and of each model.
job_class_counts = _class_counts("job_class_counts", jobs)
model_class_counts = _class_counts("model_class_counts", models)

# Summaries of tensors that validation has computed; see gradwire_engine.spec.summary.
summaries = Table(
    "summaries",
    metadata,
    # A key that consists of sha256, dtype and shape.
    Column("tensor", String, primary_key=True),
    Column("summary", String, nullable=False),
)

# A table with one row, the lease of the scheduling server.
lease = Table(
    "lease",
    metadata,
    # The fencing token. It increases with each new holder, and writes with an older token are rejected.
    Column("token", BigInteger, nullable=False),
    Column("holder", String, nullable=False),
    # The expiry time in seconds since 1970, on the clock of the database. 0 means that no server holds the lease.
    Column("expires", Float(53), nullable=False),
    # Whether the last holder shut down cleanly. If not, it crashed or is still running.
    Column("orderly", Integer, nullable=False, server_default="1"),
)

# A table with at most one row, the mark of the blob store that belongs to this database. The blob store contains the
# same mark.
blob_store = Table("blob_store", metadata, Column("mark", String, nullable=False))
