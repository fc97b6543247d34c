"""The revisions that migrate a database to the current schema."""

import asyncio
import math
import sqlite3

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text

from gradwire_proto.v1.metrics_pb2 import Epoch, Metrics
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.store import tensor_queries
from gradwire_server.store.database import Database
from gradwire_server.store.dialects import StoreError, open_engine
from gradwire_server.store.job_metrics import METRIC_COLUMNS, metric_values
from gradwire_server.store.migrate import alembic_config, migrate
from gradwire_server.store.tables import jobs, metadata


def differences(connection):
    return compare_metadata(MigrationContext.configure(connection), metadata)


def test_the_revisions_create_the_tables(tmp_path):
    with open_engine(tmp_path / "db").connect() as connection:
        migrate(connection, "db")
        assert differences(connection) == []
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
        connection.rollback()
        migrate(connection, "db")  # The database is already migrated.


def test_a_store_from_before_alembic_keeps_its_jobs(tmp_path):
    with open_engine(tmp_path / "db").connect() as connection:
        with connection.begin():
            command.upgrade(alembic_config(connection), "1")
            connection.execute(text("DROP TABLE alembic_version"))
            connection.execute(text("CREATE TABLE schema (version INTEGER NOT NULL)"))
            connection.execute(text("INSERT INTO schema VALUES (1)"))
            connection.execute(text("INSERT INTO jobs VALUES (7, 'old', NULL, 5, 1, 0, 0, x'')"))
        migrate(connection, "db")
        assert differences(connection) == []
        assert connection.execute(text("SELECT id, job_id FROM jobs")).all() == [(7, "old")]


def test_the_tensors_of_jobs_and_models_from_before_their_tables_stay_referenced(tmp_path):
    spec = JobSpec(train=Dataset(inputs=TensorRef(sha256="in"), targets=TensorRef(sha256="out")))
    job = Job(name="jobs/old", spec=spec).SerializeToString()
    model = Model(name="models/old", weights=TensorRef(sha256="weights")).SerializeToString()
    with open_engine(tmp_path / "db").connect() as connection:
        with connection.begin():
            command.upgrade(alembic_config(connection), "5")
            values = "(id, job_id, state, classification, workers_lost, reported, message)"
            connection.execute(text(f"INSERT INTO jobs {values} VALUES (7, 'old', 5, 1, 0, 0, :job)"), {"job": job})
            connection.execute(text("INSERT INTO models VALUES (3, 'old', :model)"), {"model": model})
        migrate(connection, "db")
        assert differences(connection) == []
        assert tensor_queries.referenced_tensors(connection) == {"in", "out", "weights"}
        assert tensor_queries.owner_of(connection, "out") == "jobs/old"
        assert tensor_queries.owner_of(connection, "weights") == "models/old"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_last_epochs_of_jobs_from_before_the_columns_are_filled_in(tmp_path, request, kind):
    """There are more jobs than a batch has, and some have no epoch or were deleted."""
    epoch = Epoch(epoch=3, running_loss=math.nan, train=Metrics(loss=0.0, accuracy=0.5), test=Metrics(loss=math.inf))
    location = request.getfixturevalue("postgres").create("metrics") if kind == "postgres" else tmp_path / "db"
    stored = {key: Job(last_epoch=epoch if key % 3 else None) for key in range(1, 121) if key != 50}
    with open_engine(location).connect() as connection:
        with connection.begin():
            command.upgrade(alembic_config(connection), "6")
            values = "(id, job_id, state, classification, workers_lost, reported, message)"
            connection.execute(
                text(f"INSERT INTO jobs {values} VALUES (:key, :name, 5, 1, 0, 0, :job)"),
                [
                    {"key": key, "name": str(key), "job": b"" if key == 7 else job.SerializeToString()}
                    for key, job in stored.items()
                ],
            )
        migrate(connection, "db")
        assert differences(connection) == []
        rows = connection.execute(select(jobs).order_by(jobs.c.id)).mappings().all()
    filled = [row for row in rows if row["train_loss"] is not None]
    assert [row["id"] for row in filled] == [key for key in stored if key % 3 and key != 7]
    for row in filled:
        assert {column: row[column] for column in METRIC_COLUMNS.values()} == metric_values(epoch)
        assert (row["train_loss"], row["train_accuracy"], row["test_loss"]) == (0.0, 0.5, math.inf)
        assert row["running_loss"] is row["test_accuracy"] is None


def test_a_revision_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "db"
    with sqlite3.connect(path) as connection:
        # This table conflicts with the second revision.
        connection.execute("CREATE TABLE blob_store (something TEXT)")
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be used as the store: table blob_store already exists"):
            Database(path)
    with sqlite3.connect(path) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["blob_store"]


def test_a_new_store_can_be_written(tmp_path):
    database = Database(tmp_path / "db")
    assert asyncio.run(database.write(lambda connection: connection.scalar(text("SELECT token FROM lease")))) == 0
    database.close()
