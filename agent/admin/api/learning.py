"""Contexts, runs, adapters and rollouts: what is learned, and which version serves.

What takes long is begun and answered with 202; how far it is, the same path says.
"""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agent import tokens
from agent.admin.api.control import PAGE, After, Asking, Limit, Parts, Reading, Writing, found, page
from agent.due import open_run
from agent.gateway.auth import Caller
from agent.gateway.errors import RequestError
from agent.model import refuse_untrainable
from store import adapters, audit, jobs, lessons, namespaces, prompts, rollouts, runs
from store.db import Session
from store.models import Adapter, Run
from store.schema import AdapterStatus

router = APIRouter(tags=["learning"])


class NewPrompt(BaseModel):
    """A system prompt to register."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(max_length=2**20)]


class Why(BaseModel):
    """A reason, for the record."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=1024)] = "the operator asked for it"


@router.get("/context")
def get_context(session: Reading, caller: Asking) -> dict[str, Any]:
    """The registered prompt and the lessons, and which of them are in the weights."""
    registered = prompts.system_prompt(session, caller.namespace)
    learned = namespaces.internalised(session, caller.namespace)
    held = lessons.snapshot_texts(learned.lessons) if learned else frozenset()
    used = lessons.in_use(session, caller.namespace)
    return {
        "system_prompt": registered.text if registered else None,
        "system_prompt_internalised": bool(
            registered and learned and learned.system_prompt == registered.text
        ),
        "lessons": [
            {"id": each.id, "text": lessons.text(each), "internalised": lessons.text(each) in held}
            for each in used
        ],
        "snapshot": learned.hash if learned else None,
    }


@router.put("/context/system_prompt")
def register_prompt(
    session: Writing, parts: Parts, caller: Asking, new: NewPrompt
) -> dict[str, Any]:
    """Register a system prompt, in force from the next request on; an empty one takes it out."""
    count = tokens.count(parts.settings.model_folder, new.text)
    row = prompts.register_system_prompt(session, caller.namespace, new.text, count, parts.now())
    detail = {"namespace": caller.namespace}
    audit.append(session, caller.principal, "prompt registered", row.id, detail, parts.now())
    return {"id": row.id, "tokens": row.tokens}


@router.get("/runs")
def list_runs(
    session: Reading, caller: Asking, after: After = None, limit: Limit = PAGE
) -> dict[str, Any]:
    """Runs, newest first."""
    rows = [row for row in runs.listing(session, caller.namespace) if not after or row.id < after]
    return page([_run(row) for row in rows[:limit]], _next([row.id for row in rows], limit))


@router.post("/runs", status_code=202)
def start_run(
    session: Writing, parts: Parts, caller: Asking, why: Why | None = None
) -> dict[str, Any]:
    """Start a run over the namespace's whole context."""
    refuse_untrainable(parts.settings)
    has_prompt = prompts.system_prompt(session, caller.namespace)
    if not lessons.in_use(session, caller.namespace) and not has_prompt:
        message = "There is no context to learn: add lessons, or register a system prompt."
        raise RequestError(409, message, code="nothing_to_learn")
    reason = (why or Why()).reason
    run = open_run(session, caller.namespace, parts.settings, reason, parts.now())
    return _run(_own_run(session, caller, run))


@router.get("/runs/{run_id}")
def get_run(session: Reading, caller: Asking, run_id: str) -> dict[str, Any]:
    """A run: how far it is, what it measured, why it ended."""
    return _run(_own_run(session, caller, run_id))


@router.post("/runs/{run_id}/cancel")
def cancel_run(session: Writing, parts: Parts, caller: Asking, run_id: str) -> dict[str, Any]:
    """End a run; traffic stays as it is."""
    return _run(runs.cancel(session, _own_run(session, caller, run_id).id, parts.now()))


@router.get("/adapters")
def list_adapters(
    session: Reading, caller: Asking, after: After = None, limit: Limit = PAGE
) -> dict[str, Any]:
    """Adapters, newest first."""
    rows = adapters.listing(session, caller.namespace)
    start = next((i + 1 for i, row in enumerate(rows) if row.name == after), 0) if after else 0
    rest = rows[start:]
    return page([_adapter(row) for row in rest[:limit]], _next([row.name for row in rest], limit))


@router.get("/adapters/{name}")
def get_adapter(session: Reading, caller: Asking, name: str) -> dict[str, Any]:
    """An adapter: what was measured of it, and what the gate said."""
    adapter = _own_adapter(session, caller, name)
    verdict = adapters.evaluation(session, adapter.name)
    return _adapter(adapter) | {
        "passed": verdict.passed,
        "gate": list(verdict.reasons),
        "measured": verdict.measured,
    }


@router.post("/adapters/{name}/promote", status_code=202)
def promote(session: Writing, parts: Parts, caller: Asking, name: str) -> dict[str, Any]:
    """Let a candidate that passed its gate go live, once it has proven itself."""
    adapter = _own_adapter(session, caller, name)
    if adapter.status is not AdapterStatus.CANDIDATE:
        message = f"Adapter {adapter.name} is {adapter.status.value}, not a candidate."
        raise RequestError(409, message, code="not_a_candidate")
    payload = {"adapter": adapter.name, "approved": True}
    key = f"approved {adapter.name}"
    jobs.enqueue(session, "rollout", payload, parts.now(), unique_key=key)
    detail = {"namespace": caller.namespace}
    audit.append(session, caller.principal, "approved", adapter.name, detail, parts.now())
    return _adapter(adapter)


@router.get("/rollouts")
def list_rollouts(session: Reading, caller: Asking, limit: Limit = PAGE) -> dict[str, Any]:
    """The changes of version, newest first, with their reasons."""
    rows = [
        {
            "at": event.created_at.isoformat(),
            "adapter": event.adapter,
            "before": event.before.value,
            "after": event.after.value,
            "reason": event.reason,
        }
        for event in rollouts.events(session, caller.namespace, limit)
    ]
    return page(rows, None)


@router.post("/rollback")
def rollback(
    session: Writing, parts: Parts, caller: Asking, why: Why | None = None
) -> dict[str, Any]:
    """Take the live adapter out, and let the last good version serve."""
    reason = (why or Why()).reason
    bad, good = rollouts.rollback(session, caller.namespace, reason, parts.now())
    return {"rolled_back": bad, "live": good or "base"}


def _own_run(session: Session, caller: Caller, run_id: str) -> Run:
    row = runs.get(session, run_id)
    own: Run | None = row if row and row.namespace == caller.namespace else None
    return found(own, "run", run_id)


def _own_adapter(session: Session, caller: Caller, name: str) -> Adapter:
    row = adapters.get(session, name)
    own: Adapter | None = row if row and row.namespace == caller.namespace else None
    return found(own, "adapter", name)


def _next(names: list[str], limit: int) -> str | None:
    return names[limit - 1] if len(names) > limit else None


def _run(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": run.status.value,
        "trigger": run.trigger,
        "reason": run.reason,
        "progress": run.progress,
        "snapshot": run.snapshot,
        "adapter": run.adapter,
        "created_at": run.created_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
    }


def _adapter(adapter: Adapter) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "status": adapter.status.value,
        "run": adapter.run,
        "parent": adapter.parent,
        "snapshot": adapter.snapshot,
        "manifest_sha256": adapter.manifest_sha256,
        "created_at": adapter.created_at.isoformat(),
    }
