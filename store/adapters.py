"""Adapters: their lineage, their rollout, and the pointer to the one that serves.

Training registers a candidate, the gate judges it, promotion and rollback move the alias. Each is
one transaction, in which the alias, statuses, lessons, events and the audit log change together.
Invariants others rely on:
- at most one adapter of a namespace is live, and it is the one the alias names;
- the alias moves by compare-and-swap only, so two deciders cannot both win;
- nothing goes live that did not pass its gate.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from store import audit, lessons, namespaces
from store.db import Session, insert_new, new_id
from store.manifests import AdapterCorrupt as AdapterCorrupt
from store.manifests import verify_files as verify_files
from store.models import Adapter, Alias, Evaluation, RolloutEvent
from store.schema import AdapterStatus
from store.schema import IllegalTransition as IllegalTransition

TRANSITIONS: dict[AdapterStatus, tuple[AdapterStatus, ...]] = {
    AdapterStatus.CANDIDATE: (
        AdapterStatus.SHADOW,
        AdapterStatus.CANARY,
        AdapterStatus.LIVE,
        AdapterStatus.REJECTED,
    ),
    AdapterStatus.SHADOW: (AdapterStatus.CANARY, AdapterStatus.LIVE, AdapterStatus.REJECTED),
    AdapterStatus.CANARY: (AdapterStatus.LIVE, AdapterStatus.REJECTED),
    AdapterStatus.LIVE: (AdapterStatus.RETIRED, AdapterStatus.ROLLED_BACK),
    AdapterStatus.RETIRED: (AdapterStatus.LIVE,),
    AdapterStatus.REJECTED: (),
    AdapterStatus.ROLLED_BACK: (),
}
UNDECIDED = (AdapterStatus.CANDIDATE, AdapterStatus.SHADOW, AdapterStatus.CANARY)


class UnknownAdapter(Exception):
    """There is no such adapter."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no adapter {name!r}: `byheart adapters ls` lists them.")


class NameTaken(Exception):
    """Another adapter has the name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Adapter {name!r} is registered with another manifest or namespace: names come from "
            "content and are never reused, so publish under the name of what was trained."
        )


class StaleAlias(Exception):
    """Another adapter serves than the decision was made for."""

    def __init__(self, namespace: str, expected: str | None) -> None:
        super().__init__(
            f"Namespace {namespace!r} is no longer served by {expected or 'the base'}: look at "
            "what serves now, and decide again."
        )


class NothingToRollBack(Exception):
    """The base serves already."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"Namespace {namespace!r} is served by the base: nothing to roll back.")


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
    """Enter a trained adapter as candidate, with what was measured of it; once per name.

    Raises:
        NameTaken: The name belongs to other content.
    """
    origin = {"namespace": namespace, "manifest_sha256": manifest_sha256}
    values = {"run": run, "parent": parent, "snapshot": snapshot, "path": path} | origin
    state = {"name": name, "status": AdapterStatus.CANDIDATE, "created_at": now}
    added = insert_new(session, Adapter, values | state)
    adapter = _get(session, name)
    if (adapter.namespace, adapter.manifest_sha256) != (namespace, manifest_sha256):
        raise NameTaken(name)
    if added:
        session.add(
            Evaluation(
                id=new_id("eval"), adapter=name, measured=measured, reasons=[], created_at=now
            )
        )
        session.flush()
    return adapter


def get(session: Session, name: str) -> Adapter | None:
    """The adapter of that name."""
    return session.get(Adapter, name)


def live(session: Session, namespace: str) -> Adapter | None:
    """The adapter that serves a namespace; None: the base."""
    alias = session.get(Alias, namespace)
    return session.get(Adapter, alias.adapter) if alias and alias.adapter else None


def listing(session: Session, namespace: str | None = None) -> list[Adapter]:
    """Adapters of a namespace, or of all, newest first."""
    rows = select(Adapter).order_by(Adapter.created_at.desc(), Adapter.run.desc(), Adapter.name)
    return list(session.scalars(rows.where(Adapter.namespace == namespace) if namespace else rows))


def evaluation(session: Session, name: str) -> Evaluation:
    """What was measured of an adapter, and the gate's verdict.

    Raises:
        UnknownAdapter: There is no such adapter.
    """
    rows = select(Evaluation).where(Evaluation.adapter == name)
    row = session.scalar(rows.execution_options(populate_existing=True))
    if row is None:
        raise UnknownAdapter(name)
    return row


def events(session: Session, namespace: str, limit: int) -> list[RolloutEvent]:
    """The newest changes of status, newest first."""
    rows = select(RolloutEvent).where(RolloutEvent.namespace == namespace)
    return list(session.scalars(rows.order_by(RolloutEvent.id.desc()).limit(limit)))


def candidates(session: Session) -> list[Adapter]:
    """Adapters of all namespaces that are on their way to be live, oldest first."""
    rows = select(Adapter).where(Adapter.status.in_(UNDECIDED))
    return list(session.scalars(rows.order_by(Adapter.created_at, Adapter.name)))


