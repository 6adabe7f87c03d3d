"""Contexts, runs, adapters and rollouts: what is learned, and which version serves.

Long operations return 202 when they are queued; GET on the resource shows their progress.
"""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agent.control import knowledge_schemas, schemas
from agent.control.dependencies import (
    PAGE,
    After,
    AfterId,
    CallerDep,
    ControlDep,
    ControlState,
    Limit,
    ReadSession,
    WriteSession,
    item_or_404,
)
from agent.gateway.access.auth import Caller
from agent.gateway.errors import RequestError
from agent.learning.operator_edits import prompt_length
from agent.process.checks import check_trainable
from agent.training.plan import open_run
from store import adapters, audit, knowledge, lessons, namespaces, prompts, rollouts, runs
from store.adapter_tables import Adapter, Run
from store.db import Session
from store.rollouts import approve
from store.schema import AdapterStatus, LessonStatus
from store.views import BASE, read_view

router = APIRouter(tags=["learning"])


class NewPrompt(BaseModel):
    """A system prompt to register."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(max_length=2**20)]


class Reason(BaseModel):
    """The reason for an action, recorded in the audit log."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=1024)] = "requested by the operator"


@router.get("/context")
def get_context(session: ReadSession, control: ControlDep, caller: CallerDep) -> schemas.Context:
    """Get the system prompt and the lessons in use, and what of them is still in prompts."""
    view = read_view(session, caller.namespace, control.settings.learning.token_budget)
    trained = namespaces.trained_snapshot(session, caller.namespace)
    registered = view.registered if view else None
    residual = view.context.system_prompt if view else None
    return schemas.Context(
        system_prompt=registered,
        system_prompt_internalised=bool(registered and not residual),
        residual_system_prompt=residual,
        lessons=[
            schemas.ContextLesson(
                id=lesson.id,
                text=lessons.text(lesson),
                internalised=lesson.status is LessonStatus.INTERNALISED,
            )
            for lesson in lessons.in_use(session, caller.namespace)
        ],
        snapshot=trained.hash if trained else None,
    )


@router.put("/context/system_prompt")
def register_prompt(
    session: WriteSession, control: ControlDep, caller: CallerDep, new: NewPrompt
) -> schemas.Prompt:
    """Register a system prompt, used from the next request on; an empty text removes it."""
    count = prompt_length(control.settings, new.text)
    row = prompts.register_system_prompt(session, caller.namespace, new.text, count, control.now())
    _audit(session, control, caller, "prompt registered", row.id)
    return schemas.Prompt.model_validate(row)


@router.get("/runs")
def list_runs(
    session: ReadSession, caller: CallerDep, after: AfterId = None, limit: Limit = PAGE
) -> schemas.Page[schemas.Run]:
    """List runs, newest first."""
    rows = [row for row in runs.listing(session, caller.namespace) if not after or row.id < after]
    shown = [schemas.Run.model_validate(row) for row in rows[:limit]]
    return schemas.Page(data=shown, next=_next([row.id for row in rows], limit))


@router.post("/runs", status_code=202)
def start_run(
    session: WriteSession, control: ControlDep, caller: CallerDep, body: Reason | None = None
) -> schemas.Run:
    """Queue a run over the namespace's whole context, even without new lessons."""
    check_trainable(control.settings)
    has_prompt = prompts.system_prompt(session, caller.namespace)
    if not lessons.in_use(session, caller.namespace) and not has_prompt:
        message = "There is nothing to learn. Add lessons, or register a system prompt."
        raise RequestError(409, message, code="nothing_to_learn")
    reason = (body or Reason()).reason
    run = open_run(session, caller.namespace, control.settings, reason, control.now())
    _audit(session, control, caller, "run started", run)
    return schemas.Run.model_validate(_own_run(session, caller, run))


