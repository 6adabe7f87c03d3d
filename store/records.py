"""Records: write each served request to the tables exactly once, many in few statements.

The gateway hands over a `running` record when a request starts and a final record with the same id
when it ends, either directly or from its spool. `save` is idempotent by id: a final record replaces
a running or an interrupted one (`INTERRUPTED`), and nothing replaces a final record. All derived
values (conversation, held-out assignment, prefix hash) depend only on the record and on rows of its
namespace, so a replay after a crash changes nothing. A conversation belongs to one namespace, even
if clients of two namespaces use the same conversation id.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, bindparam, exists, insert, select, update
from sqlalchemy.orm import aliased

from store import conversations
from store.bulk_insert import insert_all
from store.contexts import SYSTEM_ROLES, Message, message_text
from store.db import Session
from store.models import Interaction, Payload
from store.schema import InteractionStatus, Trust

MAX_CONTINUATION_CANDIDATES = 32
"""How many of the newest conversations with the same prefix are considered as the one continued; a
standard greeting can be the prefix of thousands."""
INTERRUPTED = "the answer was cut off before its end could be recorded"
"""The error of interactions whose process was killed, or whose record could not be stored."""


@dataclass(frozen=True)
class Record:
    """One request and its response, as the gateway records them."""

    id: str
    namespace: str
    conversation: str | None
    """The client's id for it; None finds the conversation by its messages."""
    principal: str
    status: InteractionStatus
    version: str
    arm: str
    context_hash: str
    learn: bool
    created_at: datetime
    prompt_tokens: int | None
    completion_tokens: int | None
    tokens_saved: int
    first_token_ms: float | None
    total_ms: float
    error: str | None
    messages: list[Message]
    """As the client sent them."""
    params: dict[str, Any]
    response: str
    trust: Trust = Trust.USER
    """The trust in the content of the messages."""
    server: str = ""
    """The daemon that answers; at its next start it aborts what it left running."""
    endpoint: str = "/v1/chat/completions"
    """The request's path."""
    auxiliary: bool = False
    """Whether the client sent it for its own use, as to get a chat title; not a turn."""

    @property
    def is_running(self) -> bool:
        """Return whether the request is in flight, so a final record will follow."""
        return self.status is InteractionStatus.RUNNING

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values for the spool."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Parse `to_json` output, also with the old names `side` and `champion`."""
        if "side" in values:
            values = {**values, "auxiliary": values["side"]}
            del values["side"]
        return cls(
            **values
            | {
                "arm": "live" if values["arm"] == "champion" else values["arm"],
                "created_at": datetime.fromisoformat(values["created_at"]),
                "status": InteractionStatus(values["status"]),
                "trust": Trust(values["trust"]),
            }
        )


def save(connection: Connection, records: Sequence[Record], new: Collection[str] = ()) -> int:
    """Save interactions and their texts; return how many rows were inserted or ended.

    Args:
        connection: In a write transaction.
        records: In order of arrival.
        new: Ids known not to be in the tables, which saves looking them up.
    """
    latest: dict[str, Record] = {}
    for record in records:
        if record.id not in latest or latest[record.id].is_running:
            latest[record.id] = record
    ids = [record_id for record_id in latest if record_id not in new]
    rows = connection.execute(_KNOWN, {"ids": ids}) if ids else ()
    known = {row.id: row for row in rows}
    batch = _Batch(connection)
    for record in latest.values():
        row = known.get(record.id)
        if row is None:
            batch.begin(record)
        elif (
            row.status is InteractionStatus.RUNNING or row.error == INTERRUPTED
        ) and not record.is_running:
            batch.end(record, row.conversation)
    batch.flush()
    return batch.count


