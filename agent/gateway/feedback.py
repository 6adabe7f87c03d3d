"""`/v1/feedback`: ratings, comments and demonstrations, from which lessons are learned.

Feedback is idempotent by its id. Its trust is the caller's and cannot be set by the request. Its
target must be in the caller's namespace. For a key without the scope `read`, it must also be an
interaction of the key's own principal: a key that may only rate cannot probe other callers'
interactions.
"""

import asyncio
from typing import Annotated, Any
from urllib.parse import parse_qs

from pydantic import Field, TypeAdapter, ValidationError

from agent.gateway.access.auth import Caller
from agent.gateway.apis.request import Key, explain, parse_json
from agent.gateway.apis.strict import JsonObject, Strict
from agent.gateway.errors import RequestError, unavailable, unknown_parameter
from agent.gateway.http.asgi import Call, send_json
from agent.gateway.state import GatewayState
from store import feedback
from store.db import DATABASE_UNAVAILABLE
from store.feedback import FeedbackConflict, NewFeedback, UnknownFeedback, UnknownTarget
from store.keys import Scope
from store.models import Feedback

Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.:-]+$")]
Text = Annotated[str, Field(min_length=1, max_length=65_536)]
Tag = Annotated[str, Field(max_length=512)]
TagValue = Tag | int | float | bool

MAX_LIST_ITEMS = 256
PAGE_ROWS = 100
FILTERS = ("target_id", "after")


class FeedbackRequest(Strict):
    """The body of `POST /v1/feedback`, and of `PUT`, where the path has the id."""

    id: Id | None = None
    target_id: Id
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
    value: JsonObject | bool | int | float | Tag | None = None
    comment: Text | None = None
    demonstration: Text | None = None
    tags: Annotated[dict[Key, TagValue], Field(fail_fast=True, max_length=16)] | None = None

    def to_new_feedback(self, caller: Caller, feedback_id: str | None) -> NewFeedback:
        """Return the feedback to store; a bare value becomes `{"value": ...}`."""
        value: dict[str, Any] = {} if self.value is None else {"value": self.value}
        return NewFeedback(
            id=feedback_id,
            target_id=self.target_id,
            name=self.name,
            value=self.value if isinstance(self.value, dict) else value,
            comment=self.comment,
            demonstration=self.demonstration,
            tags=self.tags or {},
            principal=caller.principal,
            trust=caller.trust,
        )


_ID: TypeAdapter[str] = TypeAdapter(Id)


async def create(state: GatewayState, call: Call) -> None:
    """Store feedback: one item or a list.

    One item: 201, or 200 if it is stored already. A list: 200, and the outcome of each item.

    Raises:
        RequestError: The feedback is malformed (400), its target is not found (404), or its id is
            stored with another content (409); the database is unavailable (503).
    """
    caller = await state.authenticator.authenticate(call.headers, Scope.FEEDBACK)
    content = await _read_json(state, caller, call)
    if not isinstance(content, list):
        request = _validated(content)
        status, payload = await _store(state, caller, request.to_new_feedback(caller, request.id))
        await send_json(call.send, status, payload, [])
        return
    if len(content) > MAX_LIST_ITEMS:
        message = (
            f"A list may have at most {MAX_LIST_ITEMS} items; this one has {len(content)}. Send "
            "several lists."
        )
        raise RequestError(400, message, code="too_many")
    async with state.feedback_lists.slot(caller.principal):
        outcomes = [await _outcome(state, caller, item) for item in content]
    await send_json(call.send, 200, {"object": "list", "data": outcomes}, [])


async def put_one(state: GatewayState, call: Call) -> None:
    """Store feedback under the id in the path.

    Raises:
        RequestError: As for `POST`; or the body has another id (400).
    """
    caller = await state.authenticator.authenticate(call.headers, Scope.FEEDBACK)
    content = await _read_json(state, caller, call)
    request = _validated(content)
    feedback_id = _checked_id(call.name)
    if request.id not in (None, feedback_id):
        message = (
            f"The path has id {feedback_id!r}, the body {request.id!r}. Omit 'id' in the body."
        )
        raise RequestError(400, message, code="id_mismatch", param="id")
    status, payload = await _store(state, caller, request.to_new_feedback(caller, feedback_id))
    await send_json(call.send, status, payload, [])


