"""Feedback: signals on interactions, the raw material of lessons.

Comes through the gateway, possibly twice: the same identifier with the same content is the same
feedback. It wakes the conversation, so that extraction reads it (again) once it is idle.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from store import conversations
from store.db import Session, insert_if_absent, new_id
from store.models import Feedback, Interaction
from store.schema import Trust, storable


class UnknownTarget(Exception):
    """The interaction that the feedback is about does not exist in this namespace."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"There is no interaction {target!r}: send the value of the answer's "
            "X-Byheart-Interaction header."
        )


class UnknownFeedback(Exception):
    """There is no such feedback in this namespace."""

    def __init__(self, feedback: str) -> None:
        super().__init__(f"There is no feedback {feedback!r} of this caller.")


class FeedbackConflict(Exception):
    """Other feedback has the identifier."""

    def __init__(self, feedback: str) -> None:
        super().__init__(
            f"Feedback {feedback!r} exists with other content: feedback is never changed, so give "
            "a new one a new id, or none."
        )


@dataclass(frozen=True)
class NewFeedback:
    """Feedback as it came in."""

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
    """Keep feedback; the row, and whether it is new.

    Args:
        session: In a write transaction.
        namespace: Whose.
        new: The feedback.
        now: The time.
        by: The principal on whose interactions alone it may be; None for any of the namespace.

    Raises:
        UnknownTarget: There is no such interaction.
        FeedbackConflict: The identifier is taken by other feedback.
    """
    kept = {"read": True, "key_share": True}  # retention waits, or it is gone already
    target = session.get(Interaction, new.target_id, with_for_update=kept)
    if target is None or target.namespace != namespace or not _is_of(target.principal, by):
        raise UnknownTarget(new.target_id)
    feedback_id = storable(new.id) if new.id else new_id("fb")
    content = _content(new)
    identity = {"namespace": namespace, "id": feedback_id}
    added = insert_if_absent(
        session, Feedback, identity | content | {"trust": new.trust, "created_at": now}
    )
    row = session.get_one(Feedback, identity)
    if not added and _written(content) != _written({name: getattr(row, name) for name in content}):
        raise FeedbackConflict(feedback_id)
    if added:
        target.auxiliary = False  # feedback shows that people read it as a turn
        conversations.touch(session, target.conversation, now, is_signal=target.learn)
    return row, added


def get(session: Session, namespace: str, feedback_id: str, by: str | None) -> Feedback:
    """A feedback.

    Raises:
        UnknownFeedback: There is none of that identifier, or not by that principal.
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
    """Feedback by identifier.

    Args:
        session: In any transaction.
        namespace: Whose.
        by: Only that of this principal; None for all of the namespace.
        target: Only that on this interaction.
        after: Only what comes after this identifier.
        limit: Most of it.
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
    """Whether a principal is `by`, or one of its end users."""
    return by is None or principal == by or principal.startswith(f"{by}/")


def _written(content: dict[str, Any]) -> str:
    """Content to be compared: in Python true equals 1, in JSON it does not."""
    return json.dumps(content, sort_keys=True)


def _content(new: NewFeedback) -> dict[str, Any]:
    """What makes two feedbacks the same, as the database will give it back."""
    return {
        "interaction": new.target_id,
        "principal": storable(new.principal),
        "name": storable(new.name),
        "value": new.value,
        "comment": storable(new.comment) if new.comment is not None else None,
        "demonstration": storable(new.demonstration) if new.demonstration is not None else None,
        "tags": new.tags,
    }
