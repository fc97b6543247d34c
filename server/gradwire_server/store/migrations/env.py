"""Run by Alembic: applies revisions to the database of the configured connection, in one transaction."""

from alembic import context

from gradwire_server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite changes tables in a transaction too, because the store begins transactions itself.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
