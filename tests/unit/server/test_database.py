"""Grouped writes and their durability."""

import asyncio
import contextlib
import sqlite3

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from gradwire_server.store.database import Database
from gradwire_server.store.tables import summaries


def add(key):
    def work(connection):
        connection.execute(insert(summaries).values(tensor=key, summary=""))
        return key

    return work


def count(connection):
    return connection.scalar(select(func.count()).select_from(summaries))


def test_the_result_of_a_write_is_returned_after_its_commit(database, tmp_path):
    async def scenario():
        for number in range(20):
            await database.write(add(f"key-{number}"))
            with contextlib.closing(sqlite3.connect(tmp_path / "gradwire.db")) as other:
                assert other.execute("SELECT count(*) FROM summaries").fetchone() == (number + 1,)

    asyncio.run(scenario())


def test_a_write_that_fails_does_not_affect_the_others_in_its_group(database):
    async def scenario():
        return await asyncio.gather(*(database.write(add(key)) for key in ("a", "b", "a", "c")), return_exceptions=True)

    results = asyncio.run(scenario())
    assert [result if isinstance(result, str) else type(result).__name__ for result in results] == [
        "a",
        "b",
        "IntegrityError",
        "c",
    ]
    assert asyncio.run(database.read(count)) == 3


def test_a_file_that_is_reopened_contains_the_written_data(tmp_path):
    first = Database(tmp_path / "x.db")
    asyncio.run(first.write(add("kept")))
    first.close()
    second = Database(tmp_path / "x.db")
    assert asyncio.run(second.read(count)) == 1
    second.close()


def test_a_single_write_that_fails_changes_nothing_and_the_next_one_succeeds(database):
    def fails_halfway(connection):
        add("half")(connection)
        raise ValueError("no")

    async def scenario():
        with pytest.raises(ValueError, match="no"):
            await database.write(fails_halfway)
        assert await database.read(count) == 0
        await database.write(add("a"))
        with pytest.raises(IntegrityError):
            await database.write(add("a"))
        await database.write(add("b"))
        assert await database.read(count) == 2

    asyncio.run(scenario())
