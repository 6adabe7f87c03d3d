"""An index that finds conversations; drop the keys' change time.

Revision: 0005_lookups. Forward only: to go back, restore a backup.
"""

from alembic import op

revision = "0005_lookups"
down_revision = "0004_endpoints"


def upgrade() -> None:
    op.drop_index("ix_interactions_namespace_prefix_hash", "interactions")
    op.create_index(
        "ix_interactions_course",
        "interactions",
        ["namespace", "prefix_hash", "principal", "created_at"],
    )
    op.drop_index("ix_api_keys_changed_at", "api_keys")
    with op.batch_alter_table("api_keys") as keys:
        keys.drop_column("changed_at")
