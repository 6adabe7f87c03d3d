"""A model server for `make bench-gateway` that costs next to nothing.

    python -m tests.bench.engine_stub --port 9000

It speaks as much of vLLM's API as a gateway needs to put a chat request through. A plain answer is
given at once. A stream has `TOKENS` chunks, one each `PACE_S`, and every chunk carries the moment
at which it was sent, by the clock that all processes of the machine share, so that whoever reads it
can tell how long it was on its way.
"""

import argparse
import asyncio
import time
from typing import Any

import httptools
import orjson
import uvloop

MODEL = "stub"
TOKENS = 50
PACE_S = 0.02
TEXT = "We open at seven and close at nine, except on Sundays. " * 12

Event = dict[str, Any]


def card() -> Event:
    """What `/v1/models` says."""
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "root": MODEL}]}


def completion() -> Event:
    """A plain answer of about 0.8 KB."""
    message = {"role": "assistant", "content": TEXT}
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 130, "total_tokens": 330},
    }


def chunk(delta: Event, finish: str | None = None) -> bytes:
    """A chunk of a stream, stamped with the time."""
    event = {
        "id": "chatcmpl-stub",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + orjson.dumps(event) + b"\n\n"


def stamp() -> Event:
    """A delta whose text is the time in nanoseconds."""
    return {"content": f"{time.monotonic_ns()} "}


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CARD, HEALTH = orjson.dumps(card()), b"{}"
COMPLETION = orjson.dumps(completion())
USAGE = (
    b'data: {"id":"chatcmpl-stub","object":"chat.completion.chunk","created":0,"model":"stub",'
    b'"choices":[],"usage":{"prompt_tokens":200,"completion_tokens":50,"total_tokens":250}}\n\n'
)


class Connection(asyncio.Protocol):
    """One connection, kept alive."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)
        self._path, self._body = b"", b""
        self._streaming: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._streaming:
            self._streaming.cancel()

    def on_url(self, url: bytes) -> None:
        self._path, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        if b"/chat/completions" not in self._path:
            self._answer(CARD if b"models" in self._path else HEALTH)
        elif orjson.loads(self._body).get("stream"):
            self._streaming = asyncio.ensure_future(self._stream())
        else:
            self._answer(COMPLETION)

    def _answer(self, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    async def _stream(self) -> None:
        self._transport.write(STREAM)
        self._part(chunk({"role": "assistant", "content": ""}))
        for _ in range(TOKENS):
            self._part(chunk(stamp()))
            await asyncio.sleep(PACE_S)
        self._part(chunk({}, "stop") + USAGE + b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _part(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


async def serve(port: int) -> None:
    """Answer on loopback until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
