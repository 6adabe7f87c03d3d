"""The audit log: who changed what, in a hash chain that makes later edits evident.

Each row's hash covers its content and the previous row's hash. The head row stores the last hash,
so truncation is detected too. A row is appended in the transaction of the change it describes. The
chain detects edits of single rows; an attacker who can rewrite the whole database can rewrite the
chain as well.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from store.db import Session
from store.operations import Audit, AuditHead
from store.schema import storable

GENESIS_HASH = "0" * 64
"""The previous hash in the first row."""
BYHEART = "byheart"
"""The actor of automatic changes."""


class Tampered(Exception):
    """The audit log differs from what was appended to it."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        super().__init__(
            f"The audit log was changed at row {seq}: that row or the one before was edited, "
            "added or removed. Compare it with a backup."
        )


def append(
    session: Session, actor: str, action: str, subject: str, detail: dict[str, Any], now: datetime
) -> Audit:
    """Append a row to the chain."""
    # The row lock serialises writers on every database.
    head = session.get_one(AuditHead, 1, with_for_update=True, populate_existing=True)
    row = Audit(
        seq=head.seq + 1,
        at=now.astimezone(UTC),
        actor=storable(actor),
        action=storable(action),
        subject=storable(subject),
        detail=detail,
        prev_hash=head.hash,
    )
    row.hash = _hash(row)
    session.add(row)
    head.seq, head.hash = row.seq, row.hash
    session.flush()
    return row


def verify(session: Session) -> int:
    """Recompute the whole chain and return its number of rows.

    Raises:
        Tampered: A row was changed, removed, or added without `append`.
    """
    seq, previous = 0, GENESIS_HASH
    rows = select(Audit).order_by(Audit.seq).execution_options(yield_per=500)
    with session.scalars(rows) as chain:
        for row in chain:
            if row.seq != seq + 1 or row.prev_hash != previous or row.hash != _hash(row):
                raise Tampered(seq + 1)
            seq, previous = row.seq, row.hash
    head = session.get(AuditHead, 1)
    if head is None or (head.seq, head.hash) != (seq, previous):
        raise Tampered(seq + 1)
    return seq


def _hash(row: Audit) -> str:
    content = [
        row.seq,
        row.at.isoformat(),
        row.actor,
        row.action,
        row.subject,
        row.detail,
        row.prev_hash,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def page(session: Session, after: int | None, limit: int) -> list[Audit]:
    """Return rows, newest first; with `after`, only rows with a smaller `seq`."""
    rows = select(Audit).order_by(Audit.seq.desc()).limit(limit)
    return list(session.scalars(rows if after is None else rows.where(Audit.seq < after)))
