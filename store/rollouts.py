"""Rollouts: which adapter serves a namespace, and how that changes.

The gate judges a candidate; promotion and rollback move the alias. Each is one transaction that
changes the alias, statuses, lessons, events and audit log together. Invariants:
- at most one adapter of a namespace is live, and the alias names it;
- the alias changes by compare-and-swap only, so of two concurrent decisions only one succeeds;
- only adapters that passed their gate go live, and rejected or rolled-back ones never do again;
- a lesson is internalised in the same transaction that makes an adapter live which has learned it;
- promotion fails if a lesson or system prompt of the adapter was retired or changed since its run
  started, or if the live adapter is from a later run; a rollback restores the last good adapter
  without these checks.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, update

from store import audit, jobs, lessons, namespaces, prompts
from store.adapter_tables import Adapter, Alias, Evaluation, RolloutEvent, Run
from store.adapters import evaluation, get_one, last_good
from store.db import Session, insert_if_absent, new_id
from store.models import Snapshot
from store.schema import AdapterStatus
from store.schema import IllegalTransition as IllegalTransition

TRANSITIONS: dict[AdapterStatus, tuple[AdapterStatus, ...]] = {
    AdapterStatus.CANDIDATE: (AdapterStatus.LIVE, AdapterStatus.REJECTED),
    AdapterStatus.LIVE: (AdapterStatus.RETIRED, AdapterStatus.ROLLED_BACK),
    AdapterStatus.RETIRED: (AdapterStatus.LIVE, AdapterStatus.ROLLED_BACK),
    AdapterStatus.REJECTED: (),
    AdapterStatus.ROLLED_BACK: (),
}


class StaleAlias(Exception):
    """A different adapter is live than the decision assumed."""

    def __init__(self, namespace: str, expected: str | None) -> None:
        super().__init__(
            f"Namespace {namespace!r} is not served by {expected or 'the base'}: check which "
            "adapter is live and decide again."
        )


class OutdatedAdapter(Exception):
    """A candidate learned something retired since its run started, or a later adapter is live."""


class NothingToRollBack(Exception):
    """The base model already serves the namespace."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"Namespace {namespace!r} is served by the base: nothing to roll back.")


def judge(
    session: Session, name: str, passed: bool, reasons: Sequence[str], now: datetime
) -> Evaluation:
    """Record the gate's verdict on a candidate; idempotent.

    Raises:
        UnknownAdapter: There is no such adapter.
        IllegalTransition: The gate has already recorded the opposite verdict.
    """
    namespaces.lock(session, get_one(session, name).namespace)
    adapter, verdict = get_one(session, name), evaluation(session, name)
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


def approve(session: Session, candidate: Adapter, actor: str, now: datetime) -> None:
    """Approve a candidate that waits for approval and enqueue its rollout."""
    payload = {"adapter": candidate.name, "approved": True}
    jobs.enqueue(session, "rollout", payload, now, unique_key=f"approved {candidate.name}")
    detail = {"namespace": candidate.namespace}
    audit.append(session, actor, "approved", candidate.name, detail, now)


def withdraw(session: Session, name: str, reason: str, now: datetime) -> None:
    """Withdraw an adapter permanently, because it must not or cannot serve.

    A candidate is rejected, a live adapter is rolled back, and a retired one is no longer a
    rollback target.

    Raises:
        UnknownAdapter: There is no such adapter.
    """
    namespaces.lock(session, get_one(session, name).namespace)
    adapter = get_one(session, name)
    if adapter.status is AdapterStatus.LIVE:
        rollback(session, adapter.namespace, audit.BYHEART, reason, now)
    elif adapter.status is AdapterStatus.RETIRED:
        _move(session, adapter, AdapterStatus.ROLLED_BACK, reason, now)
    elif adapter.status is AdapterStatus.CANDIDATE:
        verdict = evaluation(session, name)
        verdict.passed = False
        verdict.reasons = [*verdict.reasons, f"FAILED: {reason}"]
        _move(session, adapter, AdapterStatus.REJECTED, reason, now)


