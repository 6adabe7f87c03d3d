"""Namespaces: one application or tenant each.

All other rows belong to one namespace, and nothing crosses from one namespace to another.
`bump_revision` signals to readers that the namespace's prompt may have changed. Like `lock`, it
locks the namespace's row until the transaction ends. A transaction that reads a namespace's state
in order to change it starts with one of the two, so such transactions run one after another.
"""

import re
from datetime import datetime

from sqlalchemy import select, update

from store.db import Session, insert_if_absent
from store.models import Adapter, Alias, Namespace, Snapshot

DEFAULT = "default"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class BadName(Exception):
    """A namespace cannot be called that."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} cannot name a namespace: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "a letter or digit first."
        )


class UnknownNamespace(Exception):
    """There is no such namespace."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no namespace {name!r}: check its spelling, or create it first "
            f"(`byheart namespaces add {name}`)."
        )


def ensure(session: Session, name: str, now: datetime) -> bool:
    """Create the namespace of that name unless it is there; whether it was created.

    Raises:
        BadName: It cannot be called that.
    """
    if not _NAME.fullmatch(name):
        raise BadName(name)
    return insert_if_absent(session, Namespace, {"name": name, "created_at": now})


def require(session: Session, name: str) -> None:
    """See that there is such a namespace, before what it holds is taken for nothing.

    Raises:
        UnknownNamespace: There is none.
    """
    if session.get(Namespace, name) is None:
        raise UnknownNamespace(name)


def names(session: Session) -> list[str]:
    """All namespaces, by name."""
    return list(session.scalars(select(Namespace.name).order_by(Namespace.name)))


def bump_revision(session: Session, name: str) -> int:
    """Say that what a prompt would contain changes with this transaction; the new revision.

    Raises:
        UnknownNamespace: There is no such namespace.
    """
    revision = session.scalar(
        update(Namespace)
        .where(Namespace.name == name)
        .values(revision=Namespace.revision + 1)
        .returning(Namespace.revision)
        .execution_options(synchronize_session=False)
    )
    if revision is None:
        raise UnknownNamespace(name)
    return revision


def lock(session: Session, name: str) -> None:
    """Wait for other changes to the namespace, and hold them off until this transaction's end.

    Raises:
        UnknownNamespace: There is no such namespace.
    """
    # Without the key: rows that refer to the namespace may be written meanwhile.
    row = select(Namespace.revision).where(Namespace.name == name)
    if session.scalar(row.with_for_update(key_share=True)) is None:
        raise UnknownNamespace(name)


def internalised_snapshot(session: Session, name: str) -> Snapshot | None:
    """The context that the namespace's live adapter has in its weights; None: the base serves."""
    return session.scalar(
        select(Snapshot)
        .join(
            Adapter,
            (Adapter.snapshot == Snapshot.hash) & (Adapter.namespace == Snapshot.namespace),
        )
        .join(Alias, Alias.adapter == Adapter.name)
        .where(Alias.namespace == name)
    )
