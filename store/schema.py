"""Column types, status enumerations and the declarative base of all tables.

Every database stores enumerations as their values and times in UTC.
"""

import enum
import json
import re
import zlib
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Enum, LargeBinary, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator


class InteractionStatus(enum.StrEnum):
    """The state of a request."""

    RUNNING = "running"
    """In flight."""
    DONE = "done"
    """Answered completely."""
    FAILED = "failed"
    """The engine was unavailable, rejected the request or broke the response off."""
    ABORTED = "aborted"
    """The client disconnected (a stream's partial text is stored), or byheart was killed."""


class Trust(enum.StrEnum):
    """The authority behind a statement; depends on its author, never on its content."""

    OPERATOR = "operator"
    USER = "user"

    @property
    def rank(self) -> int:
        """0 for the most trusted level."""
        return list(Trust).index(self)


class LessonKind(enum.StrEnum):
    """The kind of a lesson's statement; determines how it is distilled."""

    RULE = "rule"
    PROCEDURE = "procedure"
    FACT = "fact"
    PREFERENCE = "preference"
    PITFALL = "pitfall"


class LessonStatus(enum.StrEnum):
    """The lifecycle of a lesson."""

    CANDIDATE = "candidate"
    """Extracted, but not yet trusted enough to use."""
    ACTIVE = "active"
    """In the prompt, if it fits the token budget."""
    INTERNALISED = "internalised"
    """The live adapter has learned it, so it is left out of the prompt."""
    RETIRED = "retired"
    """No longer used."""
    QUARANTINED = "quarantined"
    """Withheld until an operator reviews it."""


class RunStatus(enum.StrEnum):
    """The lifecycle of a distillation run."""

    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHED = "published"
    """A candidate adapter was published."""
    NOTHING_TO_LEARN = "nothing_to_learn"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AdapterStatus(enum.StrEnum):
    """The rollout state of an adapter."""

    CANDIDATE = "candidate"
    LIVE = "live"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class JobStatus(enum.StrEnum):
    """The lifecycle of a job."""

    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """Gave up after its last attempt; `error` says why."""
    CANCELLED = "cancelled"


class IllegalTransition(Exception):
    """The requested status change is not allowed from the current status."""

    def __init__(self, subject: str, before: str, after: str, remedy: str = "") -> None:
        super().__init__(f"{subject} is {before} and cannot become {after}. {remedy}".rstrip())


ZLIB_LEVEL = 1
"""Fastest zlib level: level 2 saves a few per cent of space and takes twice the time."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Return `text` with NUL and lone surrogates replaced by U+FFFD, so any database accepts it.

    Clients can send both as JSON escapes, and their requests must be recorded regardless.
    """
    if text.isascii() and "\x00" not in text:  # the common case; several times faster
        return text
    return _UNSTORABLE.sub("\ufffd", text)


class StorableText(TypeDecorator[str]):
    """Text column that applies `storable` to its values."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Replace characters that a database would reject."""
        return None if value is None else storable(value)


MIN_COMPRESSED_BYTES, ZLIB_PREFIX = 512, b"x"
"""Shorter values gain little from compression; no JSON text starts with zlib's first byte."""


class Compressed(TypeDecorator[Any]):
    """JSON column that compresses long values, such as prompts, with zlib."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> bytes:  # noqa: ANN401 - JSON
        """Serialise and compress; rejects NaN, like every other JSON column."""
        content = json.dumps(value, allow_nan=False).encode()
        is_short = len(content) < MIN_COMPRESSED_BYTES
        return content if is_short else zlib.compress(content, ZLIB_LEVEL)

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> Any:  # noqa: ANN401
        """Decompress and parse."""
        if value is None:
            return None
        return json.loads(zlib.decompress(value) if value.startswith(ZLIB_PREFIX) else value)


class UTCDateTime(TypeDecorator[datetime]):
    """Timezone-aware datetime in UTC, also on databases that drop the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Convert to UTC; rejects naive datetimes."""
        if value is not None and value.tzinfo is None:
            raise ValueError(
                f"naive datetime {value!r}: the store requires timezone-aware datetimes"
            )
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Return the value with its time zone set to UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Declarative base: maps Python types to columns and names constraints for migrations."""

    type_annotation_map = {  # noqa: RUF012 — SQLAlchemy reads it as a class attribute
        str: StorableText(),
        datetime: UTCDateTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
        enum.StrEnum: Enum(
            enum.StrEnum,
            native_enum=False,
            length=16,
            values_callable=lambda e: [m.value for m in e],
        ),
    }
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
