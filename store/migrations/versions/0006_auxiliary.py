"""The arm `live`, and auxiliary requests under that name.

Revision: 0006_auxiliary. Forward only: to go back, restore a backup.
"""

from alembic import op

revision = "0006_auxiliary"
down_revision = "0005_lookups"


def upgrade() -> None:
    op.execute("UPDATE interactions SET arm = 'live' WHERE arm = 'champion'")
    # Renames in place, where Alembic would rebuild the table in SQLite.
    op.execute("ALTER TABLE interactions RENAME COLUMN side TO auxiliary")
