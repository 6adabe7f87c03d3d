"""Adapters' folders relative to the data folder, so that the data folder can be moved.

A folder that does not lie where a data folder has it keeps its absolute path.
Revision: 0007_relative_paths. Forward only: to go back, restore a backup.
"""

from pathlib import PurePosixPath

import sqlalchemy as sa
from alembic import op

revision = "0007_relative_paths"
down_revision = "0006_auxiliary"

adapters = sa.table("adapters", sa.column("name"), sa.column("namespace"), sa.column("path"))


def upgrade() -> None:
    connection = op.get_bind()
    for name, namespace, path in connection.execute(sa.select(adapters)).all():
        # Under whichever mount it was written: every data folder has its adapters here.
        relative = PurePosixPath("adapters", namespace, name)
        if PurePosixPath(path).parts[-len(relative.parts) :] == relative.parts:
            connection.execute(
                sa.update(adapters).where(adapters.c.name == name).values(path=str(relative))
            )
