"""The tables of requests, of the lessons learned from them, and of contexts.

They follow the learning loop: namespace, interaction, feedback, lesson, snapshot. Its second half,
runs and adapters, is in adapter_tables.py; tables outside the loop (keys, jobs, audit log) are in
operations.py. Invariants of the loop's tables:
- only a table's own module changes its `status` (records.py, lessons.py, runs.py, rollouts.py);
- every transaction that changes what a prompt would contain increments `Namespace.revision`;
- snapshots and adapters are immutable, except for an adapter's status.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from store.schema import (
    Base,
    Compressed,
    InteractionStatus,
    LessonKind,
    LessonStatus,
    Trust,
)

RUNNING = "status = 'running'"
UNREAD = "entries >= 2 AND entries > entries_read"
"""SQL condition for a conversation with unread entries; index and query must use the same text."""


class Namespace(Base):
    """One application or tenant; all other rows of the loop belong to exactly one."""

    __tablename__ = "namespaces"
    name: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(default=0)
    """Version counter of the composed prompt: gateways re-read the namespace when it changes."""
    created_at: Mapped[datetime]


class Conversation(Base):
    """A sequence of interactions, its train/held-out split, and how far extraction has read it."""

    __tablename__ = "conversations"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    held_out: Mapped[bool]
    """Assigned once, from a hash of the id. Held-out prompts are never trained on; the gate
    evaluates on them."""
    last_at: Mapped[datetime]  # time of the last activity
    entries: Mapped[int] = mapped_column(default=0)
    """Number of turns and feedback that lessons may be extracted from."""
    entries_read: Mapped[int] = mapped_column(default=0)
    """Value of `entries` at the last extraction."""
    __table_args__ = (
        Index(
            "ix_conversations_unread",
            "last_at",
            sqlite_where=text(UNREAD),
            postgresql_where=text(UNREAD),
        ),
    )


class Interaction(Base):
    """One request and its response: metadata only, the texts are in `Payload`."""

    __tablename__ = "interactions"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    conversation: Mapped[str] = mapped_column(ForeignKey("conversations.id"), index=True)
    principal: Mapped[str]  # the caller: a key's principal, or one of its end users
    trust: Mapped[Trust]  # in the content of the messages
    status: Mapped[InteractionStatus]
    version: Mapped[str]
    """The adapter that answered, `base`, or `none` if the request failed before routing."""
    arm: Mapped[str]  # how `version` was chosen: `live`, `fallback` or `none`
    context_hash: Mapped[str]  # the snapshot that the prompt contained
    learn: Mapped[bool]  # whether lessons may be extracted and the prompt trained on
    created_at: Mapped[datetime]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    tokens_saved: Mapped[int] = mapped_column(default=0)  # left out of the prompt as internalised
    first_token_ms: Mapped[float | None]
    total_ms: Mapped[float]
    error: Mapped[str | None]
    endpoint: Mapped[str]
    """The request's path, such as `/v1/chat/completions`."""
    auxiliary: Mapped[bool]
    """Whether the client sent it for its own use, as to get a chat title; not a turn."""
    server: Mapped[str]
    """The daemon that answers; at its next start it aborts what it left `running`."""
    prefix_hash: Mapped[str]
    """Hash of all messages including the answer; links the next turn to this one."""
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
    """The texts of an interaction, in their own table so that retention can delete them earlier."""

    __tablename__ = "payloads"
    interaction: Mapped[str] = mapped_column(ForeignKey("interactions.id"), primary_key=True)
    messages: Mapped[list[Any]] = mapped_column(Compressed)
    """As the client sent them, without the context that the gateway prepends."""
    params: Mapped[dict[str, Any]] = mapped_column(Compressed)  # the other fields of the request
    response: Mapped[str] = mapped_column(Compressed)


class Feedback(Base):
    """A rating, comment or corrected answer (`demonstration`) for one interaction."""

    __tablename__ = "feedback"
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    """The client's id, or a generated one; unique within the namespace only."""
    interaction: Mapped[str] = mapped_column(ForeignKey("interactions.id"), index=True)
    principal: Mapped[str]
    trust: Mapped[Trust]
    name: Mapped[str]  # kind of feedback, such as `demonstration`
    value: Mapped[dict[str, Any]]
    comment: Mapped[str | None]
    demonstration: Mapped[str | None]  # the answer as it should have been
    tags: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Lesson(Base):
    """One statement to learn, such as a rule or fact; `LessonSupport` records its origins."""

    __tablename__ = "lessons"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    kind: Mapped[LessonKind]
    when: Mapped[str | None]  # the condition under which it applies
    do: Mapped[str]  # the statement itself
    why: Mapped[str | None]
    status: Mapped[LessonStatus]
    trust: Mapped[Trust]
    helpful: Mapped[int] = mapped_column(default=0)
    harmful: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int]  # length in the prompt
    pinned: Mapped[bool] = mapped_column(default=False)  # first to get a place in prompts and runs
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("lessons.id"))  # lesson it replaces
    __table_args__ = (Index(None, "namespace", "status"),)


class LessonSupport(Base):
    """One piece of evidence for a lesson: the interaction, the quoted span and its author."""

    __tablename__ = "lesson_support"
    lesson: Mapped[str] = mapped_column(ForeignKey("lessons.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    interaction: Mapped[str | None] = mapped_column(ForeignKey("interactions.id"), index=True)
    feedback: Mapped[str | None]
    """Id of the feedback, in the lesson's namespace."""
    span: Mapped[str]
    principal: Mapped[str]
    trust: Mapped[Trust]
    polarity: Mapped[int] = mapped_column(default=1)  # only positive rows count as support


class SystemPrompt(Base):
    """A system prompt registered by the operator; the newest of a namespace is in effect."""

    __tablename__ = "system_prompts"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    text: Mapped[str]
    tokens: Mapped[int]
    created_at: Mapped[datetime]


class Snapshot(Base):
    """An immutable context (system prompt and lessons), named by its hash; runs learn one each."""

    __tablename__ = "snapshots"
    hash: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), primary_key=True)
    system_prompt: Mapped[str | None]
    lessons: Mapped[list[Any]]
    """`[{"id", "kind", "text"}]` in prompt order."""
    created_at: Mapped[datetime]


class SeedPrompt(Base):
    """A prompt that the operator supplies for distillation, for use before there is traffic."""

    __tablename__ = "seeds"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    messages: Mapped[list[Any]]


class Anchor(Base):
    """A prompt and the operator's check of its answer; the gate counts how many pass."""

    __tablename__ = "anchors"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    messages: Mapped[list[Any]]
    expect: Mapped[dict[str, Any]]  # the checks; see anchors.py
