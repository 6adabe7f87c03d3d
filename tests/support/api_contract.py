"""`ApiContract`: tests of vLLM's other APIs, which the fake and the real vLLM both pass."""

import json
from typing import Any

import pytest

from agent.engine.client import VllmEngine
from agent.engine.errors import EngineStatusError

HELLO = [{"role": "user", "content": "Say hello to the nice people of the town."}]
SALT = "0" * 64


def events(stream: bytes) -> list[Any]:
    """Return the data of a stream's events; each event is named by its type."""
    parts = stream.decode().strip().split("\n\n")
    parsed = []
    for part in parts:
        name, data = part.split("\n")
        parsed.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {parsed[-1]['type']}"
    return parsed


async def streamed(engine: VllmEngine, path: str, body: dict[str, Any]) -> list[Any]:
    async with engine.stream({**body, "stream": True}, path) as stream:
        return events(b"".join([chunk async for chunk in stream.chunks]))


class ApiContract:
    @pytest.mark.parametrize(
        ("path", "limit", "said"),
        [
            ("/v1/chat/completions", "max_completion_tokens", "messages"),
            ("/v1/messages", "max_tokens", "messages"),
            ("/v1/responses", "max_output_tokens", "input"),
        ],
    )
    async def test_an_answer_limit_above_the_engines_length_is_rejected(
        self, engine: VllmEngine, server: Any, path: str, limit: str, said: str
    ) -> None:
        longest = await engine.fetch_max_model_len()
        assert longest
        body = {"model": server.model, said: HELLO, "stream": True}

        async with engine.stream({**body, limit: longest}, path) as stream:
            assert await anext(stream.chunks)
        with pytest.raises(EngineStatusError) as refused:
            async with engine.stream({**body, limit: longest + 1}, path):
                pass

        assert refused.value.status == 400

    async def test_a_message_is_answered_as_a_body_and_as_events(
        self, engine: VllmEngine, server: Any
    ) -> None:
        body = {
            "model": server.model,
            "system": "Be kind.",
            "messages": HELLO,
            "max_tokens": 6,
            "temperature": 0,
            "cache_salt": SALT,
        }
        whole = (await engine.chat(body, "/v1/messages")).json()
        parsed = await streamed(engine, "/v1/messages", body)

        assert (whole["type"], whole["role"]) == ("message", "assistant")
        assert whole["stop_reason"] == "max_tokens"
        assert whole["usage"]["output_tokens"] == 6
        [block] = whole["content"]
        assert block["type"] == "text"
        kinds = [event["type"] for event in parsed]
        assert kinds[:2] == ["message_start", "content_block_start"]
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
        deltas = [event["delta"] for event in parsed if event["type"] == "content_block_delta"]
        assert "".join(delta["text"] for delta in deltas) == block["text"]
        assert parsed[-2]["delta"]["stop_reason"] == "max_tokens"
        assert parsed[-2]["usage"]["output_tokens"] == 6

    async def test_several_prompts_get_a_choice_each_as_a_body_and_as_events(
        self, engine: VllmEngine, server: Any
    ) -> None:
        prompts = ["The first day of the week is", "Once upon a time there was"]
        body = {"model": server.model, "prompt": prompts, "max_tokens": 4, "temperature": 0}
        whole = (await engine.chat(body, "/v1/completions")).json()
        async with engine.stream({**body, "stream": True}, "/v1/completions") as stream:
            said = b"".join([chunk async for chunk in stream.chunks])
        pieces = ["", ""]
        *parts, done = said.decode().strip().split("\n\n")
        for part in parts:
            [choice] = json.loads(part.removeprefix("data: "))["choices"]
            pieces[choice["index"]] += choice["text"]

        assert [choice["index"] for choice in whole["choices"]] == [0, 1]
        assert [choice["text"] for choice in whole["choices"]] == pieces
        assert whole["usage"]["completion_tokens"] == 8
        assert done == "data: [DONE]"

    async def test_the_tokens_of_a_message_are_counted(
        self, engine: VllmEngine, server: Any
    ) -> None:
        path = "/v1/messages/count_tokens"
        body: dict[str, Any] = {"model": server.model, "messages": HELLO}
        short = (await engine.chat(body, path)).json()["input_tokens"]
        system = {"system": "Be kind to all of them. " * 20}  # templates may have one of their own
        long = (await engine.chat(body | system, path)).json()["input_tokens"]
        assert 0 < short < long

    async def test_a_response_is_answered_as_a_body_and_as_events(
        self, engine: VllmEngine, server: Any
    ) -> None:
        body = {
            "model": server.model,
            "instructions": "Be kind.",
            "input": HELLO,
            "max_output_tokens": 6,
            "temperature": 0,
            "store": False,
            "cache_salt": SALT,
        }
        whole = (await engine.chat(body, "/v1/responses")).json()
        parsed = await streamed(engine, "/v1/responses", body)

        assert whole["object"] == "response"
        assert whole["usage"]["output_tokens"] == 6
        assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
        [part] = whole["output"][-1]["content"]
        deltas = [event for event in parsed if event["type"] == "response.output_text.delta"]
        assert "".join(event["delta"] for event in deltas) == part["text"]
        last = parsed[-1]
        assert last["type"] in ("response.completed", "response.incomplete")
        assert last["response"]["usage"]["output_tokens"] == 6

    async def test_a_prefix_cache_may_be_salted(self, engine: VllmEngine, server: Any) -> None:
        body = {"model": server.model, "messages": HELLO, "max_tokens": 3, "cache_salt": SALT}
        text = {"model": server.model, "prompt": "Hello", "max_tokens": 3, "cache_salt": SALT}

        assert (await engine.chat(body)).status == 200
        assert (await engine.chat(text, "/v1/completions")).status == 200
