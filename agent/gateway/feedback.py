"""`/v1/feedback`: signals on interactions, from which lessons are learned.

Sent twice with the same id it is one feedback. Its trust is that of the caller, whatever it says.
Its target is found in the caller's namespace only, and, for a key without the scope `read`, among
the interactions of its own principal: whoever may rate may not find out what others asked.
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
from store.db import AWAY
from store.feedback import Conflict, NewFeedback, UnknownFeedback, UnknownTarget
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
    """One feedback, in the body of `POST /v1/feedback` or, without an id, of `PUT`."""

    id: Id | None = None
    target_id: Id
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
    value: JsonObject | bool | int | float | Tag | None = None
    comment: Text | None = None
    demonstration: Text | None = None
    tags: Annotated[dict[Key, TagValue], Field(fail_fast=True, max_length=16)] | None = None

    def to_new_feedback(self, caller: Caller, feedback_id: str | None) -> NewFeedback:
        """The feedback as it is kept: a bare value becomes `{"value": ...}`."""
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
    """Answer `POST /v1/feedback`, of one or of a list of many.

    One: 201, or 200 for what is known already. Many: 200, and what became of each.

    Raises:
        RequestError: It is malformed (400), about nothing known (404), or contradicts itself (409);
            the database is away (503).
    """
    caller = await state.authenticator.authenticate(call.headers, Scope.FEEDBACK)
    said = await _read_json(state, caller, call)
    if not isinstance(said, list):
        request = _validated(said)
        status, payload = await _store(state, caller, request.to_new_feedback(caller, request.id))
        await send_json(call.send, status, payload, [])
        return
    if len(said) > MAX_LIST_ITEMS:
        message = (
            f"A list may have at most {MAX_LIST_ITEMS} items; this one has {len(said)}. Send "
            "several lists."
        )
        raise RequestError(400, message, code="too_many")
    async with state.listers.of(caller.principal), state.listing:
        outcomes = [await _outcome(state, caller, one) for one in said]
    await send_json(call.send, 200, {"object": "list", "data": outcomes}, [])


async def put_one(state: GatewayState, call: Call) -> None:
    """Answer `PUT /v1/feedback/{id}`, as `POST` with that id.

    Raises:
        RequestError: As for `POST`; the body has another id (400).
    """
    caller = await state.authenticator.authenticate(call.headers, Scope.FEEDBACK)
    said = await _read_json(state, caller, call)
    request = _validated(said)
    feedback_id = _checked_id(call.name)
    if request.id not in (None, feedback_id):
        message = f"The path says {feedback_id!r} and the body {request.id!r}. Leave 'id' out."
        raise RequestError(400, message, code="id_mismatch", param="id")
    status, payload = await _store(state, caller, request.to_new_feedback(caller, feedback_id))
    await send_json(call.send, status, payload, [])


async def get_one(state: GatewayState, call: Call) -> None:
    """Answer `GET /v1/feedback/{id}`.

    Raises:
        RequestError: There is none that the caller may see (404); the database is away (503).
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
    except AWAY as error:
        raise _database_unavailable("The database is away. Try again shortly.") from error


async def list_page(state: GatewayState, call: Call) -> None:
    """Answer `GET /v1/feedback?target_id=&after=`: a page of what the caller gave, or may see.

    Raises:
        RequestError: The query has another parameter (400); the database is away (503).
    """
    caller = await state.authenticator.authenticate(call.headers, Scope.FEEDBACK)
    asked = parse_qs(call.query.decode("latin-1"))
    for name in asked.keys() - {*FILTERS}:
        raise unknown_parameter(name, FILTERS)
    target, after = (asked.get(name, [""])[0] or None for name in FILTERS)

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
    except AWAY as error:
        raise _database_unavailable("The database is away. Try again shortly.") from error
    payload = {"object": "list", "data": rows[:PAGE_ROWS], "has_more": len(rows) > PAGE_ROWS}
    await send_json(call.send, 200, payload, [])


async def _outcome(state: GatewayState, caller: Caller, said: object) -> dict[str, Any]:
    """What became of one feedback of many."""
    try:
        request = _validated(said)
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
        async with state.writers:
            return await asyncio.to_thread(add)
    except UnknownTarget as error:
        raise _not_found(state, error) from error
    except Conflict as error:
        raise RequestError(409, str(error), code="feedback_conflict", param="id") from error
    except AWAY as error:
        message = "The database is away, and the feedback is not kept. Send it again shortly."
        raise _database_unavailable(message) from error


def _validated(said: object) -> FeedbackRequest:
    try:
        return FeedbackRequest.model_validate(said)
    except ValidationError as error:
        raise explain(error, FeedbackRequest) from error


def _checked_id(name: str) -> str:
    try:
        return _ID.validate_python(name)
    except ValidationError as error:
        message = "An id has 1 to 128 letters, digits, '.', ':', '_' and '-'."
        raise RequestError(400, message, code="bad_id", param="id") from error


async def _read_json(state: GatewayState, caller: Caller, call: Call) -> object:
    most = state.settings.max_body_bytes
    return parse_json(await state.uploads.read(caller.principal, call, most))


def _visible_principal(caller: Caller) -> str | None:
    """The principal whose interactions and feedback the caller is bound to; None for all."""
    return None if caller.may(Scope.READ) else caller.principal


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
        message = "The log is behind, and the interaction may still be in it. Try again shortly."
        return unavailable(message, code="log_behind")
    hint = "Only what was answered for this caller in this namespace can be found."
    return RequestError(404, f"{error} {hint}", code="target_not_found", param="target_id")


def _database_unavailable(message: str) -> RequestError:
    return unavailable(message, code="database_unavailable")
