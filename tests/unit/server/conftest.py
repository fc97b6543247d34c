"""Fixtures for the tests of the server components."""

import asyncio

import pytest
from server_parts import open_jobs

from gradwire_server.scheduling.lease import Lease
from gradwire_server.store.database import Database


@pytest.fixture
def database(tmp_path):
    opened = Database(tmp_path / "gradwire.db")
    yield opened
    opened.close()


@pytest.fixture
def jobs(database):
    lease = Lease(database)
    assert asyncio.run(lease.try_acquire())
    return open_jobs(database, lease)
