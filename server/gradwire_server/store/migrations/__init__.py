"""The Alembic revisions, one for each change to the tables. Alembic applies those that a database lacks."""
