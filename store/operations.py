"""The tables beside the loop: who may call, what is to be done, who changed what.

Invariants others rely on: of a key only its digest is kept; a job is changed only by the worker
whose fence it carries; audit rows are only ever added.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models import Namespace
from store.schema import Base, JobStatus, Trust


class Principal(Base):
    """Who is behind a key; independence and caps are counted per principal."""

    __tablename__ = "principals"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str | None] = mapped_column(ForeignKey(Namespace.name))
    """The only one it acts in; None for all."""
    name: Mapped[str]
    trust: Mapped[Trust]
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key: only its digest is kept."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    principal: Mapped[str] = mapped_column(ForeignKey(Principal.id))
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    scopes: Mapped[list[Any]]
    concurrent: Mapped[int | None]
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    """When it was made or revoked: what a reader of the keys does not know yet."""


class Job(Base):
    """Work to do: leased, fenced and counted. The table is the queue."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    unique_key: Mapped[str | None] = mapped_column(index=True)
    """At most one unfinished job has a given key."""
    status: Mapped[JobStatus]
    run_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(default=0)
    """Grows with every claim: a worker whose fence is no longer the row's has lost the job."""
    attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        Index(None, "status", "run_at"),
        Index(
            "uq_jobs_unfinished",
            "unique_key",
            unique=True,
            sqlite_where=text("status IN ('ready', 'running')"),
            postgresql_where=text("status IN ('ready', 'running')"),
        ),
    )


class Audit(Base):
    """Append-only record of who changed what; each row carries the hash of the one before."""

    __tablename__ = "audit"
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]]
    prev_hash: Mapped[str]
    hash: Mapped[str]


class AuditHead(Base):
    """The end of the audit chain, in its only row: without it, cut-off rows would not be missed."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    hash: Mapped[str]
