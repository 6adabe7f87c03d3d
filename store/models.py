"""Every fact of the loop, as tables: what was said, what was learned from it, what serves.

In the order of the loop: namespace, interaction, feedback, lesson, context, run, adapter, alias.
Keys, jobs and the audit log, which stand beside the loop, are in operations.py. Invariants others
rely on:
- a status changes only through the functions of the module named like its table;
- `Namespace.revision` grows in every transaction that changes what a prompt would contain;
- rows of a snapshot and an adapter never change once written, but for an adapter's status.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from store.schema import (
    AdapterStatus,
    Base,
    Compressed,
    InteractionStatus,
    LessonKind,
    LessonStatus,
    RunStatus,
    Trust,
)

RUNNING = "status = 'running'"
UNREAD = "signals >= 2 AND signals > signals_read"
"""A conversation with something to read, as SQL: the same for the index and for its query."""


class Namespace(Base):
    """One application or tenant."""

    __tablename__ = "namespaces"
    name: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]


class Conversation(Base):
    """Interactions that belong together, and whether they may be trained on."""

    __tablename__ = "conversations"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    held_out: Mapped[bool]
    """Drawn once, by a hash of the id: the prompts of a held-out conversation are never trained on,
    so that the gate may measure on them."""
    last_at: Mapped[datetime]
    signals: Mapped[int] = mapped_column(default=0)
    """Turns and feedback that may be learned from."""
    signals_read: Mapped[int] = mapped_column(default=0)
    """How many of them there were when lessons were last extracted."""
    __table_args__ = (
        Index(
            "ix_conversations_unread",
            "last_at",
            sqlite_where=text(UNREAD),
            postgresql_where=text(UNREAD),
        ),
    )


class Interaction(Base):
    """One request and its response, without the texts."""

    __tablename__ = "interactions"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    conversation: Mapped[str] = mapped_column(ForeignKey("conversations.id"), index=True)
    principal: Mapped[str]
    trust: Mapped[Trust]
    status: Mapped[InteractionStatus]
    version: Mapped[str]
    """The adapter that answered, `base`, or `none`: it failed before that was known."""
    arm: Mapped[str]
    context_hash: Mapped[str]
    learn: Mapped[bool]
    created_at: Mapped[datetime]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    tokens_saved: Mapped[int] = mapped_column(default=0)
    first_token_ms: Mapped[float | None]
    total_ms: Mapped[float]
    error: Mapped[str | None]
    endpoint: Mapped[str]
    """The path that was asked."""
    auxiliary: Mapped[bool]
    """Whether the client made the request for itself, as for a title: not a turn."""
    server: Mapped[str]
    """Which daemon answers; what it was answering when it was killed is aborted at its start."""
    prefix_hash: Mapped[str]
    """Hash of the messages up to and with the answer: the next turn's prefix is found by it."""
    __table_args__ = (
        Index(None, "namespace", "created_at"),
        Index("ix_interactions_course", "namespace", "prefix_hash", "principal", "created_at"),
        Index(
            "ix_interactions_running",
            "server",
            sqlite_where=text(RUNNING),
            postgresql_where=text(RUNNING),
        ),
    )


class Payload(Base):
    """The texts of an interaction, apart so that they can be dropped earlier."""

    __tablename__ = "payloads"
    interaction: Mapped[str] = mapped_column(ForeignKey("interactions.id"), primary_key=True)
    messages: Mapped[list[Any]] = mapped_column(Compressed)
    """As the client sent them: text the gateway put in front is never in here."""
    params: Mapped[dict[str, Any]] = mapped_column(Compressed)
    response: Mapped[str] = mapped_column(Compressed)


class Feedback(Base):
    """A signal on an interaction."""

    __tablename__ = "feedback"
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    """The client's own, where it gave one: unique within its namespace only."""
    interaction: Mapped[str] = mapped_column(ForeignKey("interactions.id"), index=True)
    principal: Mapped[str]
    trust: Mapped[Trust]
    name: Mapped[str]
    value: Mapped[dict[str, Any]]
    comment: Mapped[str | None]
    demonstration: Mapped[str | None]
    tags: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Lesson(Base):
    """The smallest transferable statement; provenance is in its support rows, never in its text."""

    __tablename__ = "lessons"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    kind: Mapped[LessonKind]
    when: Mapped[str | None]
    do: Mapped[str]
    why: Mapped[str | None]
    status: Mapped[LessonStatus]
    trust: Mapped[Trust]
    helpful: Mapped[int] = mapped_column(default=0)
    harmful: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int]
    pinned: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("lessons.id"))
    __table_args__ = (Index(None, "namespace", "status"),)


