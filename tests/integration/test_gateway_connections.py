"""Slow, idle and greedy clients are disconnected without affecting others."""

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from agent.gateway.http import asgi, connections
from tests.support.cpu_time import max_cpu_s
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import QUESTION, RunningGateway, run_gateway
from tests.support.until import until

pytestmark = pytest.mark.anyio

ASK = {"model": "small", "messages": QUESTION}
JSON = {"Content-Type": "application/json"}
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)


@asynccontextmanager
async def connected(
    gateway: RunningGateway,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_cut_off(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection, soon and without an answer."""
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def is_served(gateway: RunningGateway) -> bool:
    return (await gateway.fetch("POST", "/v1/chat/completions", json=ASK))[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", HEAD])
async def test_a_head_that_is_too_slow_closes_the_connection(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.3)

    async with connected(gateway) as (reader, writer):
        writer.write(sent)
        assert await is_cut_off(reader)
    assert await is_served(gateway)


@pytest.mark.parametrize("filler", [b"X-A: b\r\n", b"b"])
async def test_an_endless_head_closes_the_connection(
    fake: FakeVllm, gateway: RunningGateway, filler: bytes
) -> None:
    async with connected(gateway) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(HEAD + b"X-Long: ")
            for _ in range(200):
                writer.write(filler * 1000)
                await writer.drain()
        assert await is_cut_off(reader)
    assert await is_served(gateway)
    assert len(fake.history) == 1


@pytest.mark.parametrize("offered", [b"h2c", b"websocket"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_an_upgrade_offer_is_ignored_and_its_body_is_not_read_as_a_request(
    fake: FakeVllm, gateway: RunningGateway, offered: bytes, at_once: bool
) -> None:
    async with connected(gateway) as (reader, writer):
        offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n" % offered
        for body, status in ((orjson.dumps(ASK), b"200"), (b"GET /x HTTP/1.1\r\n\r\n", b"400")):
            head = HEAD + offer + b"Content-Length: %d\r\n\r\n" % len(body)
            writer.write(head + body if at_once else head)
            if not at_once:
                await asyncio.sleep(0.1)  # a slow client
                writer.write(body)
            answered = await reader.readuntil(b"\r\n\r\n")
            assert answered.startswith(b"HTTP/1.1 " + status)
            length = int(re.search(rb"content-length: (\d+)", answered)[1])
            await reader.readexactly(length)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        assert len(fake.history) == 1


@pytest.mark.parametrize("sent", [b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"no HTTP\r\n\r\n"])
async def test_bytes_that_are_not_a_request_get_400_and_close_the_connection(
    gateway: RunningGateway, sent: bytes
) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(sent)
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400")


async def test_a_body_that_is_too_slow_gets_408(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "UPLOAD_TIMEOUT_S", 0.3)

    async with connected(gateway) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert await is_served(gateway)


async def test_a_large_body_is_not_counted_as_a_head(gateway: RunningGateway) -> None:
    large = orjson.dumps(ASK | {"prediction": {"content": "x" * 3_000_000}})
    async with gateway.http() as http:
        for _ in range(3):
            async with http.post(
                "/v1/chat/completions", data=io.BytesIO(large), headers=JSON
            ) as response:
                assert response.status == 200


async def test_a_client_that_stops_reading_is_disconnected_and_generation_stops(
    fake: FakeVllm, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALLED_WRITE_TIMEOUT_S", 0.5)

    fake.enqueue(("word" * 2_500 + " ") * 2_000)
    body = b'{"model":"small","stream":true,"messages":[{"role":"user","content":"Hi"}]}'
    async with connected(gateway) as (_, writer):
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: fake.aborted, 30)
        [said] = await gateway.wait_logged(1)
    assert said.interaction.status == "aborted"
    assert said.payload.response.startswith("wordword")
    assert await is_served(gateway)


async def test_idle_connections_do_not_keep_other_clients_out(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with (
        run_gateway(tmp_path, fake, max_connections=50) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        idle = [await stack.enter_async_context(connected(gateway)) for _ in range(49)]
        async with asyncio.timeout(connections.HEAD_TIMEOUT_S / 2):  # before any is cut off
            assert await is_served(gateway)
        for _ in range(20):
            await stack.enter_async_context(connected(gateway))
        assert await is_served(gateway)
        cut = [await is_cut_off(reader) for reader, _ in idle[:15]]
        assert all(cut), "those that have waited longest make room"
        assert not any(reader.at_eof() for reader, _ in idle[30:])


async def test_rejected_requests_with_missing_bodies_do_not_hold_connections(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with (
        run_gateway(tmp_path, fake, needs_key=True, max_connections=20) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        refused = []
        for _ in range(20):
            reader, writer = await stack.enter_async_context(connected(gateway))
            writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n")
            assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 401")
            refused.append(reader)
        reader, writer = await stack.enter_async_context(connected(gateway))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        cut = [await is_cut_off(each) for each in refused]
        assert all(cut), "a client that is answered has a moment to read the answer"


async def test_connections_in_use_are_not_closed_for_new_ones(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with (
        run_gateway(tmp_path, fake, max_connections=4) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        fake.first_byte_delay_s = 1.0
        answers = [asyncio.ensure_future(is_served(gateway)) for _ in range(4)]
        await until(lambda: fake.running == 4)
        reader, _ = await stack.enter_async_context(connected(gateway))
        assert await is_cut_off(reader)
        assert all(await asyncio.gather(*answers))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5_000,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n\r\n" * 2_000,
    ],
    ids=["requests", "lines", "line", "offers"],
)
async def test_too_many_or_too_long_heads_close_the_connection(
    gateway: RunningGateway, sent: bytes
) -> None:
    async with connected(gateway) as (reader, writer):
        with max_cpu_s(0.5), contextlib.suppress(ConnectionError):
            writer.write(sent)
            answers = await asyncio.wait_for(reader.read(), 5)
            assert answers.count(b" 200 ") <= connections.MAX_PIPELINED_REQUESTS
    assert await is_served(gateway)


async def test_an_unread_body_does_not_hold_its_connection(
    fake: FakeVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.5)

    async with run_gateway(tmp_path, fake, needs_key=True) as gateway:
        async with connected(gateway) as (reader, writer):
            writer.write(HEAD + b"Content-Length: 4000000\r\n\r\n")
            assert b"401" in await reader.readline()
            writer.write(b"x")  # from here on the connection is not idle
            await asyncio.wait_for(reader.read(), 5)
        assert fake.history == []


@pytest.mark.parametrize("trailer", [b"X-A: b\r\n", b"X-A: " + b"b" * 1000])
async def test_trailers_close_the_connection(gateway: RunningGateway, trailer: bytes) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(trailer * 10)
                await writer.drain()
        assert await is_cut_off(reader)
    assert await is_served(gateway)


@pytest.mark.parametrize("more", [b"\r\n", b"GET /heal"])
async def test_bytes_after_a_request_do_not_interrupt_its_answer(
    fake: FakeVllm, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.3)

    fake.first_byte_delay_s = 1.0
    body = orjson.dumps(ASK)
    async with connected(gateway) as (reader, writer):
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: fake.history)
        writer.write(more)
        assert b"200" in await asyncio.wait_for(reader.readline(), 5)
        await asyncio.wait_for(reader.read(), 5)  # the head that began never ends
    assert len(gateway.logged()) == 1
