"""Requests of the other APIs: read as their clients send them, and said to the engine in full."""

from typing import Any

import orjson
import pytest

from agent.gateway.apis.anthropic import MessagesRequest
from agent.gateway.apis.chat import ChatRequest
from agent.gateway.apis.completions import CompletionRequest
from agent.gateway.apis.embeddings import EmbeddingRequest
from agent.gateway.apis.request import ApiRequest, parse
from agent.gateway.apis.responses import ResponsesRequest
from agent.gateway.apis.schema_cost import pattern_cost
from agent.gateway.errors import RequestError
from store.contexts import Context, compose, message_text
from store.records import prefix_hash
from tests.support.cpu_time import max_cpu_s

CAP = 4096


def responses(**fields: Any) -> ResponsesRequest:
    return parse(ResponsesRequest, orjson.dumps({"model": "small", **fields}), CAP)


def message(**fields: Any) -> MessagesRequest:
    asked = {"model": "small", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    return parse(MessagesRequest, orjson.dumps(asked | fields), CAP)


@pytest.mark.parametrize("context", [Context(), Context("Be kind.")])
def test_all_system_text_of_a_response_reaches_the_engine(context: Context) -> None:
    asked = responses(
        instructions="First.",
        input=[
            {"role": "developer", "content": "Second."},
            {"role": "system", "content": "Third."},
            {"role": "user", "content": "Hi"},
        ],
    )
    said = asked.content_fields(compose(asked.chat_messages(), context))
    assert said["instructions"].endswith("First.\n\nSecond.\n\nThird.")
    assert [item["content"] for item in said["input"]] == ["Hi"]


def test_a_response_with_parallel_calls_goes_on_as_it_was_recorded() -> None:
    call = {"type": "function_call", "name": "look", "arguments": "{}"}
    asked = responses(
        input=[
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "Let me look."},
            call | {"call_id": "a"},
            call | {"call_id": "b"},
            {"type": "function_call_output", "call_id": "a", "output": "Sun."},
        ]
    )
    user, answer, result = asked.chat_messages()
    assert [each["id"] for each in answer["tool_calls"]] == ["a", "b"]
    assert result["role"] == "tool"
    recorded = [user, {"role": "assistant", "content": "Let me look."}]
    assert prefix_hash([user, answer]) == prefix_hash(recorded)


def test_a_persons_sessions_are_conversations_of_one_person() -> None:
    sessions = ("0123-4567", "89ab-cdef")
    asked = [message(metadata={"user_id": f"user_ab_account__session_{each}"}) for each in sessions]
    assert [each.end_user for each in asked] == ["user_ab_account"] * 2
    assert [each.tags() for each in asked] == [{"session_id": each} for each in sessions]
    alone = message(metadata={"user_id": "session_0123-4567"})
    assert alone.end_user == "session_0123-4567"
    assert alone.tags() == {"session_id": "0123-4567"}
    assert message(metadata={"user_id": "ann"}).tags() == {}
    for name in ("3", '{"name": "ann"}', "{", '{"session_id": 3}'):
        assert message(metadata={"user_id": name}).end_user == name
    assert message().end_user is None


@pytest.mark.parametrize(
    ("told", "user"),
    [
        ({"device_id": "d1", "account_uuid": "acc"}, "acc"),
        ({"device_id": "d1", "account_uuid": ""}, "d1"),
        ({}, None),
    ],
)
def test_a_person_and_a_session_that_are_told_as_json_are_told_apart(told, user) -> None:
    sessions = ("0123-4567", "89ab-cdef")
    named = [orjson.dumps({**told, "session_id": each}).decode() for each in sessions]
    asked = [message(metadata={"user_id": each}) for each in named]
    assert [each.end_user for each in asked] == [user] * 2
    assert [each.tags() for each in asked] == [{"session_id": each} for each in sessions]


@pytest.mark.parametrize("name", ["prompt_cache_options", "moderation"])
def test_what_only_a_cloud_does_for_a_response_is_taken_and_not_sent_on(name: str) -> None:
    asked = responses(input="Hi", **{name: {"mode": "auto"}})
    assert getattr(asked, name) == {"mode": "auto"}
    assert name not in asked.forwarded_fields()


def test_the_longest_message_is_lowered_to_what_is_served() -> None:
    assert message(max_tokens=32_000).engine_limits(CAP) == {"max_tokens": CAP}
    with pytest.raises(RequestError):
        responses(input="Hi", max_output_tokens=32_000)