class LessonSupport(Base):
    """One origin of a lesson: the interaction, the span in it and who said it."""

    __tablename__ = "lesson_support"
    lesson: Mapped[str] = mapped_column(ForeignKey("lessons.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    interaction: Mapped[str | None] = mapped_column(ForeignKey("interactions.id"), index=True)
    feedback: Mapped[str | None]
    """Identifier of the feedback, in the namespace of the lesson."""
    span: Mapped[str]
    principal: Mapped[str]
    trust: Mapped[Trust]
    polarity: Mapped[int] = mapped_column(default=1)


class SystemPrompt(Base):
    """A system prompt registered by the operator; the newest of a namespace counts."""

    __tablename__ = "system_prompts"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    text: Mapped[str]
    tokens: Mapped[int]
    created_at: Mapped[datetime]


class Snapshot(Base):
    """An immutable context, stamped on interactions and used by runs."""

    __tablename__ = "snapshots"
    hash: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), primary_key=True)
    system_prompt: Mapped[str | None]
    lessons: Mapped[list[Any]]
    """`[{"id", "kind", "text"}]` in the order in which they were rendered."""
    created_at: Mapped[datetime]


class SeedPrompt(Base):
    """A prompt given by the operator for distillation, where there is no traffic yet."""

    __tablename__ = "seeds"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    messages: Mapped[list[Any]]


class Anchor(Base):
    """An operator's check of a single answer, for the gate to count."""

    __tablename__ = "anchors"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    messages: Mapped[list[Any]]
    expect: Mapped[dict[str, Any]]


class Run(Base):
    """One distillation, from data to candidate adapter."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    status: Mapped[RunStatus]
    snapshot: Mapped[str]
    settings: Mapped[dict[str, Any]]
    trigger: Mapped[str]
    """Why it was started, in plain words."""
    reason: Mapped[str | None]
    """Why it ended as it did, in plain words."""
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    adapter: Mapped[str | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["snapshot", "namespace"], ["snapshots.hash", "snapshots.namespace"]),
    )


class Adapter(Base):
    """A LoRA on disk: content-addressed, immutable, with lineage."""

    __tablename__ = "adapters"
    name: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    run: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    parent: Mapped[str | None]
    snapshot: Mapped[str]
    path: Mapped[str]
    """Of its folder: relative to the data folder, or absolute if it lies elsewhere."""
    manifest_sha256: Mapped[str]
    status: Mapped[AdapterStatus]
    created_at: Mapped[datetime]
    __table_args__ = (
        ForeignKeyConstraint(["snapshot", "namespace"], ["snapshots.hash", "snapshots.namespace"]),
        Index(None, "namespace", "status"),
        Index(
            "uq_adapters_live",
            "namespace",
            unique=True,
            sqlite_where=text("status = 'live'"),
            postgresql_where=text("status = 'live'"),
        ),
    )


class Evaluation(Base):
    """What the gate measured of a candidate, and what it decided."""

    __tablename__ = "evaluations"
    id: Mapped[str] = mapped_column(primary_key=True)
    adapter: Mapped[str] = mapped_column(ForeignKey("adapters.name"), index=True)
    measured: Mapped[dict[str, Any]]
    passed: Mapped[bool | None]
    """None until the gate has judged."""
    reasons: Mapped[list[Any]]
    created_at: Mapped[datetime]


class Alias(Base):
    """Which adapter serves a namespace; changed by compare-and-swap only."""

    __tablename__ = "aliases"
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), primary_key=True)
    adapter: Mapped[str | None] = mapped_column(ForeignKey("adapters.name"))
    """None: the base serves."""


class RolloutEvent(Base):
    """One change of an adapter's status, with its reason."""

    __tablename__ = "rollout_events"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    adapter: Mapped[str] = mapped_column(ForeignKey("adapters.name"))
    before: Mapped[AdapterStatus]
    after: Mapped[AdapterStatus]
    reason: Mapped[str]
    created_at: Mapped[datetime]
