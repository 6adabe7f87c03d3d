"""The daemon's clock."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """The time now: aware, UTC."""
    return datetime.now(UTC)
