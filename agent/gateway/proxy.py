"""One request to the model, from its first byte to its last.

`answer` runs the steps in order: authenticate, parse, choose the version, record as running,
compose, forward, commit, last byte. The client gets its last byte (the body of a plain answer, or
the last event of a stream) only after the interaction is durable. Every request whose version was
chosen is recorded, and so is one that gets a 503 instead of a version:

- DONE: the engine's answer is complete.
- FAILED: the engine failed or rejected the request, or byheart itself failed.
- ABORTED: the client disconnected, which cancels the engine's work.

Of a stream that failed or was aborted, the text so far is recorded too.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
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

CLIENT_GONE, SERVER_ERROR, UNAVAILABLE = 499, 500, 503
CLIENT_LEFT = (ClientGone, asyncio.CancelledError)
"""The answer has no reader: the client disconnected, or the shutdown's grace period is over."""
DRAIN_TIMEOUT_S = 1.0
LARGE_STREAM_BYTES = 2**17
"""A stream of this size takes several milliseconds to parse."""
INTERNAL_ERROR = "byheart failed on this request"
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
NO_CACHING = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def answer(api: Api, state: GatewayState, call: Call) -> None:
    """Answer an inference request.

    Raises:
        RequestError: The request failed before the response started.
        ClientGone: The client disconnected.
    """
    arm, code = UNROUTED, SERVER_ERROR
    started_s = state.timer()
    try:
        caller = await state.authenticator.authenticate(call.headers, Scope.INFER)
        max_bytes = state.settings.max_body_bytes
        async with state.uploads.body(caller.principal, call, max_bytes) as body:
            request = parse(api.request, body, state.settings.max_tokens_cap)
            exchange = Exchange(state, caller, api, request, started_s)
            exchange.read_headers(call.headers)
            with exchange.admit(), state.inflight.track(exchange.namespace) as ticket:
                await _choose_version(exchange, ticket)
                arm = exchange.route.arm
                await _record_running(exchange)
                code = await _forward(exchange, call)  # compose, forward, commit, last byte
    except RequestError as error:
        code = error.status
        raise
    except ClientGone:
        code = CLIENT_GONE
        raise
    finally:
        state.metrics.requests.labels(str(code), arm).inc()


async def _choose_version(exchange: Exchange, ticket: Ticket) -> None:
    """Choose the version that answers; record the request if the choice is unavailable (503)."""
    state = exchange.state
    try:
        exchange.set_route(await choose_version(state, exchange.namespace, exchange.request.model))
    except RequestError as failure:
        if failure.status == UNAVAILABLE:
            await _commit_failed(exchange, Answer(error=failure.message), failure)
        raise
    state.inflight.set_version(ticket, exchange.route.version)


async def _record_running(exchange: Exchange) -> None:
    """Record the request as running, if the engine is ready for it."""
    if not exchange.state.is_ready():
        down = EngineUnavailable("the engine is starting or being restored")
        raise await _commit_engine_error(exchange, Answer(), down)
    await exchange.record_running()
    reach("request begun")


async def _forward(exchange: Exchange, call: Call) -> int:
    """Forward the composed request, commit the answer, send its last byte; return its status."""
    forward = _forward_stream if exchange.request.stream else _forward_plain
    try:
        return await forward(exchange, call.receive, call.send)
    except (RequestError, *CLIENT_LEFT):
        raise
    except Exception:  # boundary: an internal error must not leave the row running forever
        await exchange.commit(InteractionStatus.FAILED, Answer(error=INTERNAL_ERROR))
        raise


async def _forward_plain(exchange: Exchange, receive: Receive, send: Send) -> int:
    """Forward a request that is not streamed."""
    engine = exchange.state.engine
    try:
        completion = _retry_without_lessons(
            exchange, lambda: engine.chat(exchange.compose_body(), exchange.api.path)
        )
        reply = await while_connected(completion, receive)
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
    await send_bytes(send, 200, reply.body, [JSON, *exchange.headers()])
    reach("last byte sent")
    return 200


async def _forward_stream(exchange: Exchange, receive: Receive, send: Send) -> int:
    """Forward a streamed request; the last event waits for the commit."""
    api = exchange.api
    is_hidden = never if exchange.request.wants_usage else api.is_usage_only
    events = EventStream(api.is_end, is_hidden)
    try:
        relaying = _retry_without_lessons(exchange, lambda: _relay_events(exchange, events, send))
        await while_connected(relaying, receive)
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


async def _retry_without_lessons(
    exchange: Exchange, request: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Await the engine's answer; retry once without lessons if they make the prompt too long."""
    try:
        return await request()
    except EngineStatusError as error:
        if not (error.is_too_long and exchange.drop_lessons()):
            raise
    return await request()


async def _relay_events(exchange: Exchange, events: EventStream, send: Send) -> None:
    """Relay the engine's events to the client, except the last one."""
    async with exchange.state.engine.stream(exchange.compose_body(), exchange.api.path) as stream:
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
    """Parse the events so far; a large stream is parsed in a thread, off the event loop."""
    raw = events.events
    if len(raw) < LARGE_STREAM_BYTES:
        return api.parse_events(raw)
    return await asyncio.to_thread(api.parse_events, raw)


async def _drain(chunks: AsyncIterator[bytes], events: EventStream) -> None:
    """Read what follows the last event, for a bounded time, so that the connection is reusable."""
    with contextlib.suppress(EngineDisconnected, TimeoutError):
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            async for chunk in chunks:
                events.feed(chunk)


async def _commit_engine_error(
    exchange: Exchange, answer: Answer, error: EngineError
) -> RequestError:
    """Record that the engine failed; return the error for the client."""
    failure = client_error(error)
    answer.error = recorded_error(error)
    if not isinstance(error, EngineStatusError):  # its text may quote the client's prompt
        log.warning("engine failed", interaction=exchange.id, error=str(error))
    await _commit_failed(exchange, answer, failure)
    return failure


async def _commit_failed(exchange: Exchange, answer: Answer, failure: RequestError) -> None:
    """Record a failed request, and add the interaction's headers to `failure`."""
    if failure.code == "engine_unavailable":
        exchange.state.metrics.engine_up.set(0)
    failure.headers += exchange.headers()
    if failure.status < SERVER_ERROR:
        exchange.charge_key(InteractionStatus.FAILED, answer)
    await exchange.commit(InteractionStatus.FAILED, answer)


async def _send_failure(exchange: Exchange, failure: RequestError, send: Send) -> int:
    """End a started stream with an error event, without its last event; return the status.

    Raises:
        RequestError: The response has not started: the caller sends the error.
    """
    if not exchange.response_started:
        raise failure
    await send_chunk(send, exchange.api.error_event(failure), last=True)
    return failure.status
