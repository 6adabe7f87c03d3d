"""Snapshots: immutable contexts, named by the hash of their content.

A run takes a snapshot when it is opened and is trained on exactly that. What the resulting adapter
has learned of it is in its statements (statements.py). Equal contents share one row; rows are never
changed or deleted.
"""

from datetime import datetime

from store import lessons, prompts
from store.contexts import Context
from store.db import Session, insert_if_absent
from store.lessons import rendered
from store.models import Lesson, Snapshot
from store.views import View


def select_lessons(session: Session, namespace: str, token_budget: int) -> list[Lesson]:
    """Return the lessons that a snapshot taken in this transaction would have, in order."""
    return lessons.fit(lessons.in_use(session, namespace), token_budget)


def take(session: Session, namespace: str, token_budget: int, now: datetime) -> Snapshot:
    """Store the whole context of a namespace, whether it is in the prompt or in the weights."""
    registered = prompts.system_prompt(session, namespace)
    used = select_lessons(session, namespace, token_budget)
    context = Context(registered.text if registered else None, tuple(map(lessons.text, used)))
    insert_if_absent(
        session,
        Snapshot,
        {
            "hash": context.hash,
            "namespace": namespace,
            "system_prompt": context.system_prompt,
            "lessons": rendered(used),
            "created_at": now,
        },
    )
    return session.get_one(Snapshot, (context.hash, namespace))


def save_prompt_context(session: Session, view: View, now: datetime) -> None:
    """Store the context that prompts contain, so that answers can be explained later."""
    values = {
        "hash": view.snapshot,
        "namespace": view.namespace,
        "system_prompt": view.context.system_prompt,
        "lessons": list(view.rendered),
        "created_at": now,
    }
    insert_if_absent(session, Snapshot, values)


def get(session: Session, content_hash: str, namespace: str) -> Snapshot | None:
    """Return the snapshot with a content hash in a namespace, or None."""
    return session.get(Snapshot, (content_hash, namespace))


def context_of(snapshot: Snapshot) -> Context:
    """Return the snapshot as a context for `compose`; the two have the same hash."""
    return Context(snapshot.system_prompt, tuple(lesson["text"] for lesson in snapshot.lessons))
