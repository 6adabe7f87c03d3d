"""Parsers of answers in each API: text, reasoning, tool calls and token counts."""

from types import ModuleType
from typing import Any

import orjson
import pytest

from agent.gateway.apis import anthropic_answers, choices, embeddings, responses_answers
from agent.gateway.apis.answer import Answer
from agent.gateway.apis.chat import ChatRequest
from agent.gateway.apis.request import parse
from agent.gateway.errors import RequestError


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def delta(**said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said}]}


def block(index: int, **said: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": said}


ITEM = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": ""}
TOOL = {"type": "tool_use", "id": "c1", "name": "look"}
STREAMS: list[tuple[ModuleType, list[dict[str, Any]]]] = [
    (
        choices,
        [
            delta(reasoning="Hm"),
            delta(reasoning_content="m."),
            delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "look"}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a'}}]),
        ],
    ),
    (
        responses_answers,
        [
            {"type": "response.reasoning_text.delta", "delta": "Hm"},
            {"type": "response.reasoning_text.delta", "delta": "m."},
            {"type": "response.output_item.added", "item": ITEM},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '{"'},
            {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": "a"},
        ],
    ),
    (
        anthropic_answers,
        [
            block(0, type="thinking_delta", thinking="Hm"),
            block(0, type="thinking_delta", thinking="m."),
            {"type": "content_block_start", "index": 1, "content_block": TOOL},
            block(1, type="input_json_delta", partial_json='{"'),
            block(1, type="input_json_delta", partial_json="a"),
        ],
    ),
]


@pytest.mark.parametrize(("api", "events"), STREAMS)
def test_reasoning_and_tool_calls_of_a_truncated_stream_are_recorded_and_counted(
    api: ModuleType, events: list[dict[str, Any]]
) -> None:
    answer: Answer = api.parse_events(b"".join(map(event, events)))

    assert answer.details()["reasoning"] == "Hmm."
    [call] = answer.details()["tool_calls"]
    assert call == {
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"a'},
    }
    assert answer.chunk_count == 4


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (choices, {"choices": [{"message": {"content": None, "reasoning": "Hmm."}}]}),
        (
            responses_answers,
            {
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "reasoning", "content": [{"type": "x", "text": "Hmm."}]},
                ]
            },
        ),
        (anthropic_answers, {"content": [{"type": "thinking", "thinking": "Hmm."}]}),
    ],
)
def test_an_answer_of_reasoning_alone_is_recorded(api: ModuleType, body: dict[str, Any]) -> None:
    answer: Answer = api.parse_body(orjson.dumps(body))

    assert (answer.text, answer.details()["reasoning"]) == ("", "Hmm.")


def test_the_chunks_of_every_choice_of_a_truncated_stream_are_counted() -> None:
    raw = b"".join(
        event({"choices": [{"index": index, "delta": {"content": "so "}}]})
        for _ in range(9)
        for index in range(8)
    )
    assert choices.parse_events(raw).chunk_count == 72


def test_a_refusal_is_recorded() -> None:
    body = {"choices": [{"message": {"content": None, "refusal": "I will not."}}]}
    assert choices.parse_body(orjson.dumps(body)).details()["refusal"] == "I will not."
    pieces = [delta(refusal="I will "), delta(refusal="not.")]
    assert choices.parse_events(b"".join(map(event, pieces))).refusal == "I will not."


@pytest.mark.parametrize("usage", [{"prompt_tokens": 7}, {"prompt_tokens": 7, "more": {"a": 1}}])
@pytest.mark.parametrize("option", [0, orjson.OPT_INDENT_2])
def test_token_counts_of_embeddings_are_found_in_any_formatting(
    usage: dict[str, Any], option: int
) -> None:
    body = {"data": [{"embedding": [0.5] * 900}], "usage": usage}
    assert embeddings.parse_body(orjson.dumps(body, option=option)).prompt_tokens == 7


def test_token_counts_of_embeddings_are_found_without_parsing_the_vectors() -> None:
    body = b'{"data": [not read' + b" " * 2000 + b'],"usage":{"prompt_tokens":7}}'
    assert embeddings.parse_body(body).prompt_tokens == 7
    assert embeddings.parse_body(b"not JSON").error


@pytest.mark.parametrize(
    ("n", "max_tokens", "top_logprobs", "is_served"),
    [(1, None, 20, True), (8, 100, 20, True), (8, None, 20, False), (8, 4096, 5, False)],
)
def test_requests_for_too_many_log_probabilities_are_rejected(
    n: int, max_tokens: int | None, top_logprobs: int, is_served: bool
) -> None:
    asked = {
        "model": "small",
        "messages": [{"role": "user", "content": "Hi"}],
        "n": n,
        "max_tokens": max_tokens,
        "logprobs": True,
        "top_logprobs": top_logprobs,
    }
    body = orjson.dumps(asked)
    if is_served:
        assert parse(ChatRequest, body, 4096).n == n
        return
    with pytest.raises(RequestError, match="probabilities") as caught:
        parse(ChatRequest, body, 4096)
    assert caught.value.code == "value_out_of_range"


def test_listed_log_probabilities_are_not_recorded() -> None:
    likely = {"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": []}
    listed = {"content": [likely | {"top_logprobs": [likely] * 20}] * 3}
    said = {"role": "assistant", "content": "Hi", "reasoning": "Hm"}
    choice = {"index": 0, "message": said, "logprobs": listed, "finish_reason": "stop"}
    whole = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    text = {"type": "output_text", "text": "Hi", "logprobs": [likely] * 3}
    response = {"output": [{"type": "message", "content": [text]}], "status": "completed"}

    one = choices.parse_body(orjson.dumps(whole))
    other = responses_answers.parse_body(orjson.dumps(response))

    assert (one.text, one.reasoning, one.finish_reason) == ("Hi", "Hm", "stop")
    assert (one.prompt_tokens, one.completion_tokens) == (3, 1)
    assert (other.text, other.finish_reason) == ("Hi", "completed")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"choices": 7}', b'{"choices"', b'"\xff"'])
def test_a_body_that_is_not_an_answer_is_an_error(body: bytes) -> None:
    assert choices.parse_body(body).error
