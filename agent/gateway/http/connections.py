"""Limits on a client connection before the caller is known.

uvicorn limits neither the size nor the duration of a request's head, nor the number of connections,
nor how long a response waits for a client that does not read. `BoundedProtocol` limits each of
them, so that a slow, idle or hostile client costs other clients nothing. A connection that exceeds
a limit is closed. When a new connection finds none free, the connection that has been unused for
longest is closed. `uploads.py` and `asgi.py` limit the size and duration of a body. An offer to
switch to another protocol (`Upgrade`, as curl and Java send it for HTTP/2) is ignored (RFC 9110,
section 7.8).
"""

import asyncio
import functools
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 20.0
"""From a connection, or the first byte of its next request, to the end of the head."""
BODY_TIMEOUT_S = 75.0
"""From the end of the head to the end of the body, even if no handler reads it. It is longer than
`UPLOAD_TIMEOUT_S` in asgi.py, whose error reaches the client first."""
UNREAD_BODY_TIMEOUT_S = 2.0
"""From an answer to the end of a body that nobody reads; so long its client can read the answer."""
STALLED_WRITE_TIMEOUT_S = 60.0
"""How long a client may read nothing of an answer that is waiting for it."""
MAX_HEAD_BYTES = 64 * 2**10
MAX_HEAD_LINES = 128
MAX_PIPELINED_REQUESTS = 16
"""Requests that may come at once: each costs time before anybody is asked who they are."""


class LimitExceeded(Exception):
    """A client sends more than any has to; it ends the parsing, and with it the connection."""


class BoundedProtocol(HttpToolsProtocol):
    """A client's connection; at most `max_connections` of them at once."""

    def __init__(self, *arguments: Any, max_connections: int, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **options)
        self._max_connections = max_connections
        self._in_head = True
        self._head_bytes = 0
        self._has_body_data = False
        """Whether the bytes just read had some of a body."""
        self._trailer_bytes = 0
        """What came since the last of a body's data."""
        self.heads = 0
        """How many requests have begun."""
        self.since = 0.0
        """When the connection was made, or its last answer was given."""
        self._heads_before = 0
        """Of those, how many came before what is being read."""
        self._is_offer = False
        """Whether the head just read offers another protocol."""
        self._request_timer: asyncio.TimerHandle | None = None
        self._stalled_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room for it."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self._await_end(HEAD_TIMEOUT_S)
        if len(self.connections) > self._max_connections:
            self._longest_unused().transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        for timer in (self._request_timer, self._stalled_timer):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Read on; a head or a trailer that goes on for too long ends the connection."""
        if self._in_head and self._request_timer is None and not self._is_answering:
            self._await_end(HEAD_TIMEOUT_S)
        began_in_head, self._heads_before = self._in_head, self.heads
        self._has_body_data = False
        self._unset_keepalive_if_required()
        self._feed(data)
        if began_in_head and self._heads_before == self.heads:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
        elif not began_in_head and not self._in_head:
            self._trailer_bytes = 0 if self._has_body_data else self._trailer_bytes + len(data)
            if self._trailer_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as end:
                rest = data[end.args[0] :]
            except httptools.HttpParserError:
                self._is_offer = False
            if not self._is_offer:  # no HTTP, or CONNECT
                self.send_400_response("Invalid HTTP request received.")
                return
            self._is_offer, data = False, self._head_without_offer() + rest
            self.parser = httptools.HttpRequestParser(self)  # the old one reads no body behind it

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head; behind a body, where no client has anything to say, of none."""
        if not self._in_head:
            if self.cycle:  # else it is answered before the loop says that nobody is there
                self.cycle.disconnected = True
            self.transport.abort()
        elif len(self.headers) == MAX_HEAD_LINES:
            raise LimitExceeded
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is here."""
        self._check_limits()
        self._is_offer = any(name == b"upgrade" for name, _ in self.headers)
        self._is_offer &= self.parser.should_upgrade()
        if self._is_offer:
            return
        self._in_head, self._head_bytes, self._trailer_bytes = False, 0, 0
        self.heads += 1
        self._await_end(BODY_TIMEOUT_S)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of the body's data is here."""
        self._has_body_data = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here; what comes now is the next one's head."""
        if self._is_offer:
            return
        super().on_message_complete()
        self._in_head = True
        self._await_end(None)

    def on_response_complete(self) -> None:
        """The answer is given; a head of which something came meanwhile goes on."""
        super().on_response_complete()
        self.since = self.loop.time()
        if not self._in_head:
            self._await_end(UNREAD_BODY_TIMEOUT_S)
        elif self._head_bytes and not self._is_answering:
            self._await_end(HEAD_TIMEOUT_S)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._stalled_timer = self.loop.call_later(STALLED_WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        if self._stalled_timer:
            self._stalled_timer.cancel()

    @property
    def is_unused(self) -> bool:
        """Whether nobody is being answered here, whatever is still being sent."""
        return not self._is_answering

    def _longest_unused(self) -> "BoundedProtocol":
        """Of the other connections, one that never had a request if there is any; else this one."""
        others: Any = self.connections - {self}
        unused = [each for each in others if each.is_unused]
        return min(unused, key=lambda each: (each.heads > 0, each.since), default=self)

    def _check_limits(self) -> None:
        """End the parsing of requests that nobody has to send.

        Raises:
            LimitExceeded: The head is too long, or one of too many at once.
        """
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > MAX_HEAD_BYTES or self.heads - self._heads_before >= MAX_PIPELINED_REQUESTS:
            raise LimitExceeded

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_end(self, most_s: float | None) -> None:
        """End the connection unless the part of a request that is awaited is here in time."""
        if self._request_timer:
            self._request_timer.cancel()
        self._request_timer = None
        if most_s is not None:
            self._request_timer = self.loop.call_later(most_s, self.transport.abort)


def bounded_protocol(max_connections: int) -> Any:  # noqa: ANN401 - what uvicorn takes as `http`
    """The protocol for an endpoint with so many connections at most."""
    return functools.partial(BoundedProtocol, max_connections=max_connections)