CALLED = {"type": "function", "name": "look"}
LOOK = {"name": "look", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("ask", "fields"),
    [
        (responses, {"tool_choice": "required"}),
        (responses, {"tool_choice": "required", "tools": []}),
        (responses, {"tool_choice": {"type": "function", "name": "find"}, "tools": [CALLED]}),
        (message, {"tool_choice": {"type": "any"}}),
        (message, {"tool_choice": {"type": "tool"}, "tools": [LOOK]}),
        (message, {"tool_choice": {"type": "tool", "name": "find"}, "tools": [LOOK]}),
    ],
)
def test_a_tool_that_must_be_called_must_be_offered(ask: Any, fields: dict[str, Any]) -> None:
    said = {"input": "Hi"} if ask is responses else {}
    with pytest.raises(RequestError) as refused:
        ask(**said, **fields)
    assert refused.value.param == "tool_choice"


def test_a_tool_that_is_offered_can_be_chosen() -> None:
    for choice in ("auto", "none", "required", CALLED):
        assert responses(input="Hi", tools=[CALLED], tool_choice=choice).tool_choice
    assert responses(input="Hi", tool_choice="auto").tool_choice == "auto"
    for chosen in ({"type": "any"}, {"type": "tool", "name": "look"}):
        assert message(tools=[LOOK], tool_choice=chosen).tool_choice


def test_a_message_has_so_many_blocks_at_most() -> None:
    block = {"type": "text", "text": "x"}
    nested = {"type": "tool_result", "tool_use_id": "a", "content": [block] * 250}
    for content, turns in (([block] * 500, 20), ([nested] * 40, 1)):
        with pytest.raises(RequestError) as refused:
            message(messages=[{"role": "user", "content": content}] * turns)
        assert refused.value.code == "too_many_parts"


def test_fields_of_the_clients_without_meaning_here_are_kept_back() -> None:
    asked = responses(input="Hi", stream_options={"include_obfuscation": False}, max_tool_calls=3)
    assert set(asked.forwarded_fields()) == set()
    assert "cache_control" not in message(cache_control={"type": "ephemeral"}).forwarded_fields()


def completion(**fields: Any) -> CompletionRequest:
    return parse(CompletionRequest, orjson.dumps({"model": "small", **fields}), CAP)


@pytest.mark.parametrize(
    ("prompt", "texts"), [("Hi", ["Hi"]), (["Hi"], ["Hi"]), (["Hi", "Ho"], ["Hi", "Ho"])]
)
def test_a_prompt_may_be_a_list(prompt: Any, texts: list[str]) -> None:
    asked = completion(prompt=prompt)
    assert asked.content_fields(asked.chat_messages()) == {"prompt": texts}


def test_all_answers_to_all_prompts_are_counted_together() -> None:
    asked = completion(prompt=["Hi", "Ho"], n=3, max_tokens=5)
    assert asked.max_total_tokens(CAP) == 30
    for fields in ({"prompt": ["Hi"] * 5, "n": 8}, {"prompt": ["Hi"] * 33}, {"prompt": []}):
        with pytest.raises(RequestError):
            completion(**fields)


@pytest.mark.parametrize(
    "schema",
    [
        {"minItems": 10**12},
        {"pattern": "((a{1,999}){1,999}){1,999}"},
        {"pattern": "((((((((((a{2}){2}){2}){2}){2}){2}){2}){2}){2}){2}){2}"},
        {"pattern": "a{40}{40}"},
        {"pattern": "^(" + "a" * 100 + ")?{400}$"},
        {"pattern": "^" + "." * 1_000 + "$"},
        {"pattern": "^" + "[^a]" * 1_000 + "$"},
        {"pattern": "^" + "a?" * 1_000 + "$"},
        {"properties": {str(number): {"type": "integer"} for number in range(300)}},
        {"properties": {str(number): {"format": "uri"} for number in range(50)}, "required": []},
        {"items": {"anyOf": [{"minimum": number} for number in range(500)]}},
        {"pattern": "[](ab){3000}]"},
        {"pattern": "x{0}(a{9000}){9000}"},
        {"pattern": "(a{ 9000 }){1, 9000 }"},
        {"pattern": "a{00000000000009000}"},
        {"patternProperties": {"(ab){3000}": {}}},
        {"properties": {str(number): {"pattern": "(ab){100}"} for number in range(20)}},
        {"description": "x" * 2**18},
        {"anyOf": [{"properties": {"a": {"maxLength": 10**6}}}]},
    ],
)
def test_a_schema_whose_grammar_would_be_huge_is_refused(schema: dict[str, Any]) -> None:
    form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    with pytest.raises(RequestError) as refused:
        responses(input="Hi", text=form)
    assert refused.value.code == "schema_size"


