"""The Alembic revisions, one for each change to the tables. Alembic applies the missing revisions to a database."""
