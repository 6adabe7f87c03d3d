"""What a background job works with: handed to every job, built by daemon.py."""

from dataclasses import dataclass
from datetime import UTC, datetime

from agent.engine.client import VllmEngine
from agent.gateway.inflight import Inflight
from config.settings import Settings
from store.db import Database


@dataclass(frozen=True)
class Work:
    """The settings, the database and the engine, and which requests are running."""

    settings: Settings
    db: Database
    engine: VllmEngine
    model: str
    """Name under which the engine serves the base."""
    inflight: Inflight


def utcnow() -> datetime:
    """The daemon's clock: aware, UTC."""
    return datetime.now(UTC)
