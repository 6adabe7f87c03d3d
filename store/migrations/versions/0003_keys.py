"""Keys with limits, and principals that act in every namespace.

Revision: 0003_keys. Forward only: to go back, restore a backup.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003_keys"
down_revision = "0002_recording"


def upgrade() -> None:
    with op.batch_alter_table("principals") as principals:
        principals.alter_column("namespace", existing_type=sa.Text(), nullable=True)
    with op.batch_alter_table("api_keys") as keys:
        for limit in ("concurrent", "requests_per_minute", "tokens_per_minute"):
            keys.add_column(sa.Column(limit, sa.Integer(), nullable=True))
        time = sa.DateTime(timezone=True)
        keys.add_column(sa.Column("changed_at", time, nullable=True))
    op.execute("UPDATE api_keys SET changed_at = created_at")
    with op.batch_alter_table("api_keys") as keys:
        keys.alter_column("changed_at", existing_type=time, nullable=False)
    op.create_index("ix_api_keys_changed_at", "api_keys", ["changed_at"])
