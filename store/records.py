"""Records: how a served request gets into the tables, once, and in few statements for many.

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

MAX_CONTINUED = 32
"""Of the conversations that went the same way, those that are looked at: a greeting that comes with
every visitor is said by thousands."""
INTERRUPTED = "the answer was cut off before its end could be recorded"
"""The error of interactions whose process was killed, or that nothing would take."""


@dataclass(frozen=True)
class Record:
    """One request and its response, as the gateway hands it over."""

    id: str
    namespace: str
    conversation: str | None
    """As the client named it; None to find it by the messages."""
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
    """Of what the messages say."""
    server: str = ""
    """Which daemon answers, so that it knows at its next start what died with it."""
    endpoint: str = "/v1/chat/completions"
    """The path that was asked."""
    auxiliary: bool = False
    """Whether the client made the request for itself, as for a title: not a turn."""

    @property
    def is_running(self) -> bool:
        """Whether this is a beginning, whose end is still to come."""
        return self.status is InteractionStatus.RUNNING

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for the spool."""
        return asdict(self) | {"created_at": self.created_at.isoformat()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what `to_json` wrote, also in a release before `auxiliary` and the arm `live`."""
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
    """Keep interactions and their texts; how many of them are new, or have ended by it.

    Args:
        connection: In a write transaction.
        records: In the order in which they came.
        new: Identifiers that are certainly not in the tables: they need not be looked for.
    """
    latest: dict[str, Record] = {}
    for record in records:
        if record.id not in latest or latest[record.id].is_running:
            latest[record.id] = record
    there = [each for each in latest if each not in new]
    rows = connection.execute(_KNOWN, {"ids": there}) if there else ()
    known = {row.id: row for row in rows}
    kept = _Kept(connection)
    for record in latest.values():
        row = known.get(record.id)
        if row is None:
            kept.begin(record)
        elif (
            row.status is InteractionStatus.RUNNING or row.error == INTERRUPTED
        ) and not record.is_running:
            kept.end(record, row.conversation)
    kept.flush()
    return kept.count


class _Kept:
    """Rows on their way into the tables; the order is that of the records."""

    def __init__(self, connection: Connection) -> None:
        self.count = 0
        self._connection = connection
        self._forget()

    def _forget(self) -> None:
        self._said: set[str] = set()
        """Prefix hashes of rows that no query finds yet."""
        self._conversations: list[conversations.Activity] = []
        self._begun: list[dict[str, Any]] = []
        self._ended: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []

    def begin(self, record: Record) -> None:
        """Add an interaction that is new."""
        conversation = self._conversation_of(record)
        self._touch(record, conversation)
        row = _row(record)
        self._said.add(row["prefix_hash"])
        self._begun.append(row | {"conversation": conversation})
        self._texts.append(
            {
                "interaction": record.id,
                "messages": record.messages,
                "params": record.params,
                "response": record.response,
            }
        )
        self.count += 1

    def end(self, record: Record, conversation: str) -> None:
        """Say how an interaction ended that is in the tables as running."""
        self._touch(record, conversation)
        row = _row(record)
        self._said.add(row["prefix_hash"])
        self._ended.append(row | {"_id": record.id})
        self._answers.append(
            {"_id": record.id, "params": record.params, "response": record.response}
        )
        self.count += 1

    def flush(self) -> None:
        """Write what was added."""
        conversations.touch_all(self._connection, self._conversations)
        insert_all(self._connection, _BEGIN, self._begun)
        insert_all(self._connection, _TEXTS, self._texts)
        if self._ended:
            self._connection.execute(_END, self._ended)
            self._connection.execute(_ANSWER, self._answers)
        self._forget()

    def _touch(self, record: Record, conversation: str) -> None:
        is_signal = record.learn and not (record.auxiliary or record.is_running)
        self._conversations.append(
            conversations.Activity(conversation, record.namespace, record.created_at, is_signal)
        )

    def _conversation_of(self, record: Record) -> str:
        """The key of the conversation that the record belongs to, which may not exist yet."""
        if record.conversation is not None:
            return _key(record.namespace, "named", record.conversation)
        return self._continued(record) or _key(record.namespace, "begins", record.id)

    def _continued(self, record: Record) -> str | None:
        """The principal's conversation that went as the messages up to the last answer go.

        Where several went the same way, the newest that nobody has continued: two people who were
        greeted alike keep their own conversations.
        """
        answers = [i for i, turn in enumerate(record.messages) if turn["role"] == "assistant"]
        if not answers:
            return None
        prefix = prefix_hash(record.messages[: answers[-1] + 1])
        if prefix in self._said:
            self.flush()
        asked = {
            "namespace": record.namespace,
            "prefix": prefix,
            "principal": record.principal,
            "at": record.created_at,
        }
        found: str | None = self._connection.scalar(_CONTINUED, asked)
        return found


def abort_running(session: Session, server: str, unended: Collection[str]) -> int:
    """Say of what a daemon has begun, and nobody will end, that it was aborted; how many.

    Args:
        session: In a write transaction.
        server: The daemon.
        unended: What it will still end; what comes of others all the same takes the place of this.
    """
    over = Interaction.id.not_in(unended)
    died = (
        update(Interaction)
        .where(Interaction.status == InteractionStatus.RUNNING, Interaction.server == server, over)
        .values(status=InteractionStatus.ABORTED, error=INTERRUPTED)
        .returning(Interaction.id)
        .execution_options(synchronize_session=False)
    )
    return len(session.execute(died).all())


def prefix_hash(messages: Iterable[Message]) -> str:
    """Identify a course of conversation: roles and texts, whatever the white space.

    System messages do not count: they are the application's, and may change between turns.
    """
    said = [
        [message["role"], " ".join(message_text(message).split())]
        for message in messages
        if message["role"] not in SYSTEM_ROLES
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _row(record: Record) -> dict[str, Any]:
    """The columns of an interaction, but for its conversation."""
    answer = {"role": "assistant", "content": record.response}
    said = record.messages if record.is_running else [*record.messages, answer]
    values = {name: getattr(record, name) for name in SHARED_COLUMNS}
    return values | {"prefix_hash": prefix_hash(said)}


SHARED_COLUMNS = tuple(
    name
    for name in Record.__dataclass_fields__
    if name in Interaction.__table__.columns and name != "conversation"
)


def _key(namespace: str, origin: str, name: str) -> str:
    """A client's name for a conversation is its own: in another namespace it is another one."""
    digest = hashlib.sha256(json.dumps([namespace, origin, name]).encode()).hexdigest()
    return f"con_{digest[:32]}"


# Built once: executed for many records, or for each.
_same = (
    select(Interaction.id, Interaction.conversation, Interaction.created_at)
    .where(
        Interaction.namespace == bindparam("namespace"),
        Interaction.prefix_hash == bindparam("prefix"),
        Interaction.principal == bindparam("principal"),
        Interaction.created_at <= bindparam("at"),
    )
    .order_by(Interaction.created_at.desc(), Interaction.id.desc())
    .limit(MAX_CONTINUED)
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
