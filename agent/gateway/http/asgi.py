"""Read and write ASGI events: request bodies, responses, disconnects.

This module does not know what a request means. The size of a body is measured as it arrives,
independently of its Content-Length.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from agent.gateway.errors import RequestError

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Result = TypeVar("Result")

JSON = (b"content-type", b"application/json")
UPLOAD_TIMEOUT_S = 60.0
"""The longest time that a request's body may take to arrive."""


@dataclass(frozen=True)
class Call:
    """An HTTP request, and the channel for its response."""

    headers: dict[bytes, bytes]
    """By lower-case name; the last value if a name occurs twice."""
    query: bytes
    """The query string, as sent."""
    name: str
    """The name in the path after the route's prefix; empty if there is none."""
    receive: Receive
    send: Send


class ClientGone(Exception):
    """The client disconnected before the end of the response."""


async def read_body(call: Call, max_bytes: int, reserve: Callable[[int], None]) -> bytes:
    """Read the whole request body.

    Args:
        call: The request.
        max_bytes: The largest body to accept.
        reserve: Called with the size of each chunk; raises to reject it.

    Raises:
        RequestError: The body is not declared as uncompressed JSON (415), is larger than
            `max_bytes` (413), or takes longer than `UPLOAD_TIMEOUT_S` (408).
        ClientGone: The client disconnected before the end of the body.
    """
    require_json(call.headers)
    declared = call.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            return await _received(call.receive, max_bytes, reserve)
    except TimeoutError as error:
        message = (
            f"The request body did not arrive within {UPLOAD_TIMEOUT_S:.0f} s. Send it faster."
        )
        raise _closing(RequestError(408, message, code="upload_too_slow")) from error


def require_json(headers: dict[bytes, bytes]) -> None:
    """Require a body that is declared as uncompressed JSON.

    Raises:
        RequestError: The Content-Type or the Content-Encoding differs (415).
    """
    if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != JSON[1]:
        raise _unsupported(
            "The body must be declared as JSON. Send the header 'Content-Type: application/json'."
        )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise _unsupported("Send the body uncompressed, without the header 'Content-Encoding'.")


async def _received(receive: Receive, max_bytes: int, reserve: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    remaining, more = max_bytes, True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        chunk = event.get("body", b"")
        remaining -= len(chunk)
        if remaining < 0:
            raise _too_large(max_bytes)
        reserve(len(chunk))
        chunks.append(chunk)
        more = event.get("more_body", False)
    return b"".join(chunks)


def _unsupported(message: str) -> RequestError:
    return RequestError(415, message, code="unsupported_media_type")


def _too_large(max_bytes: int) -> RequestError:
    message = (
        f"The request body is larger than {max_bytes} bytes. Shorten the conversation, or raise "
        "server.max_body_bytes."
    )
    return _closing(RequestError(413, message, code="request_too_large"))


def _closing(error: RequestError) -> RequestError:
    """Add `Connection: close`, since the rest of the body stays unread."""
    error.headers.append((b"connection", b"close"))
    return error


async def send_json(send: Send, status: int, payload: object, headers: Headers) -> None:
    """Send a complete JSON response."""
    await send_bytes(send, status, orjson.dumps(payload), [JSON, *headers])


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a complete response; `headers` must include its content type."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def start_response(send: Send, status: int, headers: Headers) -> None:
    """Start a response whose body follows in chunks."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_chunk(send: Send, body: bytes, *, last: bool = False) -> None:
    """Send a chunk of a body; an empty one only if it is the last."""
    if body or last:
        await send({"type": "http.response.body", "body": body, "more_body": not last})


def replay_body(body: bytes) -> Receive:
    """Return a `receive` that yields a body read before, and never a disconnect."""
    events: list[Event] = [{"type": "http.request", "body": body}]

    async def receive() -> Event:
        return events.pop() if events else await asyncio.Future()

    return receive


def capture(events: list[Event]) -> Send:
    """Return a `send` that appends the response to `events`, to be sent later."""

    async def send(event: Event) -> None:
        events.append(event)

    return send


async def while_connected(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """Await `work`; cancel it if the client disconnects.

    Raises:
        ClientGone: The client disconnected, and `work` has ended after its cancellation.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise ClientGone
    finally:
        gone.cancel()
        task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
