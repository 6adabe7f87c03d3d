"""One request to the model from its first byte to its last.

auth -> schema -> version and view -> compose -> engine -> bytes through untouched -> record. The
client gets its last byte (a plain answer's body, a stream's last event) only after the interaction
is durable. However it ends, it is recorded: DONE, FAILED with what there was when the engine broke
off, or when byheart itself failed on it, ABORTED with what there was when the client went away,
which stops the engine at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from agent.engine.errors import (
    EngineDisconnected,
    EngineError,
    EngineStatusError,
    EngineUnavailable,
)
from agent.gateway.apis.answer import Answer
from agent.gateway.apis.api import Api, never
from agent.gateway.apis.request import parse
from agent.gateway.errors import RequestError, engine_unreadable
from agent.gateway.exchange import Exchange, engine_failure, engine_fault
from agent.gateway.http.asgi import (
    JSON,
    Call,
    ClientGone,
    Receive,
    Send,
    send_bytes,
    send_head,
    send_part,
    while_connected,
)
from agent.gateway.http.event_stream import EventStream
from agent.gateway.route import NOBODY, choose
from agent.gateway.state import Parts
from agent.inflight import Ticket
from agent.process.failpoint import reach
from store.keys import Scope
from store.schema import InteractionStatus

CLIENT_GONE, ENGINES_FAULT = 499, 500
UNAVAILABLE = 503
GONE = (ClientGone, asyncio.CancelledError)
"""Nobody is there to be answered: the client left, or a shutdown has waited long enough."""
REST_S = 1.0
LONG = 2**17
"""Bytes of a stream that take a few milliseconds to read."""
OUR_FAULT = "byheart failed on this request"
T = TypeVar("T")

log = structlog.get_logger(__name__)

EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
UNCACHED = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


async def answer(api: Api, parts: Parts, call: Call) -> None:
    """Answer a request to the model.

    Raises:
        RequestError: Instead of an answer that has not begun.
    """
    arm, code = NOBODY, 500
    try:
        async with _begun(api, parts, call) as exchange:
            with exchange.admitted(), parts.inflight.request(exchange.namespace) as ticket:
                await _route(exchange, ticket)
                arm = exchange.route.arm
                code = await _given(exchange, call)
    except RequestError as error:
        code = error.status
        raise
    except ClientGone:
        code = CLIENT_GONE
        raise
    finally:
        parts.metrics.requests.labels(str(code), arm).inc()


@asynccontextmanager
async def _begun(api: Api, parts: Parts, call: Call) -> AsyncIterator[Exchange]:
    """Read a request, whose text is in memory until this is left."""
    started = parts.timer()
    caller = await parts.door.caller(call.headers, Scope.INFER)
    most = parts.settings.max_body_bytes
    async with parts.uploads.held(caller.principal, call, most) as body:
        request = parse(api.request, body, parts.settings.max_tokens_cap)
        exchange = Exchange(parts, caller, api, request, started)
        exchange.heed(call.headers)
        yield exchange


async def _route(exchange: Exchange, ticket: Ticket) -> None:
    """Decide who answers; that it cannot be decided is recorded too."""
    parts = exchange.parts
    try:
        exchange.take(await choose(parts, exchange.namespace, exchange.request.model))
    except RequestError as failure:
        if failure.status == UNAVAILABLE:
            await _record_failed(exchange, Answer(error=failure.message), failure)
        raise
    parts.inflight.take(ticket, exchange.route.version)


async def _given(exchange: Exchange, call: Call) -> int:
    """Ask the engine and answer; the status of the answer."""
    if not exchange.parts.ready():
        down = EngineUnavailable("the engine is starting or being restored")
        raise await _failed(exchange, Answer(), down)
    await exchange.begin()
    reach("request begun")
    give = _streamed if exchange.request.stream else _plain
    try:
        return await give(exchange, call.receive, call.send)
    except (RequestError, *GONE):
        raise
    except Exception:  # boundary: a fault of ours leaves no row that runs for ever
        await exchange.record(InteractionStatus.FAILED, Answer(error=OUR_FAULT))
        raise


async def _plain(exchange: Exchange, receive: Receive, send: Send) -> int:
    engine = exchange.parts.engine
    try:
        asking = _fitted(exchange, lambda: engine.chat(exchange.asked(), exchange.api.path))
        reply = await while_connected(asking, receive)
    except GONE:
        await exchange.record(InteractionStatus.ABORTED, Answer())
        raise
    except EngineError as error:
        raise await _failed(exchange, Answer(), error) from error
    exchange.parts.metrics.engine_up.set(1)
    answer = exchange.api.in_body(reply.body)
    if answer.error is not None:
        failure = engine_unreadable()
        await _record_failed(exchange, answer, failure)
        raise failure
    await exchange.record(InteractionStatus.DONE, answer)
    reach("answer recorded")
    headers = [JSON, *exchange.headers()]
    await send_bytes(send, 200, reply.body, headers)
    reach("last byte sent")
    return 200


async def _fitted(exchange: Exchange, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask the engine; once more without lessons, where they make the request too long."""
    try:
        return await ask()
    except EngineStatusError as error:
        if not (error.is_too_long and exchange.leave_out_lessons()):
            raise
    return await ask()


