"""The ASGI application: a route table, and one place where errors become answers.

No framework stands on the hot path. Every answer that is not the engine's own is JSON, and every
error has the shape of the OpenAI API. The recorder lives as long as the application: it starts
with it, replaying what an earlier process left in the spool, and is drained at its end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from agent.gateway import count_tokens, feedback, proxy
from agent.gateway.access.origin import refuse_pages
from agent.gateway.apis import APIS
from agent.gateway.apis.api import openai_error
from agent.gateway.apis.request import refuse_many_values
from agent.gateway.errors import RequestError, short, unavailable
from agent.gateway.http.asgi import (
    Call,
    ClientGone,
    Event,
    Receive,
    Send,
    appending,
    given,
    send_bytes,
    send_json,
)
from agent.gateway.http.asgi import Scope as AsgiScope
from agent.gateway.metrics import CONTENT_TYPE
from agent.gateway.route import names, unknown_model
from agent.gateway.state import Parts
from store.keys import Scope

log = structlog.get_logger(__name__)

CONTROL = "/api/"
MOST_CONTROL_VALUES = 4096
"""Of one body: what is wrong with each is told in words."""
Route = Callable[[Parts, Call], Awaitable[None]]


class Gateway:
    """The endpoint that clients talk to."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        parts.metrics.watch_inflight(parts.inflight.count)

    async def start(self) -> None:
        """Begin to record."""
        self.parts.recorder.start()

    async def close(self) -> None:
        """Make durable what is waiting."""
        await self.parts.recorder.close()
        self.parts.views.close()
        self.parts.door.keyring.close()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the application's own beginning and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        head = Head(send)
        try:
            headers = dict(scope["headers"])
            if not self.parts.door.needs_key:  # no page has one
                refuse_pages(headers, self.parts.settings.allowed_hosts)
            if scope["path"].startswith(CONTROL):
                await self._control(scope, receive, head.send)
                return
            route, name = find(scope["path"], scope["method"])
            call = Call(headers, scope["query_string"], name, receive, head.send)
            await route(self.parts, call)
        except ClientGone:
            log.debug("client gone", path=scope["path"])
        except RequestError as error:
            if head.sent:
                raise  # the server closes the connection, so that the client sees the break
            await self._tell(scope["path"], error, send)
        except Exception:
            log.exception("request failed", path=scope["path"])
            if head.sent:
                raise
            failure = RequestError(500, "byheart failed on this request. Its log says why.")
            await self._tell(scope["path"], failure, send)

    async def _control(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Let the control API answer, to whoever may read or change things."""
        needed = Scope.READ if scope["method"] in ("GET", "HEAD") else Scope.ADMIN
        headers = dict(scope["headers"])
        caller = await self.parts.door.caller(headers, needed)
        call = Call(headers, scope["query_string"], "", receive, send)
        body = b""
        if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
            most = self.parts.settings.max_body_bytes
            body = await self.parts.uploads.read(caller.principal, call, most)
            refuse_many_values(body, MOST_CONTROL_VALUES)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        asked = {**scope, "method": method, "state": {"caller": caller}}
        answer: list[Event] = []
        async with self.parts.controllers.of(caller.principal):
            async with self.parts.controlling:
                control = await asyncio.to_thread(self.parts.control)  # made at the first call
                await control(asked, given(body), appending(answer))
            for event in answer:  # of a client that reads slowly nobody else waits
                await send(event)

    async def _tell(self, path: str, error: RequestError, send: Send) -> None:
        """Answer with an error, in the words of the API that was asked."""
        api = "/".join(path.split("/")[:3])
        payload = ERRORS.get(api, openai_error)(error)
        await send_json(send, error.status, payload, error.headers)


class Head:
    """Whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self.sent = False
        self._send = send

    async def send(self, event: Event) -> None:
        """Send on."""
        self.sent = True
        await self._send(event)


def find(path: str, method: str) -> tuple[Route, str]:
    """The route of a path, and what stands in it behind the route's own part.

    Raises:
        RequestError: There is none (404), or not for that method (405).
    """
    stem = next((stem for stem in ROUTES if _takes(stem, path)), None)
    if stem is None:
        known = ", ".join(sorted(stem for stem in ROUTES if stem[-1] != "/"))
        message = f"There is nothing at {short(path)!r}. Known: {known}."
        raise RequestError(404, message, code="not_found")
    methods = ROUTES[stem]
    method = "GET" if method == "HEAD" else method  # the server leaves out the body
    if method not in methods:
        allowed = ", ".join(methods)
        error = RequestError(
            405, f"{short(path)} takes {allowed}, not {short(method)}.", code="wrong_method"
        )
        error.headers.append((b"allow", allowed.encode()))
        raise error
    return methods[method], path.removeprefix(stem)


def _takes(stem: str, path: str) -> bool:
    return path == stem if stem[-1] != "/" else path.startswith(stem) and path != stem


async def _models(parts: Parts, call: Call) -> None:
    caller = await parts.door.caller(call.headers, Scope.INFER)
    there = await names(parts, caller.namespace)
    cards = [_card(parts, name) for name in there]
    await send_json(call.send, 200, {"object": "list", "data": cards}, [])


async def _model(parts: Parts, call: Call) -> None:
    caller = await parts.door.caller(call.headers, Scope.INFER)
    there = await names(parts, caller.namespace)
    if call.name not in there:
        raise unknown_model(call.name, there)
    await send_json(call.send, 200, _card(parts, call.name), [])


def _card(parts: Parts, name: str) -> dict[str, object]:
    created = int(parts.now().timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": "byheart"}


async def _health(parts: Parts, call: Call) -> None:
    recorder = parts.recorder
    payload = {
        "status": "degraded" if recorder.degraded else "ok",
        "log": "none" if recorder.refuses else "spool" if recorder.degraded else "database",
    }
    await send_json(call.send, 200, payload, [])


async def _ready(parts: Parts, call: Call) -> None:
    if not (parts.ready() and await parts.engine.is_healthy()):
        parts.metrics.engine_up.set(0)
        raise unavailable("The model server is not ready. Try again shortly.", "engine_unavailable")
    parts.metrics.engine_up.set(1)
    if parts.recorder.refuses:
        raise unavailable("No answer can be logged, so none is given.", "not_logged")
    await send_json(call.send, 200, {"status": "ready"}, [])


async def _metrics(parts: Parts, call: Call) -> None:
    caller = await parts.door.caller(call.headers, Scope.READ)
    caller.require_all_namespaces()
    kind = (b"content-type", CONTENT_TYPE.encode())
    await send_bytes(call.send, 200, parts.metrics.render(), [kind])


ROUTES: dict[str, dict[str, Route]] = {
    "/v1/feedback": {"POST": feedback.give, "GET": feedback.listed},
    "/v1/feedback/": {"GET": feedback.one, "PUT": feedback.put},
    "/v1/models": {"GET": _models},
    "/v1/models/": {"GET": _model},
    "/healthz": {"GET": _health},
    "/readyz": {"GET": _ready},
    "/metrics": {"GET": _metrics},
}
"""By path; one that ends with a slash takes a name behind it."""
ROUTES[count_tokens.PATH] = {"POST": count_tokens.count}
ROUTES |= {api.path: {"POST": partial(proxy.answer, api)} for api in APIS}
ERRORS = {api.path: api.error for api in APIS}
