"""LangChain's client: plain, streamed, with tools, with a schema."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from openai import DefaultAsyncHttpxClient
from pydantic import BaseModel

from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import RunningGateway

pytestmark = pytest.mark.anyio


class Hours(BaseModel):
    """When a shop is open."""

    opens: int


@tool
def weather(place: str) -> str:
    """The weather of a place."""
    return f"Rain in {place}."


@pytest.fixture
async def options(gateway: RunningGateway) -> AsyncIterator[dict[str, Any]]:
    """What a model needs; the client that LangChain would make outlives the event loop."""
    async with DefaultAsyncHttpxClient() as http:
        yield {
            "base_url": f"{gateway.url}/v1",
            "api_key": "none",
            "model": "small",
            "http_async_client": http,
        }


async def test_langchains_chat_client_works(
    fake: FakeVllm, gateway: RunningGateway, options: dict[str, Any]
) -> None:
    fake.enqueue("At nine.", "At nine, daily.", "No tool is needed.", '{"opens": 9}')
    asked = [("system", "Be kind."), ("human", "When do you open?")]

    plain = await ChatOpenAI(**options, temperature=0, max_tokens=20, seed=1).ainvoke(asked)
    pieces = [piece async for piece in ChatOpenAI(**options, stream_usage=True).astream(asked)]
    tooled = await ChatOpenAI(**options).bind_tools([weather]).ainvoke("Rain in Rome?")
    typed = await ChatOpenAI(**options).with_structured_output(Hours).ainvoke("When?")

    assert plain.content == "At nine."
    assert plain.usage_metadata["output_tokens"] > 0
    assert "".join(str(piece.content) for piece in pieces) == "At nine, daily."
    assert any(piece.usage_metadata for piece in pieces)
    assert tooled.content == "No tool is needed."
    assert fake.history[2]["tools"][0]["function"]["name"] == "weather"
    assert typed == Hours(opens=9)
    assert fake.history[3]["response_format"]["type"] == "json_schema"
    assert [said.interaction.status for said in gateway.logged()] == ["done"] * 4


async def test_langchains_batched_completions_work(fake: FakeVllm, options: dict[str, Any]) -> None:
    fake.enqueue(" a time")

    answers = await OpenAI(**options).agenerate(["Once upon", "At such"])

    assert [one.text for [one] in answers.generations] == [" a time", " A TIME"]
    assert answers.llm_output["token_usage"]["completion_tokens"] == 6
    assert [body["prompt"] for body in fake.history] == [["Once upon", "At such"]]
