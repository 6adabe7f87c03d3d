"""One request to the model: what the engine is asked, what is recorded, what headers say.

The identifier is minted here; a client's own request id is only stored.
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
from store.contexts import Context, compose, message_text, still_says
from store.db import new_id
from store.records import Record
from store.schema import InteractionStatus, Trust
from store.views import BASE

log = structlog.get_logger(__name__)

NO_LEARN_HEADER = b"x-byheart-no-learn"
REQUEST_ID_HEADER = b"x-request-id"
MAX_CLIENT_ID_CHARS = 256
MAX_TOKENS_PER_S = 500
"""Of an answer that was left before anything of it came, at most so many a second were made."""


class Exchange:
    """A request on its way; made when it is read, before it is known who answers it."""

    def __init__(
        self, state: GatewayState, caller: Caller, api: Api, request: ApiRequest, started: float
    ) -> None:
        self.id = new_id("int")
        self.state = state
        self.api = api
        self.request = request
        self.namespace = caller.namespace
        self.route: Route = unrouted(caller.namespace)
        self.response_started = False
        """Whether the client has got the head of the answer."""
        self.first_token_s: float | None = None
        self._caller = caller
        self._started = started
        self._created_at = state.now()
        self._messages = request.chat_messages()
        self._conversation: str | None = None
        self._learn = api.is_conversation and request.store is not False
        self._client_id: str | None = None
        self._tokens_saved = 0

    def read_headers(self, headers: dict[bytes, bytes]) -> None:
        """Take what the request's headers say about it."""
        self._conversation = conversation_id.from_client(headers, self.request.tags())
        self._learn = self._learn and headers.get(NO_LEARN_HEADER, b"0") in (b"", b"0")
        self._client_id = (
            headers.get(REQUEST_ID_HEADER, b"")[:MAX_CLIENT_ID_CHARS].decode("latin-1") or None
        )

    def admit(self) -> AbstractContextManager[None]:
        """Count the request among those of its key.

        Raises:
            RequestError: On entering: the key has done as much as it may (429).
        """
        return self.state.authenticator.limiter.admit(self._caller.key)

    def set_route(self, route: Route) -> None:
        """Be answered by a version, with its context where what is said takes turns."""
        self.route = route if self.api.is_conversation else route.without_context()
        view = self.route.view
        self._tokens_saved = view.saved_tokens
        if view.saved_prompt_tokens and still_says(self._messages, view.registered or ""):
            self._tokens_saved -= view.saved_prompt_tokens

    def engine_body(self) -> dict[str, Any]:
        """The body for the engine, built from the schema field by field."""
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
        """Ask without lessons from now on; False where none are in the prompt.

        What a client may send does not shrink as lessons are learned.
        """
        view = self.route.view
        if not view.context.lessons:
            return False
        context = Context(view.context.system_prompt)
        view = replace(view, context=context, snapshot=context.hash)
        self.route = replace(self.route, view=view)
        log.warning("lessons left out, the request is too long", interaction=self.id)
        return True

    def headers(self) -> Headers:
        """What every answer says about itself."""
        view = self.route.view
        return [
            (b"x-byheart-interaction", self.id.encode()),
            (b"x-byheart-version", self.route.version.encode()),
            (b"x-byheart-arm", self.route.arm.encode()),
            (b"x-byheart-context", view.snapshot.encode()),
            (b"x-byheart-tokens-saved", str(self._tokens_saved).encode()),
        ]

    def mark_first_token(self) -> None:
        """The first bytes of the answer are on their way."""
        if self.first_token_s is None:
            self.first_token_s = self.state.timer() - self._started
            self.state.metrics.first_token.observe(self.first_token_s)

    async def record_running(self) -> None:
        """Have the interaction shown as running, before the engine is asked.

        Raises:
            RequestError: The answer could not be logged (503).
        """
        try:
            running = partial(self._record, InteractionStatus.RUNNING, Answer(), 0.0)
            await self.state.recorder.record_running(self.id, running)
        except NotLogged as error:
            message = "The answer could not be logged, so the model is not asked. Try again later."
            raise self._withheld(message) from error

    async def commit(self, status: InteractionStatus, answer: Answer) -> None:
        """Make the interaction durable.

        Raises:
            RequestError: It could not be, so the answer must not be given in full (503).
        """
        total_s = self.state.timer() - self._started
        self._count_metrics(status, answer, total_s)
        try:
            await self.state.recorder.record(self._record(status, answer, total_s))
        except NotLogged as error:
            message = "The answer could not be logged, so it is withheld. Is the disk full?"
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
        """Count the request's tokens against its key's limit."""
        if self._caller.key:
            self.state.authenticator.limiter.charge_tokens(
                self._caller.key, self._tokens_used(status, answer)
            )

    def _tokens_used(self, status: InteractionStatus, answer: Answer) -> int:
        """What the request took; estimated where it was left before the engine said so."""
        asked, made = answer.prompt_tokens, answer.completion_tokens or 0
        if asked is None:
            asked = sum(len(message_text(each)) for each in self._messages) // CHARS_PER_TOKEN
            prompts = 1 if self.api.is_conversation else len(self._messages)
            # A longer one is only looked at.
            asked = min(asked, prompts * (self.state.engine.max_model_len or asked))
        if status is not InteractionStatus.DONE:
            made = max(made, answer.chunk_count, len(answer.text) // CHARS_PER_TOKEN)
        if status is InteractionStatus.ABORTED and not self.request.stream:
            most = self.request.max_total_tokens(self.state.settings.max_tokens_cap)
            taken_s = self.state.timer() - self._started
            made = min(most, int(MAX_TOKENS_PER_S * taken_s) * self.request.choice_count())
        return asked + made


def client_error(error: EngineError) -> RequestError:
    """What the client is told when the engine did not answer."""
    return _refusal(error) if isinstance(error, EngineStatusError) else engine_unreachable()


def recorded_error(error: EngineError) -> str:
    """What is recorded of it; where the engine is, whoever reads interactions need not know."""
    if isinstance(error, EngineStatusError):
        return str(error)
    if isinstance(error, EngineUnreachable):
        return "the engine could not be reached"
    if isinstance(error, EngineDisconnected):
        return "the engine broke off"
    return "the engine did not answer"


def _refusal(error: EngineStatusError) -> RequestError:
    """The engine's own error where it is the client's to mend; nothing of it otherwise."""
    if error.status == 404 and b'"error"' not in error.body:
        message = "The model server does not serve this with its model. Ask /v1/chat/completions."
        return RequestError(404, message, code="not_served")
    if error.status == 404:
        # The route was checked against our table: the engine has lost the adapter, in a restart.
        return unavailable("The model is being loaded again. Try again shortly.", "model_loading")
    if error.status == 503:
        return unavailable("The model server is overloaded. Try again shortly.", "engine_busy")
    if error.status in (401, 403) or not 400 <= error.status < 500:
        message = "The model server failed on this request. Its log says why."
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
