"""The tables outside the learning loop: principals and API keys, jobs, the audit log.

Invariants: only a key's digest is stored, never the key; only the worker that holds a job's current
fence may end it; audit rows are append-only.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models import Namespace
from store.schema import Base, JobStatus, Trust


class Principal(Base):
    """The caller that a key acts for; support for lessons and their caps count per principal."""

    __tablename__ = "principals"
    id: Mapped[str] = mapped_column(primary_key=True)
    namespace: Mapped[str | None] = mapped_column(ForeignKey(Namespace.name))
    """The only namespace it may act in; None for all."""
    name: Mapped[str]
    trust: Mapped[Trust]
    created_at: Mapped[datetime]


class ApiKey(Base):
    """An API key with its scopes and rate limits; only the digest of the secret is stored."""

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
    """None while the key is not revoked."""


class Job(Base):
    """A unit of background work with lease, fence and attempt count. The table is the queue."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]
    unique_key: Mapped[str | None] = mapped_column(index=True)
    """Unique among unfinished jobs."""
    status: Mapped[JobStatus]
    run_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(default=0)
    """Incremented by every claim; a worker with an older fence has lost the job."""
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
    """Append-only log of who changed what; each row contains the previous row's hash."""

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
    """The single row with the audit log's last hash; without it, truncation would go unnoticed."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    hash: Mapped[str]
