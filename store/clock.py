"""The one place that reads the wall clock; everywhere else the time is an argument."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """The time now: aware, UTC."""
    return datetime.now(UTC)
