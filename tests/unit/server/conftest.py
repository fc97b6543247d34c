"""Fixtures that tests of the server's parts share."""

import pytest

from gradwire_server.store.database import Database


@pytest.fixture
def database(tmp_path):
    opened = Database(tmp_path / "gradwire.db")
    yield opened
    opened.close()
