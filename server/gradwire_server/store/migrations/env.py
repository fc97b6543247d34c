"""Run by Alembic: takes the database of the connection that it is given through the steps, in one transaction."""

from alembic import context

from gradwire_server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite's tables can be changed in a transaction too, as this store opens them.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
