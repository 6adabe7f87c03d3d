"""The `rollout` job: from a candidate that the trainer published to the adapter that serves.

1. Judge what the trainer measured (gate.py), once; a candidate that fails is rejected, with
   reasons.
2. Load it under its own name, and let it prove that it answers like the trained student and not
   like the base (engine/adapters.py); a candidate that does not, or that the engine does not take,
   is rejected too.
3. Flip the alias by compare-and-swap, unless a lesson that it holds was retired or edited
   meanwhile. In the same transaction its lessons become internalised,
   so the next request has the adapter and no longer their text.
4. Wait for the requests that the old version is still answering; the reconciler then unloads
   what no namespace needs.

A crash between any two steps leaves traffic on a version that is loaded, and the job can run
again: every step that was done is found done.
"""

import asyncio
from typing import Any

import structlog

from agent.engine.adapters import AdapterLoadError, AdapterMismatch, load_and_verify
from agent.rollout.gate import judge
from agent.rollout.reconcile import reconcile
from agent.runtime import Runtime
from store import adapters, rollouts
from store.adapters import UnknownAdapter
from store.clock import utcnow
from store.manifests import AdapterCorrupt
from store.models import Adapter
from store.schema import AdapterStatus
from store.views import BASE

log = structlog.get_logger(__name__)


async def run(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Roll out the candidate `payload["adapter"]`, or reject it."""
    with runtime.db.read() as session:
        candidate = adapters.get(session, payload["adapter"])
    if candidate is None:
        raise UnknownAdapter(payload["adapter"])
    if candidate.status is not AdapterStatus.CANDIDATE:
        return
    if not _passes_gate(runtime, candidate):
        return
    if not runtime.settings.gate.auto_promote and not payload.get("approved"):
        log.info("candidate waits for approval", adapter=candidate.name)
        return
    if await _load(runtime, candidate):
        await promote(runtime, candidate, "passed the gate and the identity probe")


def _passes_gate(runtime: Runtime, candidate: Adapter) -> bool:
    with runtime.db.begin() as session:
        evaluation = adapters.evaluation(session, candidate.name)
        if evaluation.passed is None:
            verdict = judge(evaluation.measured, runtime.settings.gate)
            rollouts.judge(session, candidate.name, verdict.passed, verdict.reasons, utcnow())
            log.info("gate", adapter=candidate.name, passed=verdict.passed, reasons=verdict.reasons)
        return bool(evaluation.passed)


async def _load(runtime: Runtime, candidate: Adapter) -> bool:
    """Load and probe; a candidate that is not what was trained is rejected."""
    try:
        async with runtime.adapter_lock():
            await load_and_verify(
                runtime.engine,
                candidate.name,
                candidate.path,
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
    """Flip the alias to a loaded candidate, drain the old version and tidy the engine.

    Raises:
        StaleAlias: Another rollout was faster; the job is tried again.
    """
    try:
        with runtime.db.begin() as session:
            before = adapters.live(session, candidate.namespace)
            old = before.name if before else None
            rollouts.promote(session, candidate.name, expected=old, reason=reason, now=utcnow())
    except rollouts.Outdated as error:
        _reject(runtime, candidate, str(error))
        await reconcile(runtime)
        return
    log.info("promoted", adapter=candidate.name, namespace=candidate.namespace, before=old)
    drained, patience_s = runtime.inflight.wait_drained, runtime.settings.server.drain_s
    await asyncio.to_thread(drained, old or BASE, patience_s, candidate.namespace)
    await reconcile(runtime)
