"""The tables of training and rollout: runs, the adapters they publish, and which of them serves.

They are the second half of the learning loop, which begins in models.py.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from store.schema import AdapterStatus, Base, RunStatus


class Run(Base):
    """One distillation of a snapshot into a candidate adapter."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    status: Mapped[RunStatus]
    snapshot: Mapped[str]  # the context to learn
    settings: Mapped[dict[str, Any]]  # the `distill` section, frozen when the run was opened
    trigger: Mapped[str]
    """Why it was started, as a sentence."""
    reason: Mapped[str | None]
    """Why it ended with this status, as a sentence."""
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)  # the latest value per name
    adapter: Mapped[str | None]  # the one it published
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["snapshot", "namespace"], ["snapshots.hash", "snapshots.namespace"]),
    )


class Adapter(Base):
    """A trained LoRA adapter on disk: immutable, named after its content, with its origin."""

    __tablename__ = "adapters"
    name: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"))
    run: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    parent: Mapped[str | None]  # the adapter that training started from, if any
    snapshot: Mapped[str]  # the context that it was trained on
    path: Mapped[str]
    """Its folder, relative to the data folder, or absolute if outside it."""
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


class AdapterStatement(Base):
    """One statement of the context that an adapter was trained on, and whether it has learned it.

    A segment is `[start, end, tokens]`, as in residual.py.
    """

    __tablename__ = "adapter_statements"
    adapter: Mapped[str] = mapped_column(ForeignKey("adapters.name"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    lesson: Mapped[bool]  # a lesson, not a part of the system prompt
    spans: Mapped[list[Any]]
    """The segments of the system prompt that are its own words; empty for a lesson."""
    support: Mapped[list[Any]]
    """The segments that it needs to be understood, such as its headings; empty for a lesson."""
    learned: Mapped[bool]  # as the run has measured it
    relapsed_at: Mapped[datetime | None]
    """When an answer of the adapter was found to lack it after all."""
    relapse_cause: Mapped[str | None]
    """How that was found, as a sentence."""
    relapse_interaction: Mapped[str | None] = mapped_column(
        ForeignKey("interactions.id", ondelete="SET NULL"), index=True
    )
    """The answer; None if there is none, or if its retention has ended."""


class Evaluation(Base):
    """The measurements of an adapter and the gate's verdict with its reasons."""

    __tablename__ = "evaluations"
    id: Mapped[str] = mapped_column(primary_key=True)
    adapter: Mapped[str] = mapped_column(ForeignKey("adapters.name"), index=True)
    measured: Mapped[dict[str, Any]]
    passed: Mapped[bool | None]
    """None until the gate has decided."""
    reasons: Mapped[list[Any]]
    created_at: Mapped[datetime]


class Alias(Base):
    """The adapter that serves a namespace; changed by compare-and-swap only."""

    __tablename__ = "aliases"
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), primary_key=True)
    adapter: Mapped[str | None] = mapped_column(ForeignKey("adapters.name"))
    """None if the base model serves."""


class RolloutEvent(Base):
    """One change of an adapter's status, with the reason."""

    __tablename__ = "rollout_events"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str] = mapped_column(ForeignKey("namespaces.name"), index=True)
    adapter: Mapped[str] = mapped_column(ForeignKey("adapters.name"))
    before: Mapped[AdapterStatus]
    after: Mapped[AdapterStatus]
    reason: Mapped[str]
    created_at: Mapped[datetime]
