"""One request to the model: the body for the engine, the record, the response headers.

byheart creates the interaction's identifier; a client's own request id is only stored.
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import orjson
import structlog

from agent.engine.errors import (
    EngineDisconnected,
    EngineError,
    EngineStatusError,
    EngineUnreachable,
)
from agent.engine.tokens import CHARS_PER_TOKEN
from agent.gateway import conversation_id
from agent.gateway.access.auth import Caller
from agent.gateway.apis.answer import Answer
from agent.gateway.apis.api import Api
from agent.gateway.apis.request import ApiRequest
from agent.gateway.errors import RequestError, engine_unreachable, unavailable
from agent.gateway.http.asgi import Headers
from agent.gateway.log.recorder import NotLogged
from agent.gateway.route import Route, unrouted
from agent.gateway.state import GatewayState
from agent.learning import auxiliary
from store.contexts import Context, compose, message_text, still_contains
from store.db import new_id
from store.records import Record
from store.schema import InteractionStatus, Trust
from store.views import BASE

log = structlog.get_logger(__name__)

NO_LEARN_HEADER = b"x-byheart-no-learn"
REQUEST_ID_HEADER = b"x-request-id"
MAX_CLIENT_ID_CHARS = 256
MAX_TOKENS_PER_S = 500
"""Upper bound on the generation speed, to charge an aborted answer that never arrived."""


class Exchange:
    """A request in progress, from its parsed body to its record.

    It exists before the version is chosen; until then its route is `unrouted`.
    """

    def __init__(
        self, state: GatewayState, caller: Caller, api: Api, request: ApiRequest, started_s: float
    ) -> None:
        self.id = new_id("int")
        self.state = state
        self.api = api
        self.request = request
        self.namespace = caller.namespace
        self.route: Route = unrouted(caller.namespace)
        self.response_started = False
        """Whether the response's status and headers have been sent."""
        self.first_token_s: float | None = None
        self._caller = caller
        self._started_s = started_s
        self._created_at = state.now()
        self._messages = request.chat_messages()
        self._conversation: str | None = None
        self._learn = api.is_conversation and request.store is not False
        self._client_id: str | None = None
        self._tokens_saved = 0

    def read_headers(self, headers: dict[bytes, bytes]) -> None:
        """Read the conversation, the opt-out from learning and the client's request id."""
        self._conversation = conversation_id.from_client(headers, self.request.tags())
        self._learn = self._learn and headers.get(NO_LEARN_HEADER, b"0") in (b"", b"0")
        self._client_id = (
            headers.get(REQUEST_ID_HEADER, b"")[:MAX_CLIENT_ID_CHARS].decode("latin-1") or None
        )

    def admit(self) -> AbstractContextManager[None]:
        """Count the request as one of its key's concurrent requests until the context is left.

        Raises:
            RequestError: On entering: the key exceeds a rate limit (429).
        """
        return self.state.authenticator.limiter.admit(self._caller.key)

    def set_route(self, route: Route) -> None:
        """Set the version that answers; only conversations are composed with its context."""
        self.route = route if self.api.is_conversation else route.without_context()
        view = self.route.view
        self._tokens_saved = view.saved_tokens
        if view.saved_prompt_tokens and still_contains(self._messages, view.registered or ""):
            self._tokens_saved -= view.saved_prompt_tokens

    def compose_body(self) -> dict[str, Any]:
        """Return the body for the engine: the context, the messages and the validated fields."""
        view = self.route.view
        messages = compose(self._messages, view.context, elide=view.registered)
        cap = self.state.settings.max_tokens_cap
        limits = self.request.engine_limits(min(cap, self.state.engine.max_model_len or cap))
        body = self.request.forwarded_fields() | limits | self.request.content_fields(messages)
        body["model"] = self.state.model_name if self.route.version == BASE else self.route.version
        body["cache_salt"] = self.state.salt(self.namespace)
        if self.request.stream and self.api.has_usage_option:
            body["stream_options"] = {"include_usage": True}
        return body

    def drop_lessons(self) -> bool:
        """Compose without lessons from here on; return False if the prompt has none.

        Lessons therefore never reduce the length of the prompts that a client may send.
        """
        view = self.route.view
        if not view.context.lessons:
            return False
        context = Context(view.context.system_prompt)
        view = replace(view, context=context, snapshot=context.hash)
        self.route = replace(self.route, view=view)
        log.warning("prompt too long, composing it without lessons", interaction=self.id)
        return True

    def headers(self) -> Headers:
        """Return the headers that every response to the request carries."""
        view = self.route.view
        return [
            (b"x-byheart-interaction", self.id.encode()),
            (b"x-byheart-version", self.route.version.encode()),
            (b"x-byheart-arm", self.route.arm.encode()),
            (b"x-byheart-context", view.snapshot.encode()),
            (b"x-byheart-tokens-saved", str(self._tokens_saved).encode()),
        ]

    def mark_first_token(self) -> None:
        """Record the time to the first token, once."""
        if self.first_token_s is None:
            self.first_token_s = self.state.timer() - self._started_s
            self.state.metrics.first_token.observe(self.first_token_s)

    async def record_running(self) -> None:
        """Record the interaction as running, before the engine gets the request.

        Raises:
            RequestError: The answer could not be logged (503).
        """
        try:
            running = partial(self._record, InteractionStatus.RUNNING, Answer(), 0.0)
            await self.state.recorder.record_running(self.id, running)
        except NotLogged as error:
            message = (
                "Interactions cannot be logged, so the request was not processed. Try again later."
            )
            raise self._withheld(message) from error

    async def commit(self, status: InteractionStatus, answer: Answer) -> None:
        """Make the interaction durable.

        Raises:
            RequestError: Neither the database nor the spool accepted it, so the answer is withheld
                (503).
        """
        total_s = self.state.timer() - self._started_s
        self._count_metrics(status, answer, total_s)
        try:
            await self.state.recorder.record(self._record(status, answer, total_s))
        except NotLogged as error:
            message = (
                "The answer could not be logged, so it is withheld. Check the server's disk space."
            )
            raise self._withheld(message) from error

    def _withheld(self, message: str) -> RequestError:
        failure = unavailable(message, code="not_logged")
        failure.headers += self.headers()
        return failure

    @cached_property
    def _is_auxiliary(self) -> bool:
        return self.api.is_conversation and auxiliary.is_auxiliary(self._messages)

    def _record(self, status: InteractionStatus, answer: Answer, total_s: float) -> Record:
        first = self.first_token_s
        params = self.request.params() | {"answer": answer.details()}
        if self._client_id:
            params["client_request_id"] = self._client_id
        return Record(
            id=self.id,
            namespace=self._caller.namespace,
            conversation=self._conversation,
            principal=self._caller.end_user(self.request.end_user),
            status=status,
            version=self.route.version,
            arm=self.route.arm,
            context_hash=self.route.view.snapshot,
            learn=self._learn,
            created_at=self._created_at,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            tokens_saved=self._tokens_saved,
            first_token_ms=None if first is None else first * 1000,
            total_ms=total_s * 1000,
            error=answer.error,
            messages=self._messages,
            params=params,
            response=answer.text,
            trust=Trust.USER,
            server=self.state.recorder.server,
            endpoint=self.api.path,
            auxiliary=self._is_auxiliary,
        )

    def _count_metrics(self, status: InteractionStatus, answer: Answer, total_s: float) -> None:
        metrics = self.state.metrics
        if status is not InteractionStatus.FAILED:
            self.charge_key(status, answer)
        metrics.duration.observe(total_s)
        metrics.prompt_tokens.inc(answer.prompt_tokens or 0)
        metrics.completion_tokens.inc(answer.completion_tokens or 0)
        if status is InteractionStatus.DONE:
            metrics.tokens_saved.inc(self._tokens_saved)

    def charge_key(self, status: InteractionStatus, answer: Answer) -> None:
        """Charge the request's tokens to its key."""
        if self._caller.key:
            self.state.authenticator.limiter.charge_tokens(
                self._caller.key, self._tokens_used(status, answer)
            )

    def _tokens_used(self, status: InteractionStatus, answer: Answer) -> int:
        """Return the request's tokens, estimated if it ended before the engine counted them."""
        prompt, completion = answer.prompt_tokens, answer.completion_tokens or 0
        if prompt is None:
            chars = sum(len(message_text(message)) for message in self._messages)
            prompts = 1 if self.api.is_conversation else len(self._messages)
            estimate = chars // CHARS_PER_TOKEN
            # The engine rejects a longer prompt without processing it.
            prompt = min(estimate, prompts * (self.state.engine.max_model_len or estimate))
        if status is not InteractionStatus.DONE:
            completion = max(completion, answer.chunk_count, len(answer.text) // CHARS_PER_TOKEN)
        if status is InteractionStatus.ABORTED and not self.request.stream:
            limit = self.request.max_total_tokens(self.state.settings.max_tokens_cap)
            elapsed_s = self.state.timer() - self._started_s
            generated = int(MAX_TOKENS_PER_S * elapsed_s) * self.request.choice_count()
            completion = min(limit, generated)
        return prompt + completion


def client_error(error: EngineError) -> RequestError:
    """Return the error for the client when the engine failed."""
    return _status_error(error) if isinstance(error, EngineStatusError) else engine_unreachable()


def recorded_error(error: EngineError) -> str:
    """Return the error to record, without the engine's address."""
    if isinstance(error, EngineStatusError):
        return str(error)
    if isinstance(error, EngineUnreachable):
        return "the engine could not be reached"
    if isinstance(error, EngineDisconnected):
        return "the engine disconnected"
    return "the engine did not answer"


def _status_error(error: EngineStatusError) -> RequestError:
    """Return the engine's own error if the client can act on it; a generic one otherwise."""
    if error.status == 404 and b'"error"' not in error.body:
        message = (
            "The model server does not support this API for its model. Use /v1/chat/completions."
        )
        return RequestError(404, message, code="not_served")
    if error.status == 404:
        # The version exists in the database: the engine lost the adapter in a restart.
        return unavailable("The model is being reloaded. Try again shortly.", "model_loading")
    if error.status == 503:
        return unavailable("The model server is overloaded. Try again shortly.", "engine_busy")
    if error.status in (401, 403) or not 400 <= error.status < 500:
        message = "The model server failed on this request. See its log."
        return RequestError(502, message, code="engine_error")
    return RequestError(
        error.status, error.message, code="engine_refused", param=_param(error.body)
    )


def _param(body: bytes) -> str | None:
    try:
        error = orjson.loads(body)["error"]
        return str(error["param"]) if error["param"] else None
    except (ValueError, KeyError, TypeError):
        return None
