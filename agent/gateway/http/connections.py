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
"""From the connection, or the first byte of its next request, to the end of the head."""
BODY_TIMEOUT_S = 75.0
"""From the end of the head to the end of the body, even if no handler reads it. It is longer than
`UPLOAD_TIMEOUT_S` in asgi.py, whose error reaches the client first."""
UNREAD_BODY_TIMEOUT_S = 2.0
"""From a response to the end of an unread body; meanwhile its client can read the response."""
STALLED_WRITE_TIMEOUT_S = 60.0
"""How long a client may read nothing of a pending response."""
MAX_HEAD_BYTES = 64 * 2**10
"""Of a request's head; also of a trailer or a chunk header that never ends."""
MAX_HEAD_LINES = 128
MAX_PIPELINED_REQUESTS = 16
"""Requests in one read of the socket: parsing each takes time before its caller is known."""


class LimitExceeded(Exception):
    """A request exceeds a limit; raising it ends the parsing and closes the connection."""


class BoundedProtocol(HttpToolsProtocol):
    """A client's connection, one of at most `max_connections`."""

    def __init__(self, *arguments: Any, max_connections: int, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **options)
        self._max_connections = max_connections
        self._in_head = True
        self._head_bytes = 0
        self._has_body_data = False
        """Whether the data being parsed contains body data."""
        self._trailer_bytes = 0
        """Bytes received since the last body data: of a trailer, or of a chunk's header."""
        self.heads = 0
        """The number of complete request heads so far."""
        self.since = 0.0
        """When the connection was made, or its last response completed."""
        self._heads_before = 0
        """The value of `heads` before the data being parsed."""
        self._offers_upgrade = False
        """Whether the last head offers to switch to another protocol (`Upgrade`)."""
        self._request_timer: asyncio.TimerHandle | None = None
        self._stalled_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; close the one unused for longest if there are too many."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self._set_deadline(HEAD_TIMEOUT_S)
        if len(self.connections) > self._max_connections:
            self._longest_unused().transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        super().connection_lost(exc)
        for timer in (self._request_timer, self._stalled_timer):
            if timer:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse data; close the connection if a head or a trailer is too long."""
        if self._in_head and self._request_timer is None and not self._is_answering:
            self._set_deadline(HEAD_TIMEOUT_S)
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
                self._offers_upgrade = False
            if not self._offers_upgrade:  # not HTTP, or CONNECT
                self.send_400_response("Invalid HTTP request received.")
                return
            self._offers_upgrade, data = False, self._head_without_upgrade() + rest
            # The old parser reads no body after an upgrade.
            self.parser = httptools.HttpRequestParser(self)

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; reject trailers, which follow a body and which no client needs."""
        if not self._in_head:
            if self.cycle:
                # The loop reports the disconnect too late: the request would still be answered.
                self.cycle.disconnected = True
            self.transport.abort()
        elif len(self.headers) == MAX_HEAD_LINES:
            raise LimitExceeded
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Handle the end of a head."""
        self._check_limits()
        self._offers_upgrade = any(name == b"upgrade" for name, _ in self.headers)
        self._offers_upgrade &= self.parser.should_upgrade()
        if self._offers_upgrade:
            return
        self._in_head, self._head_bytes, self._trailer_bytes = False, 0, 0
        self.heads += 1
        self._set_deadline(BODY_TIMEOUT_S)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Handle body data."""
        self._has_body_data = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Handle the end of a request; the data that follows is another head."""
        if self._offers_upgrade:
            return
        super().on_message_complete()
        self._in_head = True
        self._set_deadline(None)

    def on_response_complete(self) -> None:
        """Handle the end of a response; restart the timer of a head that has partly arrived."""
        super().on_response_complete()
        self.since = self.loop.time()
        if not self._in_head:
            self._set_deadline(UNREAD_BODY_TIMEOUT_S)
        elif self._head_bytes and not self._is_answering:
            self._set_deadline(HEAD_TIMEOUT_S)

    def pause_writing(self) -> None:
        """Start the timer for a client that reads more slowly than it is answered."""
        super().pause_writing()
        self._stalled_timer = self.loop.call_later(STALLED_WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel that timer: the client reads again."""
        super().resume_writing()
        if self._stalled_timer:
            self._stalled_timer.cancel()

    @property
    def is_unused(self) -> bool:
        """Whether no request is being answered, even if bytes are still being sent."""
        return not self._is_answering

    def _longest_unused(self) -> "BoundedProtocol":
        """Return the connection to close: one without a request so far, else the longest unused.

        Returns this connection if all others are in use.
        """
        others: Any = self.connections - {self}
        unused = [connection for connection in others if connection.is_unused]
        return min(
            unused, key=lambda connection: (connection.heads > 0, connection.since), default=self
        )

    def _check_limits(self) -> None:
        """Check the size of a head, and the number of pipelined requests.

        Raises:
            LimitExceeded: One of them exceeds its limit.
        """
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > MAX_HEAD_BYTES or self.heads - self._heads_before >= MAX_PIPELINED_REQUESTS:
            raise LimitExceeded

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _set_deadline(self, timeout_s: float | None) -> None:
        """Close the connection unless the expected part of a request arrives in time."""
        if self._request_timer:
            self._request_timer.cancel()
        self._request_timer = None
        if timeout_s is not None:
            self._request_timer = self.loop.call_later(timeout_s, self.transport.abort)


def bounded_protocol(max_connections: int) -> Any:  # noqa: ANN401 - uvicorn's `http`
    """Return the protocol for a server of at most `max_connections` connections."""
    return functools.partial(BoundedProtocol, max_connections=max_connections)