class _Batch:
    """Rows to write, in the order of their records."""

    def __init__(self, connection: Connection) -> None:
        self.count = 0
        self._connection = connection
        self._clear()

    def _clear(self) -> None:
        self._unwritten_prefixes: set[str] = set()
        """Prefix hashes of rows that are not written yet, so that no query finds them."""
        self._activities: list[conversations.Activity] = []
        self._new_rows: list[dict[str, Any]] = []
        self._final_rows: list[dict[str, Any]] = []
        self._new_texts: list[dict[str, Any]] = []
        self._final_texts: list[dict[str, Any]] = []

    def begin(self, record: Record) -> None:
        """Add a new interaction."""
        conversation = self._conversation_of(record)
        self._touch(record, conversation)
        row = _row(record)
        self._unwritten_prefixes.add(row["prefix_hash"])
        self._new_rows.append(row | {"conversation": conversation})
        texts = {"params": record.params, "response": record.response}
        self._new_texts.append({"interaction": record.id, "messages": record.messages} | texts)
        self.count += 1

    def end(self, record: Record, conversation: str) -> None:
        """Add the end of an interaction whose row is running or interrupted."""
        self._touch(record, conversation)
        row = _row(record)
        self._unwritten_prefixes.add(row["prefix_hash"])
        self._final_rows.append(row | {"_id": record.id})
        self._final_texts.append(
            {"_id": record.id, "params": record.params, "response": record.response}
        )
        self.count += 1

    def flush(self) -> None:
        """Write the rows added since the last flush."""
        conversations.touch_all(self._connection, self._activities)
        insert_all(self._connection, _BEGIN, self._new_rows)
        insert_all(self._connection, _TEXTS, self._new_texts)
        if self._final_rows:
            self._connection.execute(_END, self._final_rows)
            self._connection.execute(_ANSWER, self._final_texts)
        self._clear()

    def _touch(self, record: Record, conversation: str) -> None:
        is_entry = record.learn and not (record.auxiliary or record.is_running)
        self._activities.append(
            conversations.Activity(conversation, record.namespace, record.created_at, is_entry)
        )

    def _conversation_of(self, record: Record) -> str:
        """Return the id of the record's conversation, which may not exist yet."""
        if record.conversation is not None:
            return _key(record.namespace, "named", record.conversation)
        return self._continued(record) or _key(record.namespace, "begins", record.id)

    def _continued(self, record: Record) -> str | None:
        """Return the principal's conversation that equals the messages up to the last answer.

        If several match, it is the newest one that has not been continued: two users who got the
        same greeting keep separate conversations.
        """
        answers = [i for i, turn in enumerate(record.messages) if turn["role"] == "assistant"]
        if not answers:
            return None
        prefix = prefix_hash(record.messages[: answers[-1] + 1])
        if prefix in self._unwritten_prefixes:
            self.flush()
        parameters = {
            "namespace": record.namespace,
            "prefix": prefix,
            "principal": record.principal,
            "at": record.created_at,
        }
        conversation: str | None = self._connection.scalar(_CONTINUED, parameters)
        return conversation


def abort_running(session: Session, server: str, unended: Collection[str]) -> int:
    """Abort the running interactions of a daemon that no final record will end; return how many.

    Args:
        session: In a write transaction.
        server: The daemon.
        unended: Ids for which a final record will still come. If one comes for another interaction
            after all, it replaces this abort.
    """
    lost = Interaction.id.not_in(unended)
    abort = (
        update(Interaction)
        .where(Interaction.status == InteractionStatus.RUNNING, Interaction.server == server, lost)
        .values(status=InteractionStatus.ABORTED, error=INTERRUPTED)
        .returning(Interaction.id)
        .execution_options(synchronize_session=False)
    )
    return len(session.execute(abort).all())


def prefix_hash(messages: Iterable[Message]) -> str:
    """Hash the roles and texts of a conversation, ignoring differences in white space.

    System messages are left out: they belong to the application and may change between turns.
    """
    turns = [
        [message["role"], " ".join(message_text(message).split())]
        for message in messages
        if message["role"] not in SYSTEM_ROLES
    ]
    return hashlib.sha256(json.dumps(turns).encode()).hexdigest()


def _row(record: Record) -> dict[str, Any]:
    """Return the columns of an interaction, except its conversation."""
    answer = {"role": "assistant", "content": record.response}
    messages = record.messages if record.is_running else [*record.messages, answer]
    values = {name: getattr(record, name) for name in SHARED_COLUMNS}
    return values | {"prefix_hash": prefix_hash(messages)}


SHARED_COLUMNS = tuple(
    name
    for name in Record.__dataclass_fields__
    if name in Interaction.__table__.columns and name != "conversation"
)


def _key(namespace: str, origin: str, name: str) -> str:
    """Return the id of a conversation; equal client ids in two namespaces give two ids."""
    digest = hashlib.sha256(json.dumps([namespace, origin, name]).encode()).hexdigest()
    return f"con_{digest[:32]}"


# Built once, because they are executed for every batch or record.
_same = (
    select(Interaction.id, Interaction.conversation, Interaction.created_at)
    .where(
        Interaction.namespace == bindparam("namespace"),
        Interaction.prefix_hash == bindparam("prefix"),
        Interaction.principal == bindparam("principal"),
        Interaction.created_at <= bindparam("at"),
    )
    .order_by(Interaction.created_at.desc(), Interaction.id.desc())
    .limit(MAX_CONTINUATION_CANDIDATES)
    .subquery()
)
_later = aliased(Interaction)
_CONTINUED = (
    select(_same.c.conversation)
    .order_by(
        exists().where(
            _later.conversation == _same.c.conversation, _later.created_at > _same.c.created_at
        ),
        _same.c.created_at.desc(),
        _same.c.id.desc(),
    )
    .limit(1)
)
_KNOWN = select(
    Interaction.id, Interaction.status, Interaction.error, Interaction.conversation
).where(Interaction.id.in_(bindparam("ids", expanding=True)))
_BEGIN, _TEXTS = insert(Interaction), insert(Payload)
_END = (
    update(Interaction)
    .where(Interaction.id == bindparam("_id"))
    .values({name: bindparam(name) for name in (*SHARED_COLUMNS, "prefix_hash") if name != "id"})
)
_ANSWER = (
    update(Payload)
    .where(Payload.interaction == bindparam("_id"))
    .values(params=bindparam("params"), response=bindparam("response"))
)