async def get_one(state: GatewayState, call: Call) -> None:
    """Return one item of feedback.

    Raises:
        RequestError: No feedback that the caller may see has this id (404); the database is
            unavailable (503).
    """
    caller = await state.authenticator.authenticate(call.headers, Scope.FEEDBACK)
    feedback_id = _checked_id(call.name)

    def find() -> dict[str, Any]:
        with state.db.read() as session:
            row = feedback.get(session, caller.namespace, feedback_id, _visible_principal(caller))
            return _to_json(row)

    try:
        await send_json(call.send, 200, await asyncio.to_thread(find), [])
    except UnknownFeedback as error:
        raise RequestError(404, str(error), code="feedback_not_found") from error
    except DATABASE_UNAVAILABLE as error:
        raise _database_unavailable("The database is unavailable. Try again shortly.") from error


async def list_page(state: GatewayState, call: Call) -> None:
    """List the feedback that the caller may see, in pages: `?target_id=&after=`.

    Raises:
        RequestError: The query has an unknown parameter (400); the database is unavailable (503).
    """
    caller = await state.authenticator.authenticate(call.headers, Scope.FEEDBACK)
    query = parse_qs(call.query.decode("latin-1"))
    for name in query.keys() - {*FILTERS}:
        raise unknown_parameter(name, FILTERS)
    target, after = (query.get(name, [""])[0] or None for name in FILTERS)

    def find() -> list[dict[str, Any]]:
        with state.db.read() as session:
            rows = feedback.page(
                session,
                caller.namespace,
                _visible_principal(caller),
                target=target,
                after=after,
                limit=PAGE_ROWS + 1,
            )
            return [_to_json(row) for row in rows]

    try:
        rows = await asyncio.to_thread(find)
    except DATABASE_UNAVAILABLE as error:
        raise _database_unavailable("The database is unavailable. Try again shortly.") from error
    payload = {"object": "list", "data": rows[:PAGE_ROWS], "has_more": len(rows) > PAGE_ROWS}
    await send_json(call.send, 200, payload, [])


async def _outcome(state: GatewayState, caller: Caller, content: object) -> dict[str, Any]:
    """Store one item of a list; return its outcome."""
    try:
        request = _validated(content)
        status, payload = await _store(state, caller, request.to_new_feedback(caller, request.id))
    except RequestError as error:
        return {"status": error.status, **error.payload()}
    return {"status": status, **payload}


async def _store(
    state: GatewayState, caller: Caller, new: NewFeedback
) -> tuple[int, dict[str, Any]]:
    def add() -> tuple[int, dict[str, Any]]:
        with state.db.begin() as session:
            row, created = feedback.add(
                session, caller.namespace, new, state.now(), _visible_principal(caller)
            )
            payload = {"id": row.id, "target_id": row.interaction, "created": created}
        return (201 if created else 200), payload

    try:
        async with state.feedback_writes.slot(caller.principal):
            return await asyncio.to_thread(add)
    except UnknownTarget as error:
        raise _not_found(state, error) from error
    except FeedbackConflict as error:
        raise RequestError(409, str(error), code="feedback_conflict", param="id") from error
    except DATABASE_UNAVAILABLE as error:
        message = "The database is unavailable; the feedback is not stored. Send it again shortly."
        raise _database_unavailable(message) from error


def _validated(content: object) -> FeedbackRequest:
    try:
        return FeedbackRequest.model_validate(content)
    except ValidationError as error:
        raise explain(error, FeedbackRequest) from error


def _checked_id(name: str) -> str:
    try:
        return _ID.validate_python(name)
    except ValidationError as error:
        message = "An id has 1 to 128 characters: letters, digits, '.', ':', '_' and '-'."
        raise RequestError(400, message, code="bad_id", param="id") from error


async def _read_json(state: GatewayState, caller: Caller, call: Call) -> object:
    max_bytes = state.settings.max_body_bytes
    return parse_json(await state.uploads.read(caller.principal, call, max_bytes))


def _visible_principal(caller: Caller) -> str | None:
    """Return the only principal whose interactions the caller sees; None for all."""
    return None if caller.has_scope(Scope.READ) else caller.principal


def _to_json(row: Feedback) -> dict[str, Any]:
    return {
        "id": row.id,
        "target_id": row.interaction,
        "name": row.name,
        "value": row.value,
        "comment": row.comment,
        "demonstration": row.demonstration,
        "tags": row.tags,
        "created_at": row.created_at.isoformat(),
    }


def _not_found(state: GatewayState, error: UnknownTarget) -> RequestError:
    if state.recorder.degraded:
        message = "Recent interactions are not in the database yet. Try again shortly."
        return unavailable(message, code="log_behind")
    hint = "Send the id of one of your interactions in this namespace."
    return RequestError(404, f"{error} {hint}", code="target_not_found", param="target_id")


def _database_unavailable(message: str) -> RequestError:
    return unavailable(message, code="database_unavailable")
