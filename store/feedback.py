"""Feedback: ratings, comments and corrections on interactions, from which lessons are extracted.

The gateway may deliver feedback twice: the same id with the same content is the same feedback.
Feedback marks its conversation as unread, so extraction reads it again once it is idle. If it shows
that the live adapter does not know a statement after all, it also records the relapse.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from store import conversations, relapses
from store.db import Session, insert_if_absent, new_id
from store.models import Feedback, Interaction
from store.schema import Trust, storable


class UnknownTarget(Exception):
    """The namespace has no interaction with the target's id."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"There is no interaction {target!r}: send the value of the answer's "
            "X-Byheart-Interaction header."
        )


class UnknownFeedback(Exception):
    """The namespace has no feedback with this id, or another caller sent it."""

    def __init__(self, feedback: str) -> None:
        super().__init__(f"This caller has sent no feedback {feedback!r}.")


class FeedbackConflict(Exception):
    """Different feedback with the same id exists."""

    def __init__(self, feedback: str) -> None:
        super().__init__(
            f"Feedback {feedback!r} exists with different content. Feedback is immutable: send "
            "another one with a new id, or without an id."
        )


@dataclass(frozen=True)
class NewFeedback:
    """Feedback as received."""

    id: str | None
    target_id: str
    name: str
    value: dict[str, Any]
    comment: str | None
    demonstration: str | None
    tags: dict[str, Any]
    principal: str
    trust: Trust


def add(
    session: Session, namespace: str, new: NewFeedback, now: datetime, by: str | None = None
) -> tuple[Feedback, bool]:
    """Store feedback; return the row and whether it is new.

    Args:
        session: In a write transaction.
        namespace: The namespace of the interaction.
        new: The feedback.
        now: The current time.
        by: Accept feedback only on this principal's interactions; None accepts it on all.

    Raises:
        UnknownTarget: There is no such interaction.
        FeedbackConflict: Different feedback has the id.
    """
    lock = {"read": True, "key_share": True}  # retention cannot delete the row meanwhile
    target = session.get(Interaction, new.target_id, with_for_update=lock)
    if target is None or target.namespace != namespace or not _is_of(target.principal, by):
        raise UnknownTarget(new.target_id)
    feedback_id = storable(new.id) if new.id else new_id("fb")
    content = _content(new)
    identity = {"namespace": namespace, "id": feedback_id}
    added = insert_if_absent(
        session, Feedback, identity | content | {"trust": new.trust, "created_at": now}
    )
    row = session.get_one(Feedback, identity)
    if not added and _canonical(content) != _canonical(
        {name: getattr(row, name) for name in content}
    ):
        raise FeedbackConflict(feedback_id)
    if added:
        target.auxiliary = False  # feedback shows that people saw it as a turn
        conversations.touch(session, target.conversation, now, is_entry=target.learn)
        relapses.record_shown(session, target, row, now)
    return row, added


def get(session: Session, namespace: str, feedback_id: str, by: str | None) -> Feedback:
    """Return one feedback.

    Raises:
        UnknownFeedback: The id is unknown, or the feedback is another principal's.
    """
    row = session.get(Feedback, {"namespace": namespace, "id": storable(feedback_id)})
    if row is None or not _is_of(row.principal, by):
        raise UnknownFeedback(feedback_id)
    return row


def page(
    session: Session,
    namespace: str,
    by: str | None,
    *,
    target: str | None,
    after: str | None,
    limit: int,
) -> list[Feedback]:
    """Return a page of feedback, ordered by id.

    Args:
        session: In any transaction.
        namespace: The namespace to read.
        by: Only feedback of this principal; None for everyone's.
        target: Only feedback on this interaction.
        after: Only feedback with a greater id.
        limit: The maximum number of rows.
    """
    rows = select(Feedback).where(Feedback.namespace == namespace)
    if by is not None:
        rows = rows.where(Feedback.principal == by)
    if target is not None:
        rows = rows.where(Feedback.interaction == storable(target))
    if after is not None:
        rows = rows.where(Feedback.id > storable(after))
    return list(session.scalars(rows.order_by(Feedback.id).limit(limit)))


def _is_of(principal: str, by: str | None) -> bool:
    """Return whether a principal is `by` or one of its end users; any is if `by` is None."""
    return by is None or principal == by or principal.startswith(f"{by}/")


def _canonical(content: dict[str, Any]) -> str:
    """Serialise content for comparison: in Python True equals 1, in JSON true does not."""
    return json.dumps(content, sort_keys=True)


def _content(new: NewFeedback) -> dict[str, Any]:
    """Return the columns that identify equal feedback, with the values the database returns."""
    return {
        "interaction": new.target_id,
        "principal": storable(new.principal),
        "name": storable(new.name),
        "value": new.value,
        "comment": storable(new.comment) if new.comment is not None else None,
        "demonstration": storable(new.demonstration) if new.demonstration is not None else None,
        "tags": new.tags,
    }
