"""Feedback: signals on interactions, the raw material of lessons.

Comes through the gateway, possibly twice: the same identifier with the same content is the same
feedback. It wakes the conversation, so that extraction reads it (again) once it is idle.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from store import conversations
from store.db import Session, insert_new, new_id
from store.models import Feedback, Interaction
from store.schema import Trust, storable


class UnknownTarget(Exception):
    """The interaction that the feedback is about does not exist in this namespace."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"There is no interaction {target!r}: send the value of the answer's "
            "X-Byheart-Interaction header."
        )


class Conflict(Exception):
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


def add(session: Session, namespace: str, new: NewFeedback, now: datetime) -> tuple[Feedback, bool]:
    """Keep feedback; the row, and whether it is new.

    Raises:
        UnknownTarget: The interaction is not in this namespace.
        Conflict: The identifier is taken by other feedback.
    """
    target = session.get(Interaction, new.target_id)
    if target is None or target.namespace != namespace:
        raise UnknownTarget(new.target_id)
    feedback_id = storable(new.id) if new.id else new_id("fb")
    content = _content(new)
    identity = {"namespace": namespace, "id": feedback_id}
    added = insert_new(
        session, Feedback, identity | content | {"trust": new.trust, "created_at": now}
    )
    row = session.get_one(Feedback, identity)
    if not added and any(getattr(row, name) != value for name, value in content.items()):
        raise Conflict(feedback_id)
    if added:
        conversations.touch(session, target.conversation, now, is_signal=target.learn)
    return row, added


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
