"""Run migrations on the connection that `store.upgrade.run_migrations` passes in."""

from alembic import context

from store import adapter_tables, models, operations  # noqa: F401 — registers their tables
from store.schema import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by rebuilding it
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