def test_schemas_that_become_one_grammar_weigh_together() -> None:
    schema = {"properties": {str(number): {"format": "uri"} for number in range(8)}}
    tools = [
        {"type": "function", "name": f"f{number}", "parameters": schema} for number in range(20)
    ]
    strict = [tool | {"strict": True} for tool in tools]

    assert len(responses(input="Hi", tools=tools).tools or ()) == 20
    for asked in ({"tools": tools, "tool_choice": "required"}, {"tools": strict}):
        with pytest.raises(RequestError) as refused:
            responses(input="Hi", **asked)
        assert (refused.value.code, refused.value.param) == ("schema_size", "tools")


@pytest.mark.parametrize(
    "pattern",
    [
        "(" * 9_000 + "a" + "){9}" * 5_000,
        "(a" * 10_000,
        "a{1}" * 8_000,
        "[" * 30_000,
        "\\" * 30_000,
    ],
)
def test_the_cost_of_a_long_pattern_is_computed_in_linear_time(pattern: str) -> None:
    with max_cpu_s(0.5):
        pattern_cost(pattern)


def test_a_schema_of_ordinary_counts_and_patterns_is_taken() -> None:
    schema = {
        "properties": {
            "items": {"type": "array", "maxItems": 60_000},
            "text": {"type": "string", "maxLength": 60_000, "pattern": r"^\S+$"},
            "day": {"pattern": r"^\d{4}-\d{2}-\d{2}$"},
            "code": {"pattern": "^[A-Z]{1,200}$"},
            "id": {"pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
            "key": {"pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
            "braces": {"pattern": r"^\{9000\}[{9000}]$"},
        }
    }
    assert responses(
        input="Hi", text={"format": {"type": "json_schema", "name": "x", "schema": schema}}
    )


def test_what_is_no_schema_may_be_long() -> None:
    use = {"type": "tool_use", "id": "a", "name": "write", "input": {"text": "x" * 2**18}}
    assert message(messages=[{"role": "assistant", "content": [use]}])


CALL = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_what_openais_client_adds_to_an_answer_comes_back_and_goes_no_further() -> None:
    call = CALL | {"function": CALL["function"] | {"parsed_arguments": {"a": 1}}}
    answer = {"role": "assistant", "content": "{}", "parsed": {"a": 1}, "tool_calls": [call]}
    asked = {"model": "small", "messages": [{"role": "user", "content": "Hi"}, answer]}
    said = parse(ChatRequest, orjson.dumps(asked), CAP).chat_messages()[1]
    assert said == {"role": "assistant", "content": "{}", "tool_calls": [CALL]}

    item = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    part = {"type": "output_text", "text": "{}", "parsed": {"a": 1}}
    message = {"type": "message", "role": "assistant", "content": [part]}
    asked = responses(input=[message, item | {"parsed_arguments": {"a": 1}}])
    assert b"parsed" not in orjson.dumps(asked.content_fields(asked.chat_messages()))


def test_what_anthropics_client_adds_comes_back_and_goes_no_further() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {}, "caller": None}
    tool = {"name": "look", "input_schema": {}, "eager_input_streaming": True}
    tool |= {"input_examples": [{}], "allowed_callers": ["direct"], "defer_loading": False}
    asked = message(
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [use]}],
        tools=[tool],
        thread={"type": "create"},
        stop_sequences=["a", "b", "c", "d", "e"],
    )
    assert asked.forwarded_fields()["tools"] == [{"name": "look", "input_schema": {}}]
    assert "thread" not in asked.forwarded_fields()


def test_texts_in_parts_and_refusals_of_a_response_are_texts() -> None:
    output = {"type": "function_call_output", "call_id": "c"}
    parts = [{"type": "input_text", "text": "Sun"}, {"type": "input_text", "text": "ny."}]
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    answer, result = responses(input=[refusal, output | {"output": parts}]).chat_messages()
    assert message_text(answer) == "No."
    assert result["content"] == "Sunny."
    with pytest.raises(RequestError):
        responses(input=[output | {"output": [{"type": "input_image", "image_url": "x"}]}])


@pytest.mark.parametrize(
    ("api", "fields", "remedy"),
    [
        (CompletionRequest, {"prompt": ["a"] * 5, "n": 8}, "fewer prompts"),
        (CompletionRequest, {"prompt": [1, 2]}, "token ids"),
        (EmbeddingRequest, {"input": [[1, 2]]}, "check_embedding_ctx_length"),
        (EmbeddingRequest, {"input": [1, 2]}, "check_embedding_ctx_length"),
    ],
)
def test_what_is_not_served_says_what_to_do(
    api: type[ApiRequest], fields: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(RequestError, match=remedy):
        parse(api, orjson.dumps({"model": "small", **fields}), CAP)
