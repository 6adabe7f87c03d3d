"""The `rollout` job: takes a candidate adapter from the trainer to live traffic, or rejects it.

1. Gate (`gate.py`): judge the trainer's measurements, once. A candidate that fails is rejected,
   and the reasons are stored.
2. Load and verify (`engine/adapters.py`): load the candidate under its own name and check that it
   answers like the trained student and unlike the base. A candidate that fails, or that the engine
   cannot load, is rejected too.
3. Promote: point the namespace's alias at the candidate by compare-and-swap. The same transaction
   marks the lessons that it has learned as internalised, so the next request gets the adapter and
   in its prompt no longer these lessons. The candidate is rejected if a lesson that it was trained
   on was retired or edited meanwhile.
4. Drain: wait for the requests that the previous version is answering, then reconcile, which
   unloads what no namespace needs.

After a crash between any two steps, traffic goes to a version that is loaded, and the job can run
again: every step is idempotent.
"""

import asyncio
from typing import Any

import structlog

from agent.engine.adapters import AdapterLoadError, AdapterMismatch, load_and_verify
from agent.rollout.gate import judge
from agent.rollout.reconcile import reconcile
from agent.runtime import Runtime
from store import adapters, rollouts
from store.adapter_tables import Adapter
from store.adapters import UnknownAdapter
from store.clock import utcnow
from store.manifests import AdapterCorrupt
from store.schema import AdapterStatus
from store.views import BASE

log = structlog.get_logger(__name__)


async def run(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Run the job for the candidate `payload["adapter"]`; a no-op once it is decided.

    Raises:
        UnknownAdapter: There is no such adapter.
        StaleAlias: Another rollout changed the alias concurrently; the job is retried.
    """
    with runtime.db.read() as session:
        candidate = adapters.get(session, payload["adapter"])
    if candidate is None:
        raise UnknownAdapter(payload["adapter"])
    if candidate.status is not AdapterStatus.CANDIDATE:
        return
    if not _passes_gate(runtime, candidate):
        return
    if not runtime.settings.gate.auto_promote and not payload.get("approved"):
        log.info("candidate awaits approval", adapter=candidate.name)
        return
    if await _load(runtime, candidate):
        await promote(runtime, candidate, "passed the gate and the identity probe")


def _passes_gate(runtime: Runtime, candidate: Adapter) -> bool:
    """Judge the candidate unless it was judged before; store and log the verdict."""
    with runtime.db.begin() as session:
        evaluation = adapters.evaluation(session, candidate.name)
        if evaluation.passed is None:
            verdict = judge(evaluation.measured, runtime.settings.gate)
            rollouts.judge(session, candidate.name, verdict.passed, verdict.reasons, utcnow())
            log.info(
                "gate verdict",
                adapter=candidate.name,
                passed=verdict.passed,
                reasons=verdict.reasons,
            )
        return bool(evaluation.passed)


async def _load(runtime: Runtime, candidate: Adapter) -> bool:
    """Load and verify the candidate; reject it and return False if that fails."""
    try:
        async with runtime.adapter_lock():
            await load_and_verify(
                runtime.engine,
                candidate.name,
                adapters.folder(candidate, runtime.settings.data_dir),
                candidate.manifest_sha256,
                runtime.model,
            )
    except (AdapterMismatch, AdapterLoadError, AdapterCorrupt) as error:
        _reject(runtime, candidate, str(error))
        return False
    runtime.verified.update((url, candidate.name) for url in runtime.engine.urls)
    return True


def _reject(runtime: Runtime, candidate: Adapter, reason: str) -> None:
    with runtime.db.begin() as session:
        rollouts.withdraw(session, candidate.name, reason, utcnow())
    log.warning("candidate rejected", adapter=candidate.name, reason=reason)


async def promote(runtime: Runtime, candidate: Adapter, reason: str) -> None:
    """Point the alias at a loaded candidate, drain the previous version, unload what is unused.

    Raises:
        StaleAlias: Another rollout changed the alias concurrently; the job is retried.
    """
    try:
        with runtime.db.begin() as session:
            live = adapters.live(session, candidate.namespace)
            previous = live.name if live else None
            rollouts.promote(
                session, candidate.name, expected=previous, reason=reason, now=utcnow()
            )
    except rollouts.OutdatedAdapter as error:
        _reject(runtime, candidate, str(error))
        await reconcile(runtime)
        return
    log.info("promoted", adapter=candidate.name, namespace=candidate.namespace, previous=previous)
    await asyncio.to_thread(
        runtime.inflight.wait_drained,
        previous or BASE,
        runtime.settings.server.drain_s,
        candidate.namespace,
    )
    await reconcile(runtime)
