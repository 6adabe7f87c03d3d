"""The ASGI application: a route table, and one place that turns errors into responses.

The hot path uses no web framework. Every response that does not come from the engine is JSON, and
every error has the shape of the API that was called. The recorder starts with the application,
replays what an earlier process left in the spool, and is flushed at shutdown.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from agent.gateway import count_tokens, feedback, proxy
from agent.gateway.access.origin import reject_cross_site
from agent.gateway.apis import APIS
from agent.gateway.apis.api import openai_error
from agent.gateway.apis.request import check_value_count
from agent.gateway.errors import RequestError, short, unavailable
from agent.gateway.http.asgi import (
    Call,
    ClientGone,
    Event,
    Receive,
    Send,
    capture,
    replay_body,
    send_bytes,
    send_json,
)
from agent.gateway.http.asgi import Scope as AsgiScope
from agent.gateway.metrics import CONTENT_TYPE
from agent.gateway.route import model_names, unknown_model
from agent.gateway.state import GatewayState
from store.keys import Scope

log = structlog.get_logger(__name__)

CONTROL = "/api/"
MAX_CONTROL_VALUES = 4096
"""Low, because the control API builds a message for each invalid value of a body."""
Route = Callable[[GatewayState, Call], Awaitable[None]]


class Gateway:
    """The HTTP endpoint that clients call."""

    def __init__(self, state: GatewayState) -> None:
        self.state = state
        state.metrics.watch_inflight(state.inflight.count)

    async def start(self) -> None:
        """Start the recorder."""
        self.state.recorder.start()

    async def close(self) -> None:
        """Write the records that are waiting, and end the threads."""
        await self.state.recorder.close()
        self.state.views.close()
        self.state.authenticator.keyring.close()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve a request, or run the application's startup and shutdown."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        response = Response(send)
        try:
            headers = dict(scope["headers"])
            if not self.state.authenticator.needs_key:  # a web page has no key to send
                reject_cross_site(headers, self.state.settings.allowed_hosts)
            if scope["path"].startswith(CONTROL):
                await self._control(scope, receive, response.send)
                return
            route, name = find(scope["path"], scope["method"])
            call = Call(headers, scope["query_string"], name, receive, response.send)
            await route(self.state, call)
        except ClientGone:
            log.debug("client gone", path=scope["path"])
        except RequestError as error:
            if response.started:
                raise  # the server closes the connection: the client sees a truncated response
            await self._send_error(scope["path"], error, send)
        except Exception:
            log.exception("request failed", path=scope["path"])
            if response.started:
                raise
            failure = RequestError(500, "Internal error. See byheart's log.")
            await self._send_error(scope["path"], failure, send)

    async def _control(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve a request to the control API, which needs `read` for GET and `admin` otherwise."""
        required = Scope.READ if scope["method"] in ("GET", "HEAD") else Scope.ADMIN
        headers = dict(scope["headers"])
        caller = await self.state.authenticator.authenticate(headers, required)
        call = Call(headers, scope["query_string"], "", receive, send)
        body = b""
        if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
            max_bytes = self.state.settings.max_body_bytes
            body = await self.state.uploads.read(caller.principal, call, max_bytes)
            check_value_count(body, MAX_CONTROL_VALUES)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inner = {**scope, "method": method, "state": {"caller": caller}}
        events: list[Event] = []
        share = self.state.control_requests
        async with share.caller_slot(caller.principal):
            async with share.total_slot():
                control = await asyncio.to_thread(self.state.control_app)  # built on the first call
                await control(inner, replay_body(body), capture(events))
            for event in events:  # only this caller waits if its client reads slowly
                await send(event)

    async def _send_error(self, path: str, error: RequestError, send: Send) -> None:
        """Send an error in the shape of the API that was called."""
        api = "/".join(path.split("/")[:3])
        payload = ERRORS.get(api, openai_error)(error)
        await send_json(send, error.status, payload, error.headers)


class Response:
    """A response, and whether it has started."""

    def __init__(self, send: Send) -> None:
        self.started = False
        self._send = send

    async def send(self, event: Event) -> None:
        """Send an ASGI event."""
        self.started = True
        await self._send(event)