def promote(session: Session, name: str, expected: str | None, reason: str, now: datetime) -> None:
    """Make an adapter live, if `expected` (None for the base) is live now; idempotent.

    What it has learned leaves the prompt; what only its predecessor has learned returns to it.

    Raises:
        UnknownAdapter: There is no such adapter.
        IllegalTransition: It has not passed its gate, or was rejected or rolled back.
        OutdatedAdapter: It holds a lesson or a system prompt that is no longer used, or comes from
            an earlier run than the live adapter.
        StaleAlias: Another adapter is live.
    """
    namespace = get_one(session, name).namespace
    namespaces.bump_revision(session, namespace)  # locks out other promotions until the end
    adapter = get_one(session, name)
    if adapter.status is AdapterStatus.LIVE:
        return
    if not evaluation(session, name).passed:
        raise IllegalTransition(
            f"Adapter {name}", "not passed by its gate", AdapterStatus.LIVE, "Run its gate first."
        )
    if problem := _outdated(session, adapter, expected):
        raise OutdatedAdapter(f"{name} {problem}")
    _swap(session, namespace, expected, name)
    if expected is not None:
        _move(session, get_one(session, expected), AdapterStatus.RETIRED, f"{name} took over.", now)
    _move(session, adapter, AdapterStatus.LIVE, reason, now)
    lessons.sync_with_live_adapter(session, namespace)
    detail = {"namespace": namespace, "before": expected, "reason": reason}
    audit.append(session, audit.BYHEART, "promote", name, detail, now)


def _outdated(session: Session, adapter: Adapter, live: str | None) -> str | None:
    """Return why the adapter's training data is outdated, or None if it is not."""
    snapshot = session.get_one(Snapshot, (adapter.snapshot, adapter.namespace))
    if gone := lessons.texts_no_longer_used(session, snapshot):
        return f"was trained on lessons that are no longer used: {' | '.join(gone)}"
    registered = prompts.system_prompt(session, adapter.namespace)
    if snapshot.system_prompt not in (None, registered.text if registered else None):
        return "was trained on a system prompt that is no longer registered."
    if live and _began(session, get_one(session, live)) > _began(session, adapter):
        return f"is from an earlier run than {live}, which is live."
    return None


def _began(session: Session, adapter: Adapter) -> datetime:
    return session.get_one(Run, adapter.run).created_at


def rollback(
    session: Session,
    namespace: str,
    actor: str,
    reason: str,
    now: datetime,
    expected: str | None = None,
) -> tuple[str, str | None]:
    """Roll back the live adapter permanently; the last good adapter, or the base, serves again.

    Args:
        session: In a write transaction.
        namespace: The namespace.
        actor: Who requested it, for the audit log.
        reason: Why, for the event and the audit log.
        now: The current time.
        expected: The adapter to roll back; None for whichever is live.

    Returns:
        The adapter that was live, and the one that is live now.

    Raises:
        NothingToRollBack: The base serves.
        StaleAlias: `expected` is not live.
    """
    namespaces.bump_revision(session, namespace)
    alias = session.get(Alias, namespace, populate_existing=True)
    if alias is None or alias.adapter is None:
        raise NothingToRollBack(namespace)
    if expected not in (None, alias.adapter):
        raise StaleAlias(namespace, expected)
    bad = get_one(session, alias.adapter)
    good = last_good(session, namespace)
    _swap(session, namespace, bad.name, good.name if good else None)
    _move(session, bad, AdapterStatus.ROLLED_BACK, reason, now)
    if good:
        _move(session, good, AdapterStatus.LIVE, f"{bad.name} was rolled back.", now)
    lessons.sync_with_live_adapter(session, namespace)
    after = good.name if good else None
    detail = {"namespace": namespace, "after": after, "reason": reason}
    audit.append(session, actor, "rollback", bad.name, detail, now)
    return bad.name, after


def events(
    session: Session, namespace: str, limit: int, after: str | None = None
) -> list[RolloutEvent]:
    """Return status changes, newest first; with `after`, only those older than that event."""
    rows = select(RolloutEvent).where(RolloutEvent.namespace == namespace)
    if after is not None:
        rows = rows.where(RolloutEvent.id < after)
    return list(session.scalars(rows.order_by(RolloutEvent.id.desc()).limit(limit)))


def _swap(session: Session, namespace: str, expected: str | None, name: str | None) -> None:
    insert_if_absent(session, Alias, {"namespace": namespace, "adapter": None})
    swapped = session.scalar(
        update(Alias)
        .where(Alias.namespace == namespace, Alias.adapter.is_not_distinct_from(expected))
        .values(adapter=name)
        .returning(Alias.namespace)
        .execution_options(synchronize_session=False)
    )
    if swapped is None:
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
    session.flush()  # keeps the order of the updates: never two live adapters at a time
