"""Chat through the gateway, over real HTTP, with the official client and without one."""

import asyncio

import pytest

from agent.gateway.log.recorder import Recorder
from store.contexts import Context
from store.schema import InteractionStatus
from tests.support.fake_vllm import MAX_MODEL_LEN, FakeVllm
from tests.support.recorded_calls import record_calls
from tests.support.running_gateway import QUESTION, RunningGateway
from tests.support.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

ASK = {"model": "small", "messages": QUESTION}
DONE = b"data: [DONE]\n\n"


async def read_stream(gateway: RunningGateway, body: dict) -> bytes:
    async with gateway.http() as http, http.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200
        return await response.read()


async def test_a_plain_answer_is_the_engines_bytes_and_is_recorded(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.enqueue("We open at nine.")
    async with gateway.client() as client:
        raw = await client.chat.completions.with_raw_response.create(
            **ASK, temperature=0.5, user="u1", metadata={"ticket": "7"}
        )
    answer = raw.parse()
    [row] = gateway.logged()

    assert answer.choices[0].message.content == "We open at nine."
    sent = {"model": "small", "messages": QUESTION, "temperature": 0.5}
    sent["max_completion_tokens"] = MAX_MODEL_LEN
    assert fake.history == [sent | {"cache_salt": gateway.state.salt("default")}]
    assert raw.headers["x-byheart-interaction"] == row.interaction.id
    assert raw.headers["x-byheart-version"] == row.interaction.version == "base"
    assert raw.headers["x-byheart-arm"] == "live"
    assert raw.headers["x-byheart-context"] == row.interaction.context_hash
    assert raw.headers["x-byheart-tokens-saved"] == "0"
    assert row.interaction.status is InteractionStatus.DONE
    assert row.interaction.learn
    assert row.interaction.prompt_tokens == answer.usage.prompt_tokens
    assert row.interaction.completion_tokens == answer.usage.completion_tokens
    assert row.payload.messages == QUESTION
    assert row.payload.response == "We open at nine."
    assert row.payload.params["metadata"] == {"ticket": "7"}
    assert row.payload.params["user"] == "u1"


@pytest.mark.parametrize(
    ("named", "principal"),
    [
        ({}, "local"),
        ({"user": "ann"}, "local/ann"),
        ({"user": "ann", "safety_identifier": "a1"}, "local/a1"),
    ],
)
async def test_the_principal_of_a_turn_is_its_user_or_safety_identifier(
    gateway: RunningGateway, named: dict[str, str], principal: str
) -> None:
    async with gateway.client() as client:
        await client.chat.completions.create(**ASK, **named)
    [row] = gateway.logged()
    assert (row.interaction.principal, row.interaction.trust) == (principal, "user")


async def test_a_stream_arrives_while_it_is_generated(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.enqueue("one two three four five six")
    fake.token_delay_s = 0.1
    async with gateway.client() as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        running = [fake.running async for _ in stream]
    [row] = gateway.logged()

    assert len(running) >= 7
    assert running[:3] == [1, 1, 1]
    assert row.payload.response == "one two three four five six"
    assert row.interaction.completion_tokens >= 6
    assert row.interaction.first_token_ms < row.interaction.total_ms - 400


async def test_the_usage_chunk_is_sent_only_on_request_and_no_other_byte_differs(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    with_usage = ASK | {"stream": True, "stream_options": {"include_usage": True}}
    async with gateway.http() as http:
        direct = await (await http.post(f"{fake.url}/v1/chat/completions", json=with_usage)).read()
    response = await read_stream(gateway, with_usage)
    not_asked = await read_stream(gateway, ASK | {"stream": True})

    def events(raw: bytes) -> list[bytes]:
        *rest, empty = raw.split(b"\n\n")
        assert empty == b""
        return [event.partition(b'"choices"')[2] for event in rest]

    assert events(response) == events(direct)
    assert events(not_asked) == events(direct)[:-2] + events(direct)[-1:]
    assert response.endswith(DONE)
    assert not_asked.endswith(DONE)
    assert all(row.interaction.prompt_tokens == 4 for row in gateway.logged())


async def test_no_answer_is_complete_before_it_is_durable(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = record_calls(monkeypatch, Recorder, "record")
    async with gateway.http() as http:
        with gateway.locked_database():
            plain = asyncio.ensure_future(http.post("/v1/chat/completions", json=ASK))
            stream = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
            head = b""
            while b'"finish_reason":"stop"' not in head:
                head += await stream.content.readany()
            await until(lambda: len(recorded) == 2)
            # A response that was not held back would come before the one to a later request.
            assert (await http.get("/healthz")).status == 200
            assert not plain.done()
            assert DONE not in head
        assert await stream.content.read() == DONE
        assert (await plain).status == 200
    assert len(gateway.logged()) == 2


async def test_an_opt_out_is_logged_but_not_learned_from(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        await client.chat.completions.create(**ASK, store=False)
        await client.chat.completions.create(**ASK, extra_headers={"X-Byheart-No-Learn": "1"})
        await client.chat.completions.create(**ASK, store=True)

    assert [row.interaction.learn for row in gateway.logged()] == [False, False, True]


async def test_two_turns_are_recorded_in_one_conversation(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        first = await client.chat.completions.create(**ASK)
        messages = [
            *QUESTION,
            first.choices[0].message,
            {"role": "user", "content": "Sure?"},
        ]
        await client.chat.completions.create(model="small", messages=messages)
        await client.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "Something else"}]
        )
        named = {"X-Byheart-Conversation": "mine"}
        for text in ("a", "b"):
            await client.chat.completions.create(
                model="small",
                messages=[{"role": "user", "content": text}],
                extra_headers=named,
            )
    ids = [row.interaction.conversation for row in gateway.logged()]

    assert ids[0] == ids[1]
    assert ids[3] == ids[4]
    assert len(set(ids)) == 3


async def test_an_empty_conversation_id_is_ignored(gateway: RunningGateway) -> None:
    async with gateway.client() as client:
        for metadata in ({"conversation_id": ""}, {"conversation_id": ""}, {}):
            await client.chat.completions.create(**ASK, metadata=metadata)

    assert len({row.interaction.conversation for row in gateway.logged()}) == 3


async def test_a_lesson_is_in_the_very_next_prompt_and_not_in_the_log(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    async with gateway.client() as client:
        await client.chat.completions.create(**ASK)
        for number in range(5):
            gateway.add_lesson(f"Shop {number} opens at {number + 6}.")
            await client.chat.completions.create(**ASK)
            prompt = fake.history[-1]["messages"]
            assert prompt[0]["role"] == "system"
            assert f"Shop {number} opens at {number + 6}." in prompt[0]["content"]

    assert fake.history[0]["messages"] == QUESTION
    assert all(row.payload.messages == QUESTION for row in gateway.logged())
    assert len({row.interaction.context_hash for row in gateway.logged()}) == 6


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_fits_without_lessons_is_answered_without_them(
    fake: FakeVllm, gateway: RunningGateway, stream: bool
) -> None:
    long = [{"role": "user", "content": "word " * (MAX_MODEL_LEN - 10)}]

    gateway.add_lesson("The shop opens at nine in the morning on every single day.")
    body = {"model": "small", "messages": long, "stream": stream}
    async with gateway.http() as http, http.post("/v1/chat/completions", json=body) as answer:
        assert answer.status == 200
        shown = answer.headers["x-byheart-context"]
        await answer.read()
    [row] = gateway.logged()

    assert fake.history[-1]["messages"] == long
    assert row.interaction.status is InteractionStatus.DONE
    assert shown == row.interaction.context_hash == Context().hash


async def test_a_tool_call_is_forwarded_and_recorded(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": "{}"},
    }
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "nine"},
    ]
    async with gateway.client() as client:
        await client.chat.completions.create(
            model="small", messages=messages, tools=tools, tool_choice="auto"
        )

    assert fake.history[0]["tools"] == tools
    assert fake.history[0]["messages"][1]["tool_calls"] == [call]


async def test_fifty_concurrent_streams_are_complete_and_recorded(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.token_delay_s = 0.01
    fake.answer_with(lambda body: f"for {body['messages'][0]['content']} " * 5)
    asks = [
        {"model": "small", "messages": [{"role": "user", "content": f"n{n}"}]} for n in range(50)
    ]

    answers = await asyncio.gather(*(read_stream(gateway, ask | {"stream": True}) for ask in asks))

    assert all(answer.endswith(DONE) for answer in answers)
    assert all(f"n{n}".encode() in answer for n, answer in enumerate(answers))
    texts = {row.payload.messages[0]["content"]: row.payload.response for row in gateway.logged()}
    assert texts == {f"n{n}": (f"for n{n} " * 5) for n in range(50)}


async def test_a_disconnect_during_a_stream_stops_the_engine_and_logs_the_partial_text(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.enqueue("word " * 200)
    fake.token_delay_s = 0.05
    async with gateway.http() as http:
        response = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
        for _ in range(4):
            await response.content.readany()
        response.close()
        await until(lambda: fake.aborted)

    [row] = await gateway.wait_logged(1)
    assert row.interaction.status is InteractionStatus.ABORTED
    assert row.payload.response.startswith("word")
    assert len(row.payload.response) < len("word " * 25), "a second after the client left"
    await until(lambda: gateway.state.inflight.count() == 0)


async def test_a_disconnect_before_a_plain_answer_stops_the_engine(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.first_byte_delay_s = 30
    async with gateway.http() as http:
        leaving = asyncio.create_task(http.post("/v1/chat/completions", json=ASK))
        await until(lambda: fake.running)
        leaving.cancel()
        await until(lambda: fake.aborted)
    [row] = await gateway.wait_logged(1)

    assert row.interaction.status is InteractionStatus.ABORTED
