"""Contexts, runs, adapters and rollouts: what is learned, and which version serves.

What takes long is begun and answered with 202; how far it is, the same path says.
"""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agent.control import schemas
from agent.control.dependencies import (
    PAGE,
    After,
    AfterId,
    Asking,
    Control,
    Limit,
    Parts,
    Reading,
    Writing,
    found,
)
from agent.gateway.access.auth import Caller
from agent.gateway.errors import RequestError
from agent.learning.operator_edits import prompt_length
from agent.process.checks import check_trainable
from agent.training.plan import open_run
from store import adapters, audit, lessons, namespaces, prompts, rollouts, runs
from store.db import Session
from store.models import Adapter, Run
from store.rollouts import approve
from store.schema import AdapterStatus
from store.views import BASE

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
def get_context(session: Reading, caller: Asking) -> schemas.Context:
    """The registered prompt and the lessons, and which of them are in the weights."""
    registered = prompts.system_prompt(session, caller.namespace)
    learned = namespaces.internalised(session, caller.namespace)
    held = lessons.snapshot_texts(learned.lessons) if learned else frozenset()
    used = lessons.in_use(session, caller.namespace)
    texts = [(each.id, lessons.text(each)) for each in used]
    return schemas.Context(
        system_prompt=registered.text if registered else None,
        system_prompt_internalised=bool(
            registered and learned and learned.system_prompt == registered.text
        ),
        lessons=[
            schemas.ContextLesson(id=one, text=text, internalised=text in held)
            for one, text in texts
        ],
        snapshot=learned.hash if learned else None,
    )


@router.put("/context/system_prompt")
def register_prompt(
    session: Writing, parts: Parts, caller: Asking, new: NewPrompt
) -> schemas.Prompt:
    """Register a system prompt, in force from the next request on; an empty one takes it out."""
    count = prompt_length(parts.settings, new.text)
    row = prompts.register_system_prompt(session, caller.namespace, new.text, count, parts.now())
    _note(session, parts, caller, "prompt registered", row.id)
    return schemas.Prompt.model_validate(row)


@router.get("/runs")
def list_runs(
    session: Reading, caller: Asking, after: AfterId = None, limit: Limit = PAGE
) -> schemas.Page[schemas.Run]:
    """Runs, newest first."""
    rows = [row for row in runs.listing(session, caller.namespace) if not after or row.id < after]
    shown = [schemas.Run.model_validate(row) for row in rows[:limit]]
    return schemas.Page(data=shown, next=_next([row.id for row in rows], limit))


@router.post("/runs", status_code=202)
def start_run(
    session: Writing, parts: Parts, caller: Asking, why: Why | None = None
) -> schemas.Run:
    """Start a run over the namespace's whole context."""
    check_trainable(parts.settings)
    has_prompt = prompts.system_prompt(session, caller.namespace)
    if not lessons.in_use(session, caller.namespace) and not has_prompt:
        message = "There is no context to learn: add lessons, or register a system prompt."
        raise RequestError(409, message, code="nothing_to_learn")
    reason = (why or Why()).reason
    run = open_run(session, caller.namespace, parts.settings, reason, parts.now())
    _note(session, parts, caller, "run started", run)
    return schemas.Run.model_validate(_own_run(session, caller, run))


@router.get("/runs/{run_id}")
def get_run(session: Reading, caller: Asking, run_id: str) -> schemas.Run:
    """A run: how far it is, what it measured, why it ended."""
    return schemas.Run.model_validate(_own_run(session, caller, run_id))


@router.post("/runs/{run_id}/cancel")
def cancel_run(session: Writing, parts: Parts, caller: Asking, run_id: str) -> schemas.Run:
    """End a run; traffic stays as it is."""
    run = runs.cancel(session, _own_run(session, caller, run_id).id, parts.now())
    _note(session, parts, caller, "run cancelled", run.id)
    return schemas.Run.model_validate(run)


@router.get("/adapters")
def list_adapters(
    session: Reading, caller: Asking, after: After = None, limit: Limit = PAGE
) -> schemas.Page[schemas.Adapter]:
    """Adapters, newest first."""
    rows = adapters.listing(session, caller.namespace)
    start = next((i + 1 for i, row in enumerate(rows) if row.name == after), 0) if after else 0
    rest = rows[start:]
    shown = [schemas.Adapter.model_validate(row) for row in rest[:limit]]
    return schemas.Page(data=shown, next=_next([row.name for row in rest], limit))


@router.get("/adapters/{name}")
def get_adapter(session: Reading, caller: Asking, name: str) -> schemas.JudgedAdapter:
    """An adapter: what was measured of it, and what the gate said."""
    adapter = _own_adapter(session, caller, name)
    verdict = adapters.evaluation(session, adapter.name)
    return schemas.JudgedAdapter(
        **dict(schemas.Adapter.model_validate(adapter)),
        passed=verdict.passed,
        gate=list(verdict.reasons),
        measured=verdict.measured,
    )


@router.post("/adapters/{name}/promote", status_code=202)
def promote(session: Writing, parts: Parts, caller: Asking, name: str) -> schemas.Adapter:
    """Let a candidate that passed its gate go live, once it has proven itself."""
    adapter = _own_adapter(session, caller, name)
    if adapter.status is not AdapterStatus.CANDIDATE:
        message = f"Adapter {adapter.name} is {adapter.status.value}, not a candidate."
        raise RequestError(409, message, code="not_a_candidate")
    approve(session, adapter, caller.principal, parts.now())
    return schemas.Adapter.model_validate(adapter)


@router.get("/rollouts")
def list_rollouts(
    session: Reading, caller: Asking, after: AfterId = None, limit: Limit = PAGE
) -> schemas.Page[schemas.Rollout]:
    """The changes of version, newest first, with their reasons."""
    events = rollouts.events(session, caller.namespace, limit + 1, after)
    rows = [
        schemas.Rollout(
            at=event.created_at,
            adapter=event.adapter,
            before=event.before,
            after=event.after,
            reason=event.reason,
        )
        for event in events[:limit]
    ]
    return schemas.Page(data=rows, next=_next([event.id for event in events], limit))


@router.post("/rollback")
def rollback(
    session: Writing, parts: Parts, caller: Asking, why: Why | None = None
) -> schemas.Rollback:
    """Take the live adapter out, and let the last good version serve."""
    reason = (why or Why()).reason
    bad, good = rollouts.rollback(session, caller.namespace, caller.principal, reason, parts.now())
    return schemas.Rollback(rolled_back=bad, live=good or BASE)


def _note(session: Session, parts: Control, caller: Caller, action: str, subject: str) -> None:
    detail = {"namespace": caller.namespace}
    audit.append(session, caller.principal, action, subject, detail, parts.now())


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