def find(path: str, method: str) -> tuple[Route, str]:
    """Return the route of a path, and the name that follows the route's prefix, if any.

    Raises:
        RequestError: There is no such path (404), or it does not accept the method (405).
    """
    stem = next((stem for stem in ROUTES if _matches(stem, path)), None)
    if stem is None:
        known = ", ".join(sorted(stem for stem in ROUTES if stem[-1] != "/"))
        message = f"Unknown path {short(path)!r}. Available: {known}."
        raise RequestError(404, message, code="not_found")
    methods = ROUTES[stem]
    method = "GET" if method == "HEAD" else method  # the server omits the body
    if method not in methods:
        allowed = ", ".join(methods)
        error = RequestError(
            405, f"{short(path)} accepts {allowed}, not {short(method)}.", code="wrong_method"
        )
        error.headers.append((b"allow", allowed.encode()))
        raise error
    return methods[method], path.removeprefix(stem)


def _matches(stem: str, path: str) -> bool:
    return path == stem if stem[-1] != "/" else path.startswith(stem) and path != stem


async def _models(state: GatewayState, call: Call) -> None:
    """List the models that a request may name: the aliases and the loaded adapters."""
    caller = await state.authenticator.authenticate(call.headers, Scope.INFER)
    models = await model_names(state, caller.namespace)
    cards = [_card(state, name) for name in models]
    await send_json(call.send, 200, {"object": "list", "data": cards}, [])


async def _model(state: GatewayState, call: Call) -> None:
    """Describe one of these models."""
    caller = await state.authenticator.authenticate(call.headers, Scope.INFER)
    models = await model_names(state, caller.namespace)
    if call.name not in models:
        raise unknown_model(call.name, models)
    await send_json(call.send, 200, _card(state, call.name), [])


def _card(state: GatewayState, name: str) -> dict[str, object]:
    created = int(state.now().timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": "byheart"}


async def _health(state: GatewayState, call: Call) -> None:
    """Report that the process lives, and where interactions go: database, spool or none."""
    recorder = state.recorder
    payload = {
        "status": "degraded" if recorder.degraded else "ok",
        "log": "none"
        if recorder.rejects_requests
        else "spool"
        if recorder.degraded
        else "database",
    }
    await send_json(call.send, 200, payload, [])


async def _ready(state: GatewayState, call: Call) -> None:
    """Report that requests can be answered and logged; 503 if they cannot."""
    if not (state.is_ready() and await state.engine.is_healthy()):
        state.metrics.engine_up.set(0)
        raise unavailable("The model server is not ready. Try again shortly.", "engine_unavailable")
    state.metrics.engine_up.set(1)
    if state.recorder.rejects_requests:
        raise unavailable("Interactions cannot be logged, so requests are rejected.", "not_logged")
    await send_json(call.send, 200, {"status": "ready"}, [])


async def _metrics(state: GatewayState, call: Call) -> None:
    """Export the metrics of all namespaces, in Prometheus's text format."""
    caller = await state.authenticator.authenticate(call.headers, Scope.READ)
    caller.require_all_namespaces()
    kind = (b"content-type", CONTENT_TYPE.encode())
    await send_bytes(call.send, 200, state.metrics.render(), [kind])


ROUTES: dict[str, dict[str, Route]] = {
    "/v1/feedback": {"POST": feedback.create, "GET": feedback.list_page},
    "/v1/feedback/": {"GET": feedback.get_one, "PUT": feedback.put_one},
    "/v1/models": {"GET": _models},
    "/v1/models/": {"GET": _model},
    "/healthz": {"GET": _health},
    "/readyz": {"GET": _ready},
    "/metrics": {"GET": _metrics},
}
"""By path; a path that ends with a slash is a prefix that a name follows."""
ROUTES[count_tokens.PATH] = {"POST": count_tokens.count}
ROUTES |= {api.path: {"POST": partial(proxy.answer, api)} for api in APIS}
ERRORS = {api.path: api.error for api in APIS}
