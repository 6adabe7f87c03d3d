"""`POST /v1/feedback`: a signal on an interaction, from which lessons are learned.

Sent twice with the same id it is one feedback. Its trust is that of the caller, whatever it says;
its target is found in the caller's namespace only.
"""

import asyncio
from typing import Annotated, Any

from pydantic import Field, ValidationError

from agent.gateway.auth import Caller, authenticate
from agent.gateway.errors import RequestError, unavailable
from agent.gateway.messages import JsonSchema, Strict
from agent.gateway.parts import Parts
from agent.gateway.schema import Key, explain, parse_json
from agent.gateway.wire import Receive, Send, read_body, send_json
from store import feedback
from store.db import AWAY
from store.feedback import Conflict, NewFeedback, UnknownTarget

Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[\w.:-]+$")]
Text = Annotated[str, Field(min_length=1, max_length=65_536)]
Tag = Annotated[str, Field(max_length=512)]
TagValue = Tag | int | float | bool


class FeedbackRequest(Strict):
    """The body of `POST /v1/feedback`."""

    id: Id | None = None
    target_id: Id
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
    value: JsonSchema | bool | int | float | Tag | None = None
    comment: Text | None = None
    demonstration: Text | None = None
    tags: Annotated[dict[Key, TagValue], Field(fail_fast=True, max_length=16)] | None = None

    def stored(self, caller: Caller) -> NewFeedback:
        """The feedback as it is kept: a bare value becomes `{"value": ...}`."""
        value: dict[str, Any] = {} if self.value is None else {"value": self.value}
        return NewFeedback(
            id=self.id,
            target_id=self.target_id,
            name=self.name,
            value=self.value if isinstance(self.value, dict) else value,
            comment=self.comment,
            demonstration=self.demonstration,
            tags=self.tags or {},
            principal=caller.principal,
            trust=caller.trust,
        )


async def give(parts: Parts, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
    """Answer `POST /v1/feedback`: 201, or 200 for what is known already.

    Raises:
        RequestError: It is malformed (400), about nothing known (404), or contradicts itself (409);
            the database is away (503).
    """
    caller = authenticate(headers)
    body = await read_body(headers, receive, parts.settings.max_body_bytes)
    try:
        request = FeedbackRequest.model_validate(parse_json(body))
    except ValidationError as error:
        raise explain(error, FeedbackRequest) from error
    try:
        payload, created = await asyncio.to_thread(_keep, parts, caller, request.stored(caller))
    except UnknownTarget as error:
        raise _not_found(parts, error) from error
    except Conflict as error:
        raise RequestError(409, str(error), code="feedback_conflict", param="id") from error
    except AWAY as error:
        message = "The database is away, and the feedback is not kept. Send it again shortly."
        raise unavailable(message, code="database_unavailable") from error
    await send_json(send, 201 if created else 200, payload, [])


def _not_found(parts: Parts, error: UnknownTarget) -> RequestError:
    if parts.recorder.degraded:
        message = "The log is behind, and the interaction may still be in it. Try again shortly."
        return unavailable(message, code="log_behind")
    hint = "Only what was answered in this namespace can be found."
    return RequestError(404, f"{error} {hint}", code="target_not_found", param="target_id")


def _keep(parts: Parts, caller: Caller, new: NewFeedback) -> tuple[dict[str, Any], bool]:
    with parts.db.begin() as session:
        row, created = feedback.add(session, caller.namespace, new, parts.now())
        payload = {"id": row.id, "target_id": row.interaction, "created": created}
    return payload, created
