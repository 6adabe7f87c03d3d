"""The ASGI messages that the gateway reads and writes: bodies in, JSON out, clients that go away.

Nothing here knows what a request means. A body is counted while it arrives, whatever its
Content-Length says.
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
"""How long a request's body may take."""


@dataclass(frozen=True)
class Call:
    """An HTTP request, and where its answer goes."""

    headers: dict[bytes, bytes]
    """By lower-case name; the last one where a name comes twice."""
    query: bytes
    """What stands behind the question mark, as it was sent."""
    name: str
    """What stands in the path behind the part that names the route; empty where that is all."""
    receive: Receive
    send: Send


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


async def read_body(call: Call, limit: int, add: Callable[[int], None]) -> bytes:
    """The whole request body.

    Args:
        call: The request.
        limit: Most bytes that it may have.
        add: Told how many bytes have come, each time; it may refuse more.

    Raises:
        RequestError: It is not declared as plain JSON (415), has more than `limit` bytes (413), or
            takes longer than `UPLOAD_TIMEOUT_S` (408).
        ClientGone: The client went away before the end of it.
    """
    require_json(call.headers)
    declared = call.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            return await _received(call.receive, limit, add)
    except TimeoutError as error:
        message = f"The request body was not here after {UPLOAD_TIMEOUT_S:.0f} s. Send it faster."
        raise _closing(RequestError(408, message, code="upload_too_slow")) from error


def require_json(headers: dict[bytes, bytes]) -> None:
    """Let pass what is declared as JSON.

    Raises:
        RequestError: It is not, or it is compressed (415).
    """
    if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != JSON[1]:
        raise _unsupported(
            "The body must be declared as JSON: send the header 'Content-Type: application/json'."
        )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise _unsupported("Send the body uncompressed, without the header 'Content-Encoding'.")


async def _received(receive: Receive, limit: int, add: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    left, more = limit, True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        part = event.get("body", b"")
        left -= len(part)
        if left < 0:
            raise _too_large(limit)
        add(len(part))
        chunks.append(part)
        more = event.get("more_body", False)
    return b"".join(chunks)


def _unsupported(message: str) -> RequestError:
    return RequestError(415, message, code="unsupported_media_type")


def _too_large(limit: int) -> RequestError:
    message = (
        f"The request body is larger than {limit} bytes. Shorten the conversation, or raise "
        "server.max_body_bytes."
    )
    return _closing(RequestError(413, message, code="request_too_large"))


def _closing(error: RequestError) -> RequestError:
    """The rest of the body is not read, so the connection cannot be used again."""
    error.headers.append((b"connection", b"close"))
    return error


async def send_json(send: Send, status: int, payload: object, headers: Headers) -> None:
    """Send a whole JSON answer."""
    await send_bytes(send, status, orjson.dumps(payload), [JSON, *headers])


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole answer; `headers` names its content type."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def start_response(send: Send, status: int, headers: Headers) -> None:
    """Begin an answer whose body comes in chunks."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_chunk(send: Send, body: bytes, *, last: bool = False) -> None:
    """Send a part of a body, if there is anything in it."""
    if body or last:
        await send({"type": "http.response.body", "body": body, "more_body": not last})


def replay_body(body: bytes) -> Receive:
    """A request whose body is here already; its client does not go away."""
    events: list[Event] = [{"type": "http.request", "body": body}]

    async def receive() -> Event:
        return events.pop() if events else await asyncio.Future()

    return receive


def capture(events: list[Event]) -> Send:
    """Where an answer goes that is to be sent later."""

    async def send(event: Event) -> None:
        events.append(event)

    return send


async def while_connected(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """Await `work`, but cancel it as soon as the client goes away.

    Raises:
        ClientGone: The client went away; `work` has been cancelled and has ended.
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
