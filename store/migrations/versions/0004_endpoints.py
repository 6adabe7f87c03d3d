"""The endpoint of an interaction, and whether it is auxiliary.

Revision: 0004_endpoints. Forward only: to go back, restore a backup.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004_endpoints"
down_revision = "0003_keys"


def upgrade() -> None:
    chat = "/v1/chat/completions"
    op.add_column(
        "interactions", sa.Column("endpoint", sa.Text(), nullable=False, server_default=chat)
    )
    op.add_column(
        "interactions", sa.Column("side", sa.Boolean(), nullable=False, server_default=sa.false())
    )
