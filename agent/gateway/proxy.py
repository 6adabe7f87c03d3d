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
from agent.gateway.errors import RequestError, engine_answer_invalid
from agent.gateway.exchange import Exchange, client_error, recorded_error
from agent.gateway.http.asgi import (
    JSON,
    Call,
    ClientGone,
    Receive,
    Send,
    send_bytes,
    send_chunk,
    start_response,
    while_connected,
)
from agent.gateway.http.event_stream import EventStream
from agent.gateway.route import UNROUTED, choose_version
from agent.gateway.state import GatewayState
from agent.inflight import Ticket
from agent.process.failpoint import reach
from store.keys import Scope
from store.schema import InteractionStatus

CLIENT_GONE, SERVER_ERROR = 499, 500
UNAVAILABLE = 503
CLIENT_LEFT = (ClientGone, asyncio.CancelledError)
"""Nobody is there to be answered: the client left, or a shutdown has waited long enough."""
DRAIN_TIMEOUT_S = 1.0
LARGE_STREAM_BYTES = 2**17
"""Bytes of a stream that take a few milliseconds to read."""
INTERNAL_ERROR = "byheart failed on this request"
T = TypeVar("T")

log = structlog.get_logger(__name__)

EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
NO_CACHING = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


async def answer(api: Api, state: GatewayState, call: Call) -> None:
    """Answer a request to the model.

    Raises:
        RequestError: Instead of an answer that has not begun.
    """
    arm, code = UNROUTED, 500
    try:
        async with _open_exchange(api, state, call) as exchange:
            with exchange.admit(), state.inflight.track(exchange.namespace) as ticket:
                await _choose_version(exchange, ticket)
                arm = exchange.route.arm
                code = await _forward(exchange, call)
    except RequestError as error:
        code = error.status
        raise
    except ClientGone:
        code = CLIENT_GONE
        raise
    finally:
        state.metrics.requests.labels(str(code), arm).inc()


@asynccontextmanager
async def _open_exchange(api: Api, state: GatewayState, call: Call) -> AsyncIterator[Exchange]:
    """Read a request, whose text is in memory until this is left."""
    started = state.timer()
    caller = await state.authenticator.authenticate(call.headers, Scope.INFER)
    most = state.settings.max_body_bytes
    async with state.uploads.held(caller.principal, call, most) as body:
        request = parse(api.request, body, state.settings.max_tokens_cap)
        exchange = Exchange(state, caller, api, request, started)
        exchange.read_headers(call.headers)
        yield exchange


async def _choose_version(exchange: Exchange, ticket: Ticket) -> None:
    """Decide who answers; that it cannot be decided is recorded too."""
    state = exchange.state
    try:
        exchange.set_route(await choose_version(state, exchange.namespace, exchange.request.model))
    except RequestError as failure:
        if failure.status == UNAVAILABLE:
            await _commit_failed(exchange, Answer(error=failure.message), failure)
        raise
    state.inflight.set_version(ticket, exchange.route.version)


async def _forward(exchange: Exchange, call: Call) -> int:
    """Ask the engine and answer; the status of the answer."""
    if not exchange.state.is_ready():
        down = EngineUnavailable("the engine is starting or being restored")
        raise await _commit_engine_error(exchange, Answer(), down)
    await exchange.record_running()
    reach("request begun")
    give = _forward_stream if exchange.request.stream else _forward_whole
    try:
        return await give(exchange, call.receive, call.send)
    except (RequestError, *CLIENT_LEFT):
        raise
    except Exception:  # boundary: a fault of ours leaves no row that runs for ever
        await exchange.commit(InteractionStatus.FAILED, Answer(error=INTERNAL_ERROR))
        raise


async def _forward_whole(exchange: Exchange, receive: Receive, send: Send) -> int:
    engine = exchange.state.engine
    try:
        asking = _retry_without_lessons(
            exchange, lambda: engine.chat(exchange.engine_body(), exchange.api.path)
        )
        reply = await while_connected(asking, receive)
    except CLIENT_LEFT:
        await exchange.commit(InteractionStatus.ABORTED, Answer())
        raise
    except EngineError as error:
        raise await _commit_engine_error(exchange, Answer(), error) from error
    exchange.state.metrics.engine_up.set(1)
    answer = exchange.api.parse_body(reply.body)
    if answer.error is not None:
        failure = engine_answer_invalid()
        await _commit_failed(exchange, answer, failure)
        raise failure
    await exchange.commit(InteractionStatus.DONE, answer)
    reach("answer recorded")
    headers = [JSON, *exchange.headers()]
    await send_bytes(send, 200, reply.body, headers)
    reach("last byte sent")
    return 200


