"""The tables of the first release, and the empty audit chain.

Revision: 0001_first. Types and names are written out, so that the revision stays what it is when
the models move on. Forward only: to go back, restore a backup.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001_first"
down_revision = None

TEXT = sa.Text()
TIME = sa.DateTime(timezone=True)
STATE = sa.String(16)
JSON = sa.JSON()
UNFINISHED = sa.text("status IN ('ready', 'running')")
LIVE = sa.text("status = 'live'")
UNREAD = sa.text("signals >= 2 AND signals > signals_read")


def upgrade() -> None:
    _create_conversations()
    _create_lessons()
    _create_contexts()
    _create_adapters()
    _create_rollouts()
    _create_operations()


def _create_conversations() -> None:
    """Create namespaces, conversations, interactions, their payloads, and feedback."""
    _table(
        "namespaces",
        *_must(TEXT, "name"),
        *_must(sa.Integer(), "revision"),
        *_must(TIME, "created_at"),
        key=("name",),
    )
    _table(
        "conversations",
        *_must(TEXT, "id"),
        *_must(sa.Boolean(), "held_out"),
        *_must(TIME, "last_at"),
        *_must(sa.Integer(), "signals", "signals_read"),
        _link("conversations", "namespace", "namespaces.name"),
    )
    op.create_index(
        "ix_conversations_unread",
        "conversations",
        ["last_at"],
        sqlite_where=UNREAD,
        postgresql_where=UNREAD,
    )
    _table(
        "interactions",
        *_must(TEXT, "id", "principal", "version", "arm", "context_hash", "prefix_hash"),
        *_must(STATE, "trust", "status"),
        *_must(sa.Boolean(), "learn"),
        *_must(TIME, "created_at"),
        *_may(sa.Integer(), "prompt_tokens", "completion_tokens"),
        *_must(sa.Integer(), "tokens_saved"),
        *_may(sa.Double(), "first_token_ms"),
        *_must(sa.Double(), "total_ms"),
        *_may(TEXT, "error"),
        _link("interactions", "namespace", "namespaces.name"),
        _link("interactions", "conversation", "conversations.id"),
    )
    _index("interactions", "conversation")
    _index("interactions", "namespace", "created_at")
    _index("interactions", "namespace", "prefix_hash")
    _table(
        "payloads",
        *_must(JSON, "messages", "params"),
        *_must(TEXT, "response"),
        _link("payloads", "interaction", "interactions.id"),
        key=("interaction",),
    )
    _table(
        "feedback",
        *_must(TEXT, "id", "principal", "name"),
        *_must(STATE, "trust"),
        *_must(JSON, "value", "tags"),
        *_may(TEXT, "comment", "demonstration"),
        *_must(TIME, "created_at"),
        _link("feedback", "namespace", "namespaces.name"),
        _link("feedback", "interaction", "interactions.id"),
        key=("namespace", "id"),
    )
    _index("feedback", "interaction")


def _create_lessons() -> None:
    """Create lessons, and the origins of each."""
    _table(
        "lessons",
        *_must(TEXT, "id", "do"),
        *_must(STATE, "kind", "status", "trust"),
        *_may(TEXT, "when", "why"),
        *_must(sa.Integer(), "helpful", "harmful", "tokens"),
        *_must(sa.Boolean(), "pinned"),
        *_must(TIME, "created_at"),
        *_may(TIME, "expires_at"),
        _link("lessons", "namespace", "namespaces.name"),
        _link("lessons", "supersedes", "lessons.id", nullable=True),
    )
    _index("lessons", "namespace", "status")
    _table(
        "lesson_support",
        *_must(sa.Integer(), "position", "polarity"),
        *_may(TEXT, "feedback"),
        *_must(TEXT, "span", "principal"),
        *_must(STATE, "trust"),
        _link("lesson_support", "lesson", "lessons.id"),
        _link("lesson_support", "interaction", "interactions.id", nullable=True),
        key=("lesson", "position"),
    )
    _index("lesson_support", "interaction")


def _create_contexts() -> None:
    """Create system prompts, snapshots, seed prompts and anchors."""
    _table(
        "system_prompts",
        *_must(TEXT, "id", "text"),
        *_must(sa.Integer(), "tokens"),
        *_must(TIME, "created_at"),
        _link("system_prompts", "namespace", "namespaces.name"),
    )
    _index("system_prompts", "namespace")
    _table(
        "snapshots",
        *_must(TEXT, "hash"),
        *_may(TEXT, "system_prompt"),
        *_must(JSON, "lessons"),
        *_must(TIME, "created_at"),
        _link("snapshots", "namespace", "namespaces.name"),
        key=("hash", "namespace"),
    )
    _table(
        "seeds",
        *_must(TEXT, "id"),
        *_must(JSON, "messages"),
        _link("seeds", "namespace", "namespaces.name"),
    )
    _index("seeds", "namespace")
    _table(
        "anchors",
        *_must(TEXT, "id"),
        *_must(JSON, "messages", "expect"),
        _link("anchors", "namespace", "namespaces.name"),
    )
    _index("anchors", "namespace")


def _create_adapters() -> None:
    """Create runs, adapters and evaluations."""
    _table(
        "runs",
        *_must(TEXT, "id", "snapshot", "trigger"),
        *_must(STATE, "status"),
        *_must(JSON, "settings", "progress"),
        *_may(TEXT, "reason", "adapter"),
        *_must(TIME, "created_at"),
        *_may(TIME, "started_at", "finished_at"),
        _link("runs", "namespace", "namespaces.name"),
        sa.ForeignKeyConstraint(
            ["snapshot", "namespace"],
            ["snapshots.hash", "snapshots.namespace"],
            name="fk_runs_snapshot",
        ),
    )
    _index("runs", "namespace")
    _table(
        "adapters",
        *_must(TEXT, "name", "snapshot", "path", "manifest_sha256"),
        *_may(TEXT, "parent"),
        *_must(STATE, "status"),
        *_must(TIME, "created_at"),
        _link("adapters", "namespace", "namespaces.name"),
        _link("adapters", "run", "runs.id"),
        sa.ForeignKeyConstraint(
            ["snapshot", "namespace"],
            ["snapshots.hash", "snapshots.namespace"],
            name="fk_adapters_snapshot",
        ),
        key=("name",),
    )
    _index("adapters", "namespace", "status")
    op.create_index(
        "uq_adapters_live",
        "adapters",
        ["namespace"],
        unique=True,
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    _table(
        "evaluations",
        *_must(TEXT, "id"),
        *_must(JSON, "measured", "reasons"),
        *_may(sa.Boolean(), "passed"),
        *_must(TIME, "created_at"),
        _link("evaluations", "adapter", "adapters.name"),
    )
    _index("evaluations", "adapter")


def _create_rollouts() -> None:
    """Create aliases and rollout events."""
    _table(
        "aliases",
        *_must(sa.Integer(), "revision"),
        *_must(TIME, "updated_at"),
        _link("aliases", "namespace", "namespaces.name"),
        _link("aliases", "adapter", "adapters.name", nullable=True),
        key=("namespace",),
    )
    _table(
        "rollout_events",
        *_must(TEXT, "id", "reason"),
        *_must(STATE, "before", "after"),
        *_must(TIME, "created_at"),
        _link("rollout_events", "namespace", "namespaces.name"),
        _link("rollout_events", "adapter", "adapters.name"),
    )
    _index("rollout_events", "namespace")


def _create_operations() -> None:
    """Create principals, API keys, jobs and the audit log."""
    _table(
        "principals",
        *_must(TEXT, "id", "name"),
        *_must(STATE, "trust"),
        *_must(TIME, "created_at"),
        _link("principals", "namespace", "namespaces.name"),
    )
    _table(
        "api_keys",
        *_must(TEXT, "id"),
        *_must(sa.LargeBinary(), "digest"),
        *_must(JSON, "scopes"),
        *_must(TIME, "created_at"),
        *_may(TIME, "expires_at", "revoked_at"),
        _link("api_keys", "principal", "principals.id"),
    )
    _table(
        "jobs",
        *_must(TEXT, "id", "kind"),
        *_must(JSON, "payload"),
        *_may(TEXT, "unique_key", "error"),
        *_must(STATE, "status"),
        *_must(TIME, "run_at", "created_at"),
        *_may(TIME, "lease_until", "finished_at"),
        *_must(sa.Integer(), "fence", "attempts", "max_attempts"),
    )
    _index("jobs", "status", "run_at")
    _index("jobs", "unique_key")
    op.create_index(
        "uq_jobs_unfinished",
        "jobs",
        ["unique_key"],
        unique=True,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
    _table(
        "audit",
        *_must(sa.Integer(), "seq"),
        *_must(TIME, "at"),
        *_must(TEXT, "actor", "action", "subject", "prev_hash", "hash"),
        *_must(JSON, "detail"),
        key=("seq",),
    )
    head = _table("audit_head", *_must(sa.Integer(), "id", "seq"), *_must(TEXT, "hash"))
    op.bulk_insert(head, [{"id": 1, "seq": 0, "hash": "0" * 64}])


def _table(name: str, *parts: sa.schema.SchemaItem, key: tuple[str, ...] = ("id",)) -> sa.Table:
    return op.create_table(name, *parts, sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"))


def _must(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False, autoincrement=False) for name in names]


def _may(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=True) for name in names]


def _link(table: str, column: str, target: str, nullable: bool = False) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=f"fk_{table}_{column}")
    return sa.Column(column, TEXT, key, nullable=nullable)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))
