"""Snapshots: immutable contexts, named by the hash of what they say.

A run takes one when it is opened and learns exactly that; the adapter made from it holds it, and
promotion and rollback move lessons by it. The same content is the same row: nothing here changes
or deletes one.
"""

from datetime import datetime

from store import lessons, prompts
from store.contexts import Context
from store.db import Session, insert_if_absent
from store.lessons import rendered
from store.models import Lesson, Snapshot
from store.views import View


def select_lessons(session: Session, namespace: str, token_budget: int) -> list[Lesson]:
    """Return the lessons that a snapshot taken in this transaction would hold, in its order."""
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
    """Store the context in prompts, so that answers can be explained later."""
    values = {
        "hash": view.snapshot,
        "namespace": view.namespace,
        "system_prompt": view.context.system_prompt,
        "lessons": list(view.rendered),
        "created_at": now,
    }
    insert_if_absent(session, Snapshot, values)


def get(session: Session, content_hash: str, namespace: str) -> Snapshot | None:
    """The snapshot of that content in that namespace."""
    return session.get(Snapshot, (content_hash, namespace))


def context_of(snapshot: Snapshot) -> Context:
    """The snapshot as a context to compose with; its hash is the snapshot's."""
    return Context(snapshot.system_prompt, tuple(lesson["text"] for lesson in snapshot.lessons))