async def _retry_without_lessons(
    exchange: Exchange, ask: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Ask the engine; once more without lessons, where they make the request too long."""
    try:
        return await ask()
    except EngineStatusError as error:
        if not (error.is_too_long and exchange.drop_lessons()):
            raise
    return await ask()


async def _forward_stream(exchange: Exchange, receive: Receive, send: Send) -> int:
    api = exchange.api
    is_hidden = never if exchange.request.wants_usage else api.is_usage_only
    events = EventStream(api.is_end, is_hidden)
    try:
        pumping = _retry_without_lessons(exchange, lambda: _relay_events(exchange, events, send))
        await while_connected(pumping, receive)
        answer = await _parse_stream(api, events)
        failed = answer.error is not None
        status = InteractionStatus.FAILED if failed else InteractionStatus.DONE
        await exchange.commit(status, answer)
        reach("answer recorded")
    except CLIENT_LEFT:
        await exchange.commit(InteractionStatus.ABORTED, await _parse_stream(api, events))
        raise
    except EngineError as error:
        failure = await _commit_engine_error(exchange, await _parse_stream(api, events), error)
        return await _send_failure(exchange, failure, send)
    except RequestError as failure:
        return await _send_failure(exchange, failure, send)
    await send_chunk(send, events.tail, last=True)
    reach("last byte sent")
    return 200


async def _relay_events(exchange: Exchange, events: EventStream, send: Send) -> None:
    """Let the engine's events through, up to the last."""
    async with exchange.state.engine.stream(exchange.engine_body(), exchange.api.path) as stream:
        exchange.state.metrics.engine_up.set(1)
        await start_response(send, 200, [EVENT_STREAM, *NO_CACHING, *exchange.headers()])
        exchange.response_started = True
        async for chunk in stream.chunks:
            passed = events.feed(chunk)
            exchange.mark_first_token()
            await send_chunk(send, passed)
            reach("part sent")
            if events.complete:
                await _drain(stream.chunks, events)
    events.finish()
    if not events.complete:
        raise EngineDisconnected("the engine's stream ended before its last event")


async def _parse_stream(api: Api, events: EventStream) -> Answer:
    """What a stream said; of a long one beside the event loop, which goes on meanwhile."""
    raw = events.events
    return (
        api.parse_events(raw)
        if len(raw) < LARGE_STREAM_BYTES
        else await asyncio.to_thread(api.parse_events, raw)
    )


async def _drain(chunks: AsyncIterator[bytes], events: EventStream) -> None:
    """Take what follows the last event, for a moment: then the connection can be used again."""
    with contextlib.suppress(EngineDisconnected, TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for chunk in chunks:
                events.feed(chunk)


async def _commit_engine_error(
    exchange: Exchange, answer: Answer, error: EngineError
) -> RequestError:
    """Record that the engine failed; returns what the client is told."""
    failure = client_error(error)
    answer.error = recorded_error(error)
    if not isinstance(error, EngineStatusError):  # what it says may be the client's own words
        log.warning("engine failed", interaction=exchange.id, error=str(error))
    await _commit_failed(exchange, answer, failure)
    return failure


async def _commit_failed(exchange: Exchange, answer: Answer, failure: RequestError) -> None:
    """Record a request that ends with `failure`, which says from then on which one it was."""
    if failure.code == "engine_unavailable":
        exchange.state.metrics.engine_up.set(0)
    failure.headers += exchange.headers()
    if failure.status < SERVER_ERROR:
        exchange.charge_key(InteractionStatus.FAILED, answer)
    await exchange.commit(InteractionStatus.FAILED, answer)


async def _send_failure(exchange: Exchange, failure: RequestError, send: Send) -> int:
    """Tell a client of a stream that it failed, in an event if it has begun; never the last one."""
    if not exchange.response_started:
        raise failure
    await send_chunk(send, exchange.api.error_event(failure), last=True)
    return failure.status
