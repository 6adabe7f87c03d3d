"""An alias without a revision and a time of its last change, which nothing read.

Revision: 0008_alias. Forward only: to go back, restore a backup.
"""

from alembic import op

revision = "0008_alias"
down_revision = "0007_relative_paths"


def upgrade() -> None:
    with op.batch_alter_table("aliases") as aliases:
        aliases.drop_column("revision")
        aliases.drop_column("updated_at")
