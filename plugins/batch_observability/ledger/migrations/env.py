"""What Alembic runs to apply revisions: on the connection that it is handed, in the transaction that this is in."""

from __future__ import annotations

from alembic import context

from batch_observability.ledger.tables import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables().metadata,
    # Alembic takes SQLite for a database that cannot create tables in a transaction. Ours is begun explicitly: it can.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
