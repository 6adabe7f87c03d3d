"""The types that the tables are made of: states, times, and the declarative root.

Enumerations are stored as their values and times as UTC, on every database.
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
    """How a request goes, or ended."""

    RUNNING = "running"
    """Being answered."""
    DONE = "done"
    """Answered to the last byte."""
    FAILED = "failed"
    """The engine was down, refused or broke off."""
    ABORTED = "aborted"
    """The client went away, and the text so far is kept; or byheart itself ended."""


class Trust(enum.StrEnum):
    """Where a lesson's authority comes from: who said it, never what was said."""

    OPERATOR = "operator"
    USER = "user"

    @property
    def rank(self) -> int:
        """0 for the most trusted."""
        return list(Trust).index(self)


class LessonKind(enum.StrEnum):
    """What sort of statement a lesson is; decides how it is distilled."""

    RULE = "rule"
    PROCEDURE = "procedure"
    FACT = "fact"
    PREFERENCE = "preference"
    PITFALL = "pitfall"


class LessonStatus(enum.StrEnum):
    """The life of a lesson."""

    CANDIDATE = "candidate"
    """Extracted, but not trusted enough to be used."""
    ACTIVE = "active"
    """In the prompt."""
    INTERNALISED = "internalised"
    """In the live adapter, out of the prompt."""
    RETIRED = "retired"
    """No longer used."""
    QUARANTINED = "quarantined"
    """Held back for an operator to judge."""


class RunStatus(enum.StrEnum):
    """The life of one distillation."""

    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHED = "published"
    """A candidate adapter exists."""
    NOTHING_TO_LEARN = "nothing_to_learn"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AdapterStatus(enum.StrEnum):
    """The rollout stage of an adapter."""

    CANDIDATE = "candidate"
    LIVE = "live"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class JobStatus(enum.StrEnum):
    """The life of a job."""

    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """Gave up after its attempts; the error says why."""
    CANCELLED = "cancelled"


class IllegalTransition(Exception):
    """Something cannot go from the state it is in to the one asked for."""

    def __init__(self, subject: str, before: str, after: str, remedy: str = "") -> None:
        super().__init__(f"{subject} is {before} and cannot become {after}. {remedy}".rstrip())


ZLIB_LEVEL = 1
"""Level of compression: the next one saves a few per cent of space for twice the time."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """`text` as every database can hold it: NUL and lone surrogates become U+FFFD.

    A client can send both in JSON escapes; what it sent must be recorded all the same.
    """
    if text.isascii() and "\x00" not in text:  # nearly always, and several times faster
        return text
    return _UNSTORABLE.sub("\ufffd", text)


class StorableText(TypeDecorator[str]):
    """Text that was made `storable`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Replace what the database would refuse."""
        return None if value is None else storable(value)


MIN_COMPRESSED_BYTES, ZLIB_PREFIX = 512, b"x"
"""Bytes that compressing would make little less; how compressed ones begin, and no JSON does."""


class Compressed(TypeDecorator[Any]):
    """JSON values, or text, compressed where they are long: prompts are, and alike."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> bytes:  # noqa: ANN401 - JSON
        """Pack; NaN is refused, as in every other JSON column."""
        plain = json.dumps(value, allow_nan=False).encode()
        return plain if len(plain) < MIN_COMPRESSED_BYTES else zlib.compress(plain, ZLIB_LEVEL)

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> Any:  # noqa: ANN401
        """Unpack."""
        if value is None:
            return None
        return json.loads(zlib.decompress(value) if value.startswith(ZLIB_PREFIX) else value)


class UTCDateTime(TypeDecorator[datetime]):
    """A point in time, aware and in UTC, also on databases that forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Refuse naive times."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: every time in the store is aware")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Root of all tables: plain types, and constraint names that migrations can refer to."""

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
