"""Interactions that are still being answered, and texts that are kept compressed.

Revision: 0002_recording. Forward only: to go back, restore a backup.
"""

import json
import zlib

import sqlalchemy as sa
from alembic import op

revision = "0002_recording"
down_revision = "0001_first"

RUNNING = sa.text("status = 'running'")
AT_A_TIME = 500
TEXTS = ("messages", "params", "response")


def upgrade() -> None:
    server = sa.Column("server", sa.Text(), nullable=False, server_default="")
    op.add_column("interactions", server)
    op.create_index(
        "ix_interactions_running",
        "interactions",
        ["server"],
        sqlite_where=RUNNING,
        postgresql_where=RUNNING,
    )
    _compress_payloads()


def _compress_payloads() -> None:
    """Move the texts into a table that keeps them compressed."""
    op.rename_table("payloads", "plain_payloads")
    # PostgreSQL keeps constraint names with the renamed table.
    key = sa.ForeignKey("interactions.id", name="fk_payloads_of_interaction")
    compressed = op.create_table(
        "payloads",
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in TEXTS),
        sa.Column("interaction", sa.Text(), key, nullable=False),
        sa.PrimaryKeyConstraint("interaction", name="pk_compressed_payloads"),
    )
    columns = [sa.column("interaction", sa.Text()), sa.column("response", sa.Text())]
    plain = sa.table(
        "plain_payloads",
        *columns,
        sa.column("messages", sa.JSON()),
        sa.column("params", sa.JSON()),
    )
    last = ""
    while rows := _next_rows(plain, last):
        op.bulk_insert(
            compressed,
            [
                {name: _pack(getattr(row, name)) for name in TEXTS}
                | {"interaction": row.interaction}
                for row in rows
            ],
        )
        last = rows[-1].interaction
    op.drop_table("plain_payloads")


def _next_rows(plain: sa.TableClause, last: str) -> list[sa.Row[tuple[object, ...]]]:
    page = sa.select(plain).where(plain.c.interaction > last).order_by(plain.c.interaction)
    return list(op.get_bind().execute(page.limit(AT_A_TIME)))


def _pack(value: object) -> bytes:
    return zlib.compress(json.dumps(value).encode(), 1)
