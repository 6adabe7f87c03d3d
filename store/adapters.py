"""Adapters: their origin, their evaluation, and which of them an engine must load.

A row appears when training has published the folder; `rollouts.py` alone changes its status.
"""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from store import statements
from store.adapter_tables import Adapter, Alias, Evaluation, RolloutEvent
from store.db import Session, insert_if_absent, new_id
from store.schema import AdapterStatus


class UnknownAdapter(Exception):
    """There is no such adapter."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no adapter {name!r}: `byheart adapters ls` lists them.")


class NameTaken(Exception):
    """Another adapter has the name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Adapter {name!r} is registered with another manifest or namespace: names come from "
            "content and are never reused, so publish under the name that training derived."
        )


def register(  # noqa: PLR0913 — an adapter's whole origin
    session: Session,
    *,
    name: str,
    namespace: str,
    run: str,
    parent: str | None,
    snapshot: str,
    path: str,
    manifest_sha256: str,
    measured: dict[str, Any],
    now: datetime,
) -> Adapter:
    """Register a trained adapter as a candidate, with its evaluation; idempotent per name.

    If `measured` has no `statements`, the adapter has learned none.

    Raises:
        NameTaken: The name belongs to other content.
    """
    origin = {"namespace": namespace, "manifest_sha256": manifest_sha256}
    values = {"run": run, "parent": parent, "snapshot": snapshot, "path": path} | origin
    state = {"name": name, "status": AdapterStatus.CANDIDATE, "created_at": now}
    added = insert_if_absent(session, Adapter, values | state)
    adapter = get_one(session, name)
    if (adapter.namespace, adapter.manifest_sha256) != (namespace, manifest_sha256):
        raise NameTaken(name)
    if added:
        session.add(
            Evaluation(
                id=new_id("eval"), adapter=name, measured=measured, reasons=[], created_at=now
            )
        )
        session.flush()
        statements.register(session, adapter, measured.get("statements", []))
    return adapter


def folder(adapter: Adapter, data_dir: Path) -> Path:
    """Return the absolute path of an adapter's folder."""
    return data_dir / adapter.path  # joining an absolute path returns that path


def get(session: Session, name: str) -> Adapter | None:
    """Return the adapter with that name, or None."""
    return session.get(Adapter, name)


def live(session: Session, namespace: str) -> Adapter | None:
    """Return the live adapter of a namespace; None if the base serves."""
    rows = select(Adapter).join(Alias, Alias.adapter == Adapter.name)
    return session.scalar(rows.where(Alias.namespace == namespace))


def listing(session: Session, namespace: str | None = None) -> list[Adapter]:
    """Return the adapters of one namespace, or of all, newest first."""
    rows = select(Adapter).order_by(Adapter.created_at.desc(), Adapter.run.desc(), Adapter.name)
    return list(session.scalars(rows.where(Adapter.namespace == namespace) if namespace else rows))


def evaluation(session: Session, name: str) -> Evaluation:
    """Return an adapter's measurements and the gate's verdict.

    Raises:
        UnknownAdapter: There is no such adapter.
    """
    rows = select(Evaluation).where(Evaluation.adapter == name)
    row = session.scalar(rows.execution_options(populate_existing=True))
    if row is None:
        raise UnknownAdapter(name)
    return row


def candidates(session: Session) -> list[Adapter]:
    """Return the candidates of all namespaces, oldest first."""
    rows = select(Adapter).where(Adapter.status == AdapterStatus.CANDIDATE)
    return list(session.scalars(rows.order_by(Adapter.created_at, Adapter.name)))


def required(session: Session) -> list[Adapter]:
    """Return the adapters that an engine must load: the live ones and their rollback targets."""
    live = list(session.scalars(select(Adapter).join(Alias, Alias.adapter == Adapter.name)))
    spare = [last_good(session, adapter.namespace) for adapter in live]
    return live + [adapter for adapter in spare if adapter]


def unneeded(session: Session, loaded: Collection[str]) -> list[str]:
    """Return the loaded adapters of this database that are neither required nor candidates."""
    needed = {adapter.name for adapter in [*required(session), *candidates(session)]}
    ours = session.scalars(select(Adapter.name).where(Adapter.name.in_(loaded)))
    return [name for name in ours if name not in needed]


def get_one(session: Session, name: str) -> Adapter:
    """Return the adapter with that name, refreshed from the database.

    Raises:
        UnknownAdapter: There is no such adapter.
    """
    adapter = session.get(Adapter, name, populate_existing=True)
    if adapter is None:
        raise UnknownAdapter(name)
    return adapter


def last_good(session: Session, namespace: str) -> Adapter | None:
    """Return the most recently live adapter that was replaced, not rolled back."""
    return session.scalar(
        select(Adapter)
        .join(RolloutEvent, RolloutEvent.adapter == Adapter.name)
        .where(
            Adapter.namespace == namespace,
            Adapter.status == AdapterStatus.RETIRED,
            RolloutEvent.after == AdapterStatus.LIVE,
        )
        .order_by(RolloutEvent.id.desc())
        .limit(1)
    )