async def _streamed(exchange: Exchange, receive: Receive, send: Send) -> int:
    api = exchange.api
    is_hidden = never if exchange.request.wants_usage else api.is_usage_only
    events = EventStream(api.is_end, is_hidden)
    try:
        pumping = _fitted(exchange, lambda: _pump(exchange, events, send))
        await while_connected(pumping, receive)
        answer = await _read(api, events)
        failed = answer.error is not None
        status = InteractionStatus.FAILED if failed else InteractionStatus.DONE
        await exchange.record(status, answer)
        reach("answer recorded")
    except GONE:
        await exchange.record(InteractionStatus.ABORTED, await _read(api, events))
        raise
    except EngineError as error:
        failure = await _failed(exchange, await _read(api, events), error)
        return await _end_with(exchange, failure, send)
    except RequestError as failure:
        return await _end_with(exchange, failure, send)
    await send_part(send, events.tail, last=True)
    reach("last byte sent")
    return 200


async def _pump(exchange: Exchange, events: EventStream, send: Send) -> None:
    """Let the engine's events through, up to the last."""
    async with exchange.parts.engine.stream(exchange.asked(), exchange.api.path) as stream:
        exchange.parts.metrics.engine_up.set(1)
        await send_head(send, 200, [EVENTS, *UNCACHED, *exchange.headers()])
        exchange.begun = True
        async for chunk in stream.chunks:
            passed = events.feed(chunk)
            exchange.note_first_token()
            await send_part(send, passed)
            reach("part sent")
            if events.complete:
                await _rest(stream.chunks, events)
    events.finish()
    if not events.complete:
        raise EngineDisconnected("the engine's stream ended before its last event")


async def _read(api: Api, events: EventStream) -> Answer:
    """What a stream said; of a long one beside the event loop, which goes on meanwhile."""
    raw = events.events
    return api.in_events(raw) if len(raw) < LONG else await asyncio.to_thread(api.in_events, raw)


async def _rest(chunks: AsyncIterator[bytes], events: EventStream) -> None:
    """Take what follows the last event, for a moment: then the connection can be used again."""
    with contextlib.suppress(EngineDisconnected, TimeoutError):
        async with asyncio.timeout(REST_S):
            async for chunk in chunks:
                events.feed(chunk)


async def _failed(exchange: Exchange, answer: Answer, error: EngineError) -> RequestError:
    """Record that the engine failed; returns what the client is told."""
    failure = engine_failure(error)
    answer.error = engine_fault(error)
    if not isinstance(error, EngineStatusError):  # what it says may be the client's own words
        log.warning("engine failed", interaction=exchange.id, error=str(error))
    await _record_failed(exchange, answer, failure)
    return failure


async def _record_failed(exchange: Exchange, answer: Answer, failure: RequestError) -> None:
    """Record a request that ends with `failure`, which says from then on which one it was."""
    if failure.code == "engine_unavailable":
        exchange.parts.metrics.engine_up.set(0)
    failure.headers += exchange.headers()
    if failure.status < ENGINES_FAULT:
        exchange.charge(InteractionStatus.FAILED, answer)
    await exchange.record(InteractionStatus.FAILED, answer)


async def _end_with(exchange: Exchange, failure: RequestError, send: Send) -> int:
    """Tell a client of a stream that it failed, in an event if it has begun; never the last one."""
    if not exchange.begun:
        raise failure
    await send_part(send, exchange.api.error_event(failure), last=True)
    return failure.status