@router.get("/runs/{run_id}")
def get_run(session: ReadSession, caller: CallerDep, run_id: str) -> schemas.Run:
    """Get a run: its trigger, progress, measurements and result."""
    return schemas.Run.model_validate(_own_run(session, caller, run_id))


@router.post("/runs/{run_id}/cancel")
def cancel_run(
    session: WriteSession, control: ControlDep, caller: CallerDep, run_id: str
) -> schemas.Run:
    """Cancel a run. The live version keeps serving."""
    run = runs.cancel(session, _own_run(session, caller, run_id).id, control.now())
    _audit(session, control, caller, "run cancelled", run.id)
    return schemas.Run.model_validate(run)


@router.get("/adapters")
def list_adapters(
    session: ReadSession, caller: CallerDep, after: After = None, limit: Limit = PAGE
) -> schemas.Page[schemas.Adapter]:
    """List adapters, newest first."""
    rows = adapters.listing(session, caller.namespace)
    start = next((i + 1 for i, row in enumerate(rows) if row.name == after), 0) if after else 0
    rest = rows[start:]
    shown = [schemas.Adapter.model_validate(row) for row in rest[:limit]]
    return schemas.Page(data=shown, next=_next([row.name for row in rest], limit))


@router.get("/adapters/{name}")
def get_adapter(
    session: ReadSession, caller: CallerDep, name: str
) -> knowledge_schemas.EvaluatedAdapter:
    """Get an adapter with its gate results, and what it knows of each statement."""
    adapter = _own_adapter(session, caller, name)
    verdict = adapters.evaluation(session, adapter.name)
    return knowledge_schemas.EvaluatedAdapter(
        **dict(schemas.Adapter.model_validate(adapter)),
        statements=[
            knowledge_schemas.Knowledge.model_validate(each)
            for each in knowledge.of_adapter(session, adapter)
        ],
        passed=verdict.passed,
        gate=list(verdict.reasons),
        measured=verdict.measured,
    )


@router.post("/adapters/{name}/promote", status_code=202)
def promote(
    session: WriteSession, control: ControlDep, caller: CallerDep, name: str
) -> schemas.Adapter:
    """Approve a candidate that passed its gate. It goes live once the daemon has probed it."""
    adapter = _own_adapter(session, caller, name)
    if adapter.status is not AdapterStatus.CANDIDATE:
        message = f"Adapter {adapter.name} is {adapter.status.value}, not a candidate."
        raise RequestError(409, message, code="not_a_candidate")
    approve(session, adapter, caller.principal, control.now())
    return schemas.Adapter.model_validate(adapter)


@router.get("/rollouts")
def list_rollouts(
    session: ReadSession, caller: CallerDep, after: AfterId = None, limit: Limit = PAGE
) -> schemas.Page[schemas.Rollout]:
    """List version changes, newest first, with reasons."""
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
    session: WriteSession, control: ControlDep, caller: CallerDep, body: Reason | None = None
) -> schemas.Rollback:
    """Replace the live adapter with the last good version; its lessons return to the prompt."""
    reason = (body or Reason()).reason
    bad, good = rollouts.rollback(
        session, caller.namespace, caller.principal, reason, control.now()
    )
    return schemas.Rollback(rolled_back=bad, live=good or BASE)


def _audit(
    session: Session, control: ControlState, caller: Caller, action: str, subject: str
) -> None:
    detail = {"namespace": caller.namespace}
    audit.append(session, caller.principal, action, subject, detail, control.now())


def _own_run(session: Session, caller: Caller, run_id: str) -> Run:
    row = runs.get(session, run_id)
    own: Run | None = row if row and row.namespace == caller.namespace else None
    return item_or_404(own, "run", run_id)


def _own_adapter(session: Session, caller: Caller, name: str) -> Adapter:
    row = adapters.get(session, name)
    own: Adapter | None = row if row and row.namespace == caller.namespace else None
    return item_or_404(own, "adapter", name)


def _next(names: list[str], limit: int) -> str | None:
    return names[limit - 1] if len(names) > limit else None
