"""The entries of a conversation and the stage of a run, under these names.

Revision: 0010_words. Forward only: to go back, restore a backup.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010_words"
down_revision = "0009_statements"

runs = sa.table("runs", sa.column("id"), sa.column("progress", sa.JSON()))


def upgrade() -> None:
    # The condition of the index on unread conversations is renamed with the columns.
    op.execute("ALTER TABLE conversations RENAME COLUMN signals TO entries")
    op.execute("ALTER TABLE conversations RENAME COLUMN signals_read TO entries_read")
    connection = op.get_bind()
    for run, progress in connection.execute(sa.select(runs)).all():
        if "phase" in progress:
            stage = {"stage": progress.pop("phase")}
            connection.execute(
                sa.update(runs).where(runs.c.id == run).values(progress=stage | progress)
            )