def wanted(session: Session) -> list[Adapter]:
    """The adapters that an engine must have loaded: the live ones, and those to roll back to."""
    live = list(session.scalars(select(Adapter).join(Alias, Alias.adapter == Adapter.name)))
    spare = [_last_good(session, adapter.namespace) for adapter in live]
    return live + [adapter for adapter in spare if adapter]


def judge(
    session: Session, name: str, passed: bool, reasons: Sequence[str], now: datetime
) -> Evaluation:
    """Write down the gate's verdict on a candidate; the same verdict again changes nothing.

    Raises:
        UnknownAdapter: There is no such adapter.
        IllegalTransition: The gate has decided otherwise before.
    """
    namespaces.hold(session, _get(session, name).namespace)
    adapter, verdict = _get(session, name), evaluation(session, name)
    if verdict.passed is not None:
        if verdict.passed is not passed:
            words = {True: "passed by its gate", False: "rejected by its gate"}
            raise IllegalTransition(f"Adapter {name}", words[verdict.passed], words[passed])
        return verdict
    verdict.passed = passed
    verdict.reasons = list(reasons)
    if not passed:
        _move(session, adapter, AdapterStatus.REJECTED, " ".join(reasons), now)
    session.flush()
    return verdict


def promote(session: Session, name: str, expected: str | None, reason: str, now: datetime) -> None:
    """Make an adapter the live one, if `expected` (None: the base) is it until now.

    Its lessons leave the prompt, those it does not hold return. Done already, it is not done again.

    Raises:
        UnknownAdapter: There is no such adapter.
        IllegalTransition: It has not passed its gate, or was rejected or rolled back.
        StaleAlias: Another one serves.
    """
    namespace = _get(session, name).namespace
    namespaces.bump(session, namespace)  # holds off other promotions until the end
    adapter = _get(session, name)
    if adapter.status is AdapterStatus.LIVE:
        return
    if not evaluation(session, name).passed:
        raise IllegalTransition(
            f"Adapter {name}", "not passed by its gate", AdapterStatus.LIVE, "Let it be judged."
        )
    _swap(session, namespace, expected, name, now)
    if expected is not None:
        _move(session, _get(session, expected), AdapterStatus.RETIRED, f"{name} took over.", now)
    _move(session, adapter, AdapterStatus.LIVE, reason, now)
    lessons.follow(session, namespace)
    detail = {"namespace": namespace, "before": expected, "reason": reason}
    audit.append(session, "byheart", "promote", name, detail, now)


def rollback(
    session: Session, namespace: str, reason: str, now: datetime
) -> tuple[str, str | None]:
    """Take the live adapter out for good and let the last good one, or the base, serve again.

    Returns:
        The adapter that was live, and the one that is now.

    Raises:
        NothingToRollBack: The base serves.
    """
    namespaces.bump(session, namespace)
    alias = session.get(Alias, namespace, populate_existing=True)
    if alias is None or alias.adapter is None:
        raise NothingToRollBack(namespace)
    bad = _get(session, alias.adapter)
    good = _last_good(session, namespace)
    _swap(session, namespace, bad.name, good.name if good else None, now)
    _move(session, bad, AdapterStatus.ROLLED_BACK, reason, now)
    if good:
        _move(session, good, AdapterStatus.LIVE, f"{bad.name} was rolled back.", now)
    lessons.follow(session, namespace)
    after = good.name if good else None
    detail = {"namespace": namespace, "after": after, "reason": reason}
    audit.append(session, "byheart", "rollback", bad.name, detail, now)
    return bad.name, after


def _get(session: Session, name: str) -> Adapter:
    adapter = session.get(Adapter, name, populate_existing=True)
    if adapter is None:
        raise UnknownAdapter(name)
    return adapter


def _last_good(session: Session, namespace: str) -> Adapter | None:
    """The adapter that was live last, of those that were replaced and not rolled back."""
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


def _swap(
    session: Session, namespace: str, expected: str | None, name: str | None, now: datetime
) -> None:
    insert_new(session, Alias, {"namespace": namespace, "adapter": None, "updated_at": now})
    revision = session.scalar(
        update(Alias)
        .where(Alias.namespace == namespace, Alias.adapter.is_not_distinct_from(expected))
        .values(adapter=name, revision=Alias.revision + 1, updated_at=now)
        .returning(Alias.revision)
        .execution_options(synchronize_session=False)
    )
    if revision is None:
        raise StaleAlias(namespace, expected)
    session.get_one(Alias, namespace, populate_existing=True)


def _move(
    session: Session, adapter: Adapter, status: AdapterStatus, reason: str, now: datetime
) -> None:
    before = adapter.status
    if status not in TRANSITIONS[before]:
        raise IllegalTransition(f"Adapter {adapter.name}", before, status)
    adapter.status = status
    session.add(
        RolloutEvent(
            id=new_id("event"),
            namespace=adapter.namespace,
            adapter=adapter.name,
            before=before,
            after=status,
            reason=reason,
            created_at=now,
        )
    )
    session.flush()  # in this order: at no moment are two live
