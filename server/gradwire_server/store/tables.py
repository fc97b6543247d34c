"""The tables. A row holds the message itself, and beside it the columns that are searched by.

A change here needs a step in `migrations`; a test holds the two against each other.
"""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    # In order of arrival.
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(63), nullable=False, unique=True),
    Column("request_id", String(128), unique=True),
    Column("state", Integer, nullable=False, index=True),
    # What the scheduler and the workers need beside the message.
    Column("classification", Integer, nullable=False),
    Column("workers_lost", Integer, nullable=False, default=0),
    # The last report of the running attempt's worker that is stored; a server that comes back asks for those after it.
    Column("reported", BigInteger, nullable=False, default=0),
    # A gradwire.v1.Job.
    Column("message", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("job", Integer, ForeignKey("jobs.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    # The name of the kind in Event.kind, and for an epoch or a checkpoint its number.
    Column("kind", String(16), nullable=False),
    Column("epoch", Integer),
    # A gradwire.v1.Event.
    Column("message", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
# No epoch of a job is ever there twice.
_is_epoch = events.c.kind == "epoch"
Index(
    "one_event_per_epoch",
    events.c.job,
    events.c.epoch,
    unique=True,
    sqlite_where=_is_epoch,
    postgresql_where=_is_epoch,
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

# What validation has found out about the elements of a tensor; see gradwire_engine.spec.summary.
summaries = Table(
    "summaries",
    metadata,
    # sha256, dtype and shape.
    Column("tensor", String, primary_key=True),
    Column("summary", String, nullable=False),
)

# One row: the server that schedules.
lease = Table(
    "lease",
    metadata,
    # Grows by one with each server that takes the lease: what was written under an older one is refused.
    Column("token", BigInteger, nullable=False),
    Column("holder", String, nullable=False),
    # Seconds since 1970 by the database's clock; 0: nobody holds it.
    Column("expires", Float(53), nullable=False),
)

# One row, or none yet: the mark that lies in the blob store to which this database belongs.
blob_store = Table("blob_store", metadata, Column("mark", String, nullable=False))
