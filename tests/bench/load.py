"""A load generator for `make bench-gateway`: one request after another on each of some connections.

It costs little beside what it measures: raw connections, and answers that are not parsed but for
their framing. An answer that is not 200 ends the measurement.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools
import orjson

STAMP = re.compile(rb'"content": ?"(\d{10,}) "')
PROMPT = [
    {"role": "system", "content": "You are the assistant of a bakery. Be brief and kind. " * 6},
    {"role": "user", "content": "When do you open, and may I bring my dog? " * 12},
]


@dataclass
class Answer:
    """What came back, and when (seconds on the clock of `time.monotonic`)."""

    began: float
    ended: float = 0.0
    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    on_its_way: list[float] = field(default_factory=list)
    """Of each stamped chunk, the seconds from the stub to here."""
    first_token: float = 0.0
    """When the first stamped chunk was here."""

    @property
    def seconds(self) -> float:
        """From the request's first byte to the answer's last."""
        return self.ended - self.began


class Connection(asyncio.Protocol):
    """A connection to a server, for one request at a time."""

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._done: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    async def ask(self, request: bytes) -> Answer:
        """Send a request; returns at the last byte of its answer.

        Raises:
            ConnectionError: The server closed the connection, or did not answer 200.
        """
        self._done = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer(time.monotonic())
        self._transport.write(request)
        answer = await self._done
        if answer.status != 200:
            raise ConnectionError(f"answered {answer.status}: {bytes(answer.body[:300])!r}")
        return answer

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        """Note when stamped chunks arrive."""
        assert self._answer
        now = time.monotonic_ns()
        for sent in STAMP.findall(body):
            self._answer.first_token = self._answer.first_token or now / 1e9
            self._answer.on_its_way.append((now - int(sent)) / 1e9)
        self._answer.body += body

    def on_message_complete(self) -> None:
        """The answer is whole."""
        assert self._answer
        assert self._done
        self._answer.ended = time.monotonic()
        self._answer.status = self._parser.get_status_code()
        self._done.set_result(self._answer)


async def connect(url: str) -> Connection:
    """Open a connection to the server of a URL."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, address.hostname, address.port)
    return connection


def chat(url: str, model: str, key: str = "", **fields: object) -> bytes:
    """A chat request of about 1 KB."""
    body = orjson.dumps({"model": model, "messages": PROMPT, "max_tokens": 200, **fields})
    headers: Mapping[str, str] = {
        "host": urlsplit(url).netloc,
        "content-type": "application/json",
        "content-length": str(len(body)),
    } | ({"authorization": f"Bearer {key}"} if key else {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + body


async def in_turn(url: str, request: bytes, count: int) -> list[Answer]:
    """The answers to `count` requests on one connection, one after another."""
    connection = await connect(url)
    try:
        return [await connection.ask(request) for _ in range(count)]
    finally:
        connection.close()


async def throughput(url: str, request: bytes, connections: int, for_s: float) -> list[float]:
    """Keep so many connections busy for so long; how long each answered request took."""
    until = time.monotonic() + for_s
    seconds: list[float] = []

    async def keep_asking() -> None:
        connection = await connect(url)
        try:
            while time.monotonic() < until:
                answer = await connection.ask(request)
                seconds.append(answer.seconds)
        finally:
            connection.close()

    await asyncio.gather(*(keep_asking() for _ in range(connections)))
    return seconds
