"""Namespaces: one application or tenant each.

All other rows belong to one namespace, and nothing crosses from one namespace to another.
`bump_revision` signals to readers that the namespace's prompt may have changed. Like `lock`, it
locks the namespace's row until the transaction ends. A transaction that reads a namespace's state
in order to change it starts with one of the two, so such transactions run one after another.
"""

import re
from datetime import datetime

from sqlalchemy import select, update

from store.adapter_tables import Adapter, Alias
from store.db import Session, insert_if_absent
from store.models import Namespace, Snapshot

DEFAULT = "default"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class BadName(Exception):
    """The name is not valid for a namespace."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is not a valid namespace name: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "with a letter or digit first."
        )


class UnknownNamespace(Exception):
    """There is no such namespace."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There is no namespace {name!r}: check its spelling, or create it first "
            f"(`byheart namespaces add {name}`)."
        )


def ensure(session: Session, name: str, now: datetime) -> bool:
    """Create a namespace unless it exists; return whether it was created.

    Raises:
        BadName: The name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise BadName(name)
    return insert_if_absent(session, Namespace, {"name": name, "created_at": now})


def require(session: Session, name: str) -> None:
    """Check that a namespace exists, so that an unknown name is not mistaken for an empty one.

    Raises:
        UnknownNamespace: There is no such namespace.
    """
    if session.get(Namespace, name) is None:
        raise UnknownNamespace(name)


def names(session: Session) -> list[str]:
    """Return the names of all namespaces, sorted."""
    return list(session.scalars(select(Namespace.name).order_by(Namespace.name)))


def bump_revision(session: Session, name: str) -> int:
    """Record that this transaction changes what a prompt contains; return the new revision.

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
    """Lock a namespace against other changes until this transaction ends.

    Raises:
        UnknownNamespace: There is no such namespace.
    """
    # FOR NO KEY UPDATE: other transactions may still insert rows that refer to the namespace.
    row = select(Namespace.revision).where(Namespace.name == name)
    if session.scalar(row.with_for_update(key_share=True)) is None:
        raise UnknownNamespace(name)


def trained_snapshot(session: Session, name: str) -> Snapshot | None:
    """Return the snapshot that the live adapter was trained on; None if the base serves.

    The weights hold something of all of it, whether or not each statement was learned.
    """
    return session.scalar(
        select(Snapshot)
        .join(
            Adapter,
            (Adapter.snapshot == Snapshot.hash) & (Adapter.namespace == Snapshot.namespace),
        )
        .join(Alias, Alias.adapter == Adapter.name)
        .where(Alias.namespace == name)
    )
