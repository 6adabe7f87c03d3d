"""What byheart relies on in vLLM, as one suite: here against the fake, in e2e against the real one.

What the fake can do wrong here would make every other test worthless, so a test that holds for
one must hold for the other.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.engine.client import VllmEngine
from agent.engine.errors import EngineDisconnected, EngineStatusError, EngineUnavailable
from tests.support.api_contract import ApiContract
from tests.support.fake_vllm import FakeVllm
from tests.support.until import until

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "Say hello to the nice people of the town."}]


@dataclass(frozen=True)
class Server:
    """A running server, and an adapter folder that it can load."""

    url: str
    api_key: str
    model: str
    adapter: Path
    running: Callable[[], Awaitable[int]]
    """How many requests it is generating for."""


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[VllmEngine]:
    client = VllmEngine([server.url], api_key=server.api_key)
    yield client
    await client.close()


def events(stream: bytes) -> list[Any]:
    """The data of a stream of server-sent events, parsed; the last one is [DONE]."""
    parts = stream.decode().split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    assert parts.pop() == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts]


class EngineContract:
    async def test_a_plain_answer_has_text_and_usage(
        self, engine: VllmEngine, server: Server
    ) -> None:
        reply = await engine.chat({"model": server.model, "messages": HELLO, "max_tokens": 5})

        assert reply.status == 200
        assert reply.headers["content-type"].startswith("application/json")
        body = reply.json()
        assert body["object"] == "chat.completion"
        assert body["model"] == server.model
        [choice] = body["choices"]
        assert choice["message"]["role"] == "assistant"
        assert choice["message"]["content"]
        assert choice["finish_reason"] == "length"
        usage = body["usage"]
        assert usage["completion_tokens"] == 5
        assert usage["total_tokens"] == usage["prompt_tokens"] + 5

    async def test_greedy_answers_are_deterministic(
        self, engine: VllmEngine, server: Server
    ) -> None:
        body = {"model": server.model, "messages": HELLO, "max_tokens": 4, "temperature": 0}

        one, other = [(await engine.chat(body)).json()["choices"][0] for _ in range(2)]

        assert one["message"]["content"] == other["message"]["content"]

    async def test_a_stream_has_the_text_of_the_plain_answer(
        self, engine: VllmEngine, server: Server
    ) -> None:
        body = {"model": server.model, "messages": HELLO, "max_tokens": 6, "temperature": 0}
        plain = (await engine.chat(body)).json()["choices"][0]["message"]["content"]

        async with engine.stream({**body, "stream": True}) as stream:
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            chunks = [chunk async for chunk in stream.chunks]

        parsed = events(b"".join(chunks))
        assert {event["object"] for event in parsed} == {"chat.completion.chunk"}
        assert len({event["id"] for event in parsed}) == 1
        deltas = [event["choices"][0] for event in parsed]
        assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"]["content"] for choice in deltas) == plain
        assert [choice["finish_reason"] for choice in deltas][-2:] == [None, "length"]

    async def test_a_stream_arrives_token_by_token(
        self, engine: VllmEngine, server: Server
    ) -> None:
        body = {"model": server.model, "messages": HELLO, "max_tokens": 8, "stream": True}

        async with engine.stream(body) as stream:
            chunks = [chunk async for chunk in stream.chunks]

        assert len(chunks) >= 4

    async def test_requested_usage_is_the_last_chunk(
        self, engine: VllmEngine, server: Server
    ) -> None:
        body = {"model": server.model, "messages": HELLO, "max_tokens": 3, "stream": True}
        options = {"stream_options": {"include_usage": True}}

        async with engine.stream({**body, **options}) as stream:
            parsed = events(b"".join([chunk async for chunk in stream.chunks]))

        assert [event["choices"] == [] for event in parsed][-2:] == [False, True]
        assert parsed[-1]["usage"]["completion_tokens"] == 3

    async def test_a_completion_continues_a_text(self, engine: VllmEngine, server: Server) -> None:
        answer = await engine.complete("One two three", server.model, max_tokens=3)

        assert answer["object"] == "text_completion"
        assert answer["choices"][0]["text"]
        assert answer["usage"]["completion_tokens"] == 3

    async def test_allowed_tokens_get_their_unmodified_log_probabilities(
        self, engine: VllmEngine, server: Server
    ) -> None:
        ids = await engine.tokenize("The capital of France is", server.model)
        paris = (await engine.tokenize(" Paris", server.model))[-1]
        lemon = (await engine.tokenize(" lemon", server.model))[-1]

        scores = [
            (
                await engine.complete(
                    ids, server.model, max_tokens=1, logprobs=0, allowed_token_ids=[token]
                )
            )["choices"][0]["logprobs"]["token_logprobs"]
            for token in (paris, lemon)
        ]

        assert [len(score) for score in scores] == [1, 1]
        assert scores[0] != scores[1]
        assert all(score < 0 for [score] in scores), "0 would be the probability among the allowed"

    async def test_chat_messages_are_tokenized_with_the_template(
        self, engine: VllmEngine, server: Server
    ) -> None:
        text = await engine.tokenize(HELLO[0]["content"], server.model)
        chat = await engine.tokenize(HELLO, server.model)

        assert len(chat) > len(text) > 5
        assert all(isinstance(token, int) for token in chat)

    async def test_an_unknown_model_is_rejected_and_not_answered_by_the_base(
        self, engine: VllmEngine
    ) -> None:
        body = {"model": "bh-nobody", "messages": HELLO, "max_tokens": 1}

        with pytest.raises(EngineStatusError, match="does not exist") as plain:
            await engine.chat(body)
        with pytest.raises(EngineStatusError) as streamed:
            async with engine.stream({**body, "stream": True}):
                pass

        assert plain.value.status == streamed.value.status == 404
        error = json.loads(plain.value.body)["error"]
        assert error["type"] == "NotFoundError"
        assert error["code"] == 404
        assert error["message"] == plain.value.message

    async def test_a_wrong_key_is_rejected(self, server: Server) -> None:
        stranger = VllmEngine([server.url], api_key="not the key")

        try:
            with pytest.raises(EngineStatusError, match="Unauthorized") as refused:
                await stranger.models()
        finally:
            await stranger.close()

        assert refused.value.status == 401

    async def test_closing_a_stream_stops_the_generation(
        self, engine: VllmEngine, server: Server
    ) -> None:
        body = {"model": server.model, "messages": HELLO, "max_tokens": 1500, "stream": True}

        async with engine.stream({**body, "ignore_eos": True}) as stream:
            await anext(stream.chunks)
            await until(lambda: _is(server, 1))

        await until(lambda: _is(server, 0))

    async def test_an_adapter_is_loaded_listed_and_unloaded(
        self, engine: VllmEngine, server: Server
    ) -> None:
        assert await engine.models() == [server.model]

        await engine.load_adapter("bh-one", str(server.adapter))
        await engine.load_adapter("bh-one", str(server.adapter))

        assert await engine.models() == sorted([server.model, "bh-one"])
        answer = await engine.chat({"model": "bh-one", "messages": HELLO, "max_tokens": 2})
        assert answer.json()["model"] == "bh-one"
        await engine.unload_adapter("bh-one")
        await engine.unload_adapter("bh-one")
        assert await engine.models() == [server.model]
        with pytest.raises(EngineStatusError, match="does not exist"):
            await engine.chat({"model": "bh-one", "messages": HELLO, "max_tokens": 1})

    async def test_a_loaded_name_is_not_given_to_another_adapter(
        self, engine: VllmEngine, server: Server, tmp_path: Path
    ) -> None:
        await engine.load_adapter("bh-two", str(server.adapter))

        with pytest.raises(EngineStatusError, match="already been loaded") as refused:
            await engine.load_adapter("bh-two", str(tmp_path))

        assert refused.value.status == 400
        await engine.unload_adapter("bh-two")

    async def test_a_folder_without_an_adapter_is_rejected(
        self, engine: VllmEngine, server: Server, tmp_path: Path
    ) -> None:
        with pytest.raises(EngineStatusError, match="No adapter found") as refused:
            await engine.load_adapter("bh-three", str(tmp_path / "nothing"))

        assert refused.value.status == 404
        assert await engine.models() == [server.model]

    async def test_a_prompt_that_is_too_long_is_rejected_as_too_long(
        self, engine: VllmEngine, server: Server
    ) -> None:
        asked = [{"role": "user", "content": "a word and " * 2000}]
        with pytest.raises(EngineStatusError) as refused:
            await engine.chat({"model": server.model, "messages": asked})
        assert refused.value.is_too_long

    async def test_the_engine_is_healthy(self, engine: VllmEngine) -> None:
        assert await engine.is_healthy()


async def _is(server: Server, count: int) -> bool:
    return await server.running() == count


class TestFakeVllm(EngineContract, ApiContract):
    @pytest.fixture(params=["socket", "port"])
    def server(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
        uds = tmp_path / "vllm.sock" if request.param == "socket" else None
        fake = FakeVllm(api_key="secret", uds=uds)
        fake.token_delay_s = 0.005
        adapter = tmp_path / "adapter"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text("{}")

        async def running() -> int:
            return fake.running

        fake.answer_with(lambda _: "Hello and welcome to all of you " * 300)
        with fake.in_thread():
            yield Server(fake.url, "secret", fake.model, adapter, running)


class TestFaults:
    """What the client makes of a server that fails; only a fake fails on demand."""

    @pytest.fixture
    async def fake(self) -> AsyncIterator[FakeVllm]:
        async with FakeVllm() as fake:
            yield fake

    @pytest.fixture
    async def engine(self, fake: FakeVllm) -> AsyncIterator[VllmEngine]:
        client = VllmEngine([fake.url], first_byte_timeout_s=0.3)
        yield client
        await client.close()

    def body(self, **more: object) -> dict[str, Any]:
        return {"model": "base", "messages": HELLO, "stream": True, **more}

    async def test_a_server_that_is_down_is_unavailable(
        self, fake: FakeVllm, engine: VllmEngine
    ) -> None:
        await fake.down()

        assert not await engine.is_healthy()
        with pytest.raises(EngineUnavailable, match="cannot connect"):
            await engine.chat(self.body())
        with pytest.raises(EngineUnavailable):
            await engine.models()

    async def test_a_missing_socket_is_unavailable(self, tmp_path: Path) -> None:
        engine = VllmEngine([f"unix://{tmp_path / 'none.sock'}"])

        with pytest.raises(EngineUnavailable, match="cannot connect"):
            await engine.complete("x", "base")

        await engine.close()

    async def test_a_server_that_comes_back_is_used_again(
        self, fake: FakeVllm, engine: VllmEngine
    ) -> None:
        await engine.chat(self.body(stream=False))
        await fake.down()
        await fake.up()

        assert (await engine.chat(self.body(stream=False))).status == 200

    async def test_silence_before_the_first_byte_is_unavailable(
        self, fake: FakeVllm, engine: VllmEngine
    ) -> None:
        fake.first_byte_delay_s = 30

        with pytest.raises(EngineUnavailable, match="in time"):
            async with engine.stream(self.body()):
                pass

        await until(lambda: _aborted(fake))

    async def test_a_connection_broken_before_the_headers_is_unavailable(
        self, fake: FakeVllm, engine: VllmEngine
    ) -> None:
        fake.die_after_tokens = 0

        with pytest.raises(EngineUnavailable, match="closed the connection"):
            async with engine.stream(self.body()):
                pass
        assert len(fake.history) == 1, "a request that was sent must not be sent again"

    async def test_a_connection_broken_mid_stream_is_an_error_after_the_received_chunks(
        self, fake: FakeVllm, engine: VllmEngine
    ) -> None:
        fake.die_after_tokens = 3
        fake.token_delay_s = 0.01
        received = b""

        async def read() -> None:
            nonlocal received
            async with engine.stream(self.body()) as stream:
                async for chunk in stream.chunks:
                    received += chunk

        with pytest.raises(EngineDisconnected):
            await read()

        assert received.count(b"data: ") == 3
        assert b"[DONE]" not in received

    async def test_an_error_of_the_streams_reader_is_raised_unchanged_and_stops_the_generation(
        self, fake: FakeVllm, engine: VllmEngine
    ) -> None:
        fake.token_delay_s = 0.05

        async def stumble() -> None:
            async with engine.stream(self.body()) as stream:
                await anext(stream.chunks)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await stumble()

        await until(lambda: _aborted(fake))

    async def test_cancelling_the_caller_stops_the_generation(
        self, fake: FakeVllm, engine: VllmEngine
    ) -> None:
        fake.first_byte_delay_s = 30
        task = asyncio.ensure_future(engine.chat(self.body(stream=False, max_tokens=600)))
        await until(lambda: _running(fake))

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await until(lambda: _aborted(fake))

    async def test_an_error_body_that_is_not_json_is_quoted(
        self, fake: FakeVllm, engine: VllmEngine
    ) -> None:
        fake.refuse_with = (500, {"detail": "on fire"})

        with pytest.raises(EngineStatusError, match="on fire") as refused:
            await engine.chat(self.body())

        assert refused.value.status == 500

    async def test_requests_are_distributed_round_robin_over_the_servers_that_are_up(
        self, fake: FakeVllm
    ) -> None:
        async with FakeVllm() as other:
            engine = VllmEngine([fake.url, other.url])
            for _ in range(4):
                await engine.chat(self.body(stream=False))
            shares = (len(fake.history), len(other.history))
            await other.down()
            for _ in range(3):
                await engine.chat(self.body(stream=False))
            await engine.close()

        assert shares == (2, 2)
        assert len(fake.history) == 5

    async def test_an_adapter_is_loaded_on_every_server(
        self, fake: FakeVllm, tmp_path: Path
    ) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")
        async with FakeVllm() as other:
            engine = VllmEngine([fake.url, other.url])
            await engine.load_adapter("bh-one", str(tmp_path))
            both = [set(fake.adapters), set(other.adapters)]
            await other.down()
            await other.up()
            listed = await engine.models()
            await engine.load_adapter("bh-one", str(tmp_path))
            await engine.close()

            assert both == [{"bh-one"}, {"bh-one"}]
            assert listed == ["base"], "what one of them forgot cannot be routed to"
            assert set(other.adapters) == {"bh-one"}


async def _aborted(fake: FakeVllm) -> bool:
    return len(fake.aborted) == 1


async def _running(fake: FakeVllm) -> bool:
    return fake.running == 1
