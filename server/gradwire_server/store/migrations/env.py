"""The script that Alembic runs. It applies revisions to the configured connection in one transaction."""

from alembic import context

from gradwire_server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite also changes tables within the transaction, because the store begins transactions explicitly.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
