"""The APIs other than chat completions, with their official clients."""

from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic

from config.sections import Server
from store import interactions
from tests.support.fake_vllm import MAX_MODEL_LEN, FakeVllm
from tests.support.running_gateway import RunningGateway, run_gateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

LESSON = "We open at nine."
WEATHER = {
    "name": "weather",
    "description": "The weather of a place.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}


def claude(gateway: RunningGateway) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=gateway.url, api_key="none", max_retries=0)


async def test_a_message_of_anthropics_client_is_answered_and_recorded(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    gateway.add_lesson(LESSON)
    fake.enqueue("At nine.")
    async with claude(gateway) as client:
        message = await client.messages.create(
            model="small",
            max_tokens=50,
            system="You are kind.",
            messages=[{"role": "user", "content": "When do you open?"}],
            metadata={"user_id": "user_ab_session_0123456789"},
            tools=[WEATHER],
        )
    [said] = gateway.logged()

    assert message.content[0].text == "At nine."
    assert message.usage.output_tokens == said.interaction.completion_tokens
    assert LESSON in fake.history[0]["system"]
    assert fake.history[0]["system"].endswith("You are kind.")
    assert fake.history[0]["messages"] == [{"role": "user", "content": "When do you open?"}]
    assert said.payload.messages == [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": "When do you open?"},
    ]
    assert (said.payload.response, said.interaction.endpoint) == (
        "At nine.",
        "/v1/messages",
    )
    assert said.payload.params["answer"]["finish_reason"] == "end_turn"


async def test_a_streamed_message_ends_only_after_it_is_recorded(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.enqueue("We open at nine.")
    async with (
        claude(gateway) as client,
        client.messages.stream(
            model="small",
            max_tokens=50,
            messages=[{"role": "user", "content": "When do you open?"}],
        ) as stream,
    ):
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    [said] = gateway.logged()

    assert text == said.payload.response == "We open at nine."
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == said.interaction.completion_tokens


async def test_tool_calls_and_results_work_with_anthropics_client(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"place": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "Rain"}
    turns: list[Any] = [
        {"role": "user", "content": "Rain in Rome?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, use]},
        {"role": "user", "content": [result]},
    ]
    async with claude(gateway) as client:
        await client.messages.create(model="small", max_tokens=9, messages=turns, tools=[WEATHER])
    [said] = gateway.logged()

    assert fake.history[0]["messages"] == turns
    question, call, answer = said.payload.messages
    assert call["tool_calls"][0]["function"]["name"] == "weather"
    assert answer == {"role": "tool", "tool_call_id": "t1", "content": "Rain"}
    assert question["content"] == "Rain in Rome?"


async def test_anthropics_client_raises_its_own_error_types(
    fake: FakeVllm, gateway: RunningGateway, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, needs_key=True) as locked, claude(locked) as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await client.messages.create(model="small", max_tokens=9, messages=[])
        assert caught.value.body["type"] == "error"
        assert caught.value.body["error"]["type"] == "authentication_error"
    picture = {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/x"}}
    turn: Any = {"role": "user", "content": [picture]}
    async with claude(gateway) as client:
        with pytest.raises(anthropic.BadRequestError, match="fetches no images"):
            await client.messages.create(model="small", max_tokens=9, messages=[turn])
        with pytest.raises(anthropic.NotFoundError, match="Unknown model"):
            await client.messages.create(
                model="other", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
            )
    assert fake.history == []


async def test_a_broken_stream_of_messages_ends_with_an_error_event(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.die_after_tokens = 4
    fake.enqueue("one two three four five")
    body = {
        "model": "small",
        "max_tokens": 9,
        "stream": True,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    _, raw = await gateway.fetch("POST", "/v1/messages", json=body)
    [said] = await gateway.wait_logged(1)

    assert raw.rstrip().split("\n\n")[-1].startswith("event: error\ndata: ")
    assert "message_stop" not in raw
    assert (said.interaction.status, said.payload.response) == ("failed", "one two")


async def test_a_response_of_openais_client_is_answered_and_recorded(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    gateway.add_lesson(LESSON)
    fake.enqueue("At nine.", "At nine, again.")
    async with gateway.client() as client:
        whole = await client.responses.create(
            model="small", instructions="You are kind.", input="When do you open?"
        )
        async with client.responses.stream(
            model="small",
            input=[
                {"role": "developer", "content": "You are kind."},
                {"role": "user", "content": "When do you open?"},
                {"role": "assistant", "content": "At nine."},
                {"role": "user", "content": [{"type": "input_text", "text": "Really?"}]},
            ],
        ) as stream:
            events = [event.type async for event in stream]
    one, two = gateway.logged()

    assert whole.output_text == one.payload.response == "At nine."
    assert events[-1] == "response.completed"
    assert two.payload.response == "At nine, again."
    assert two.interaction.conversation == one.interaction.conversation
    for sent in fake.history:
        assert LESSON in sent["instructions"]
        assert sent["instructions"].endswith("You are kind.")
        assert sent["input"][0]["role"] == "user"
        assert sent["store"] is False


async def test_function_calls_and_results_work_with_openais_responses_client(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.enqueue('{"place": "Rome"}', "Rain.", "Rain.", '{"place": "Oslo"}')
    parameters = WEATHER["input_schema"]
    tool: Any = {"type": "function", "name": "weather", "parameters": parameters}
    question = {"role": "user", "content": "Rain in Rome?"}
    async with gateway.client() as client:
        called = await client.responses.create(
            model="small", input=[question], tools=[tool], tool_choice="required"
        )
        [call] = called.output
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}
        for sent_back in (call, call.to_dict()):
            turns: Any = [question, sent_back, output]
            await client.responses.create(model="small", input=turns, tools=[tool])
        async with client.responses.stream(
            model="small", input=[question], tools=[tool], tool_choice="required"
        ) as stream:
            [streamed] = (await stream.get_final_response()).output
    calls = [sent["input"][1] for sent in fake.history[1:3]]
    said, last = gateway.logged()[-2:]

    assert streamed.arguments == '{"place": "Oslo"}'
    [recorded] = last.payload.params["answer"]["tool_calls"]
    assert recorded["function"]["arguments"] == streamed.arguments
    assert calls[0] == calls[1]
    assert calls[0].keys() == {
        *("type", "id", "call_id", "name", "arguments", "status"),
    }
    assert said.payload.messages[1]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"place": "Rome"}',
    }


async def test_stateful_responses_are_rejected_with_the_reason(
    gateway: RunningGateway,
) -> None:
    body = {"model": "small", "input": "Hi", "previous_response_id": "resp_1"}
    status, said = await gateway.fetch("POST", "/v1/responses", json=body)
    assert (status, said["error"]["param"]) == (400, "previous_response_id")
    assert (await gateway.fetch("GET", "/v1/responses/resp_1"))[0] == 404


async def test_a_text_completion_has_no_context_and_is_not_learned_from(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    gateway.add_lesson(LESSON)
    fake.enqueue(" a time", " a time")
    async with gateway.client() as client:
        whole = await client.completions.create(
            model="small", prompt="Once upon", max_tokens=5, logit_bias={"5": 1}
        )
        pieces = [
            piece.choices[0].text
            async for piece in await client.completions.create(
                model="small", prompt="Once upon", max_tokens=5, stream=True
            )
        ]
    one, two = gateway.logged()

    assert whole.choices[0].text == "".join(pieces) == " a time"
    assert one.payload.response == two.payload.response == " a time"
    assert not one.interaction.learn
    assert fake.history[0]["prompt"] == ["Once upon"]
    assert LESSON not in str(fake.history)
    assert "stream_options" in fake.history[1]


async def test_several_texts_are_completed_in_one_request_and_each_answer_is_recorded(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.enqueue(" a time", " a time")
    asked = {"model": "small", "prompt": ["Once upon", "At such"], "max_tokens": 5}
    async with gateway.client() as client:
        whole = await client.completions.create(**asked)
        pieces = ["", ""]
        async for piece in await client.completions.create(**asked, stream=True):
            pieces[piece.choices[0].index] += piece.choices[0].text
    said = gateway.logged()

    assert [choice.text for choice in whole.choices] == pieces == [" a time", " A TIME"]
    assert fake.history[0]["prompt"] == asked["prompt"]
    for each in said:
        assert [turn["content"] for turn in each.payload.messages] == asked["prompt"]
        assert each.payload.response == " a time"
        assert each.payload.params["answer"]["others"] == [" A TIME"]


async def test_embeddings_are_served_if_the_engine_supports_them(tmp_path: Path) -> None:
    fake = FakeVllm(model="small")
    fake.can_embed = True
    async with fake, run_gateway(tmp_path, fake) as gateway, gateway.client() as client:
        found = await client.embeddings.create(model="small", input=["one", "two three"])
        assert [round(row.embedding[0]) for row in found.data] == [3, 9]
        [said] = gateway.logged()
        assert not said.interaction.learn
        assert said.interaction.prompt_tokens == 3


async def test_embeddings_are_404_if_the_engine_does_not_support_them(
    gateway: RunningGateway,
) -> None:
    async with gateway.client() as client:
        with pytest.raises(openai.NotFoundError, match="does not support this"):
            await client.embeddings.create(model="small", input="one")


async def test_an_auxiliary_request_is_answered_and_is_not_a_turn(gateway: RunningGateway) -> None:
    turns: list[Any] = [{"role": "user", "content": "When do you open?"}]
    task = {"role": "user", "content": "Write a short title for this conversation."}
    async with gateway.client() as client:
        first = await client.chat.completions.create(model="small", messages=turns)
        turns += [{"role": "assistant", "content": first.choices[0].message.content}]
        await client.chat.completions.create(model="small", messages=[*turns, task])
        turns += [{"role": "user", "content": "No, that's wrong."}]
        await client.chat.completions.create(model="small", messages=turns)
    first_row, title, last = (one.interaction for one in gateway.logged())

    assert title.auxiliary
    assert not first_row.auxiliary
    assert first_row.conversation == title.conversation == last.conversation
    with gateway.state.db.read() as session:
        read = interactions.turns(session, last.conversation)
    assert [turn.interaction.id for turn in read] == [first_row.id, last.id]


async def test_the_token_count_of_a_message_includes_the_context(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    turn: Any = {"role": "user", "content": "When do you open?"}
    async with claude(gateway) as client:
        asked: Any = {"model": "small", "messages": [turn], "system": "Be kind."}
        bare = await client.messages.count_tokens(**asked)
        gateway.add_lesson(LESSON)
        more = await client.messages.count_tokens(**asked, tools=[WEATHER])
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(**asked | {"model": "other"})
    assert bare.input_tokens == 6
    assert more.input_tokens > bare.input_tokens + 3
    assert fake.history[1]["tools"][0]["name"] == "weather"
    assert gateway.logged() == []


@pytest.mark.parametrize(("cap", "most"), [(5, 5), (10 * MAX_MODEL_LEN, MAX_MODEL_LEN)])
async def test_an_answer_without_a_client_limit_is_limited_by_the_cap(
    fake: FakeVllm, tmp_path: Path, cap: int, most: int
) -> None:
    async with (
        run_gateway(tmp_path, fake, settings=Server(max_tokens_cap=cap)) as gateway,
        claude(gateway) as theirs,
        gateway.client() as client,
    ):
        turn: Any = {"role": "user", "content": "Hi"}
        await client.chat.completions.create(model="small", messages=[turn])
        await client.responses.create(model="small", input="Hi")
        await client.completions.create(model="small", prompt="Hi")
        await theirs.messages.create(model="small", max_tokens=16_000, messages=[turn])

        chat, response, completion, message = fake.history
        assert chat["max_completion_tokens"] == response["max_output_tokens"] == most
        assert message["max_tokens"] == most
        assert completion["max_tokens"] == min(16, most), "as the API has it"
