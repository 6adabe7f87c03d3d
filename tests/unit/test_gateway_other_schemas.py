"""Request schemas of the APIs other than chat completions."""

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


def test_a_continued_response_with_parallel_calls_matches_its_record() -> None:
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


def test_sessions_in_a_user_id_are_conversations_of_one_user() -> None:
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
def test_a_user_and_a_session_are_read_from_a_user_id_in_json(told, user) -> None:
    sessions = ("0123-4567", "89ab-cdef")
    named = [orjson.dumps({**told, "session_id": each}).decode() for each in sessions]
    asked = [message(metadata={"user_id": each}) for each in named]
    assert [each.end_user for each in asked] == [user] * 2
    assert [each.tags() for each in asked] == [{"session_id": each} for each in sessions]


@pytest.mark.parametrize("name", ["prompt_cache_options", "moderation"])
def test_cloud_options_of_a_response_are_accepted_and_not_forwarded(name: str) -> None:
    asked = responses(input="Hi", **{name: {"mode": "auto"}})
    assert getattr(asked, name) == {"mode": "auto"}
    assert name not in asked.forwarded_fields()


def test_max_tokens_of_a_message_is_lowered_to_the_cap() -> None:
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
def test_a_tool_choice_without_that_tool_is_rejected(ask: Any, fields: dict[str, Any]) -> None:
    said = {"input": "Hi"} if ask is responses else {}
    with pytest.raises(RequestError) as refused:
        ask(**said, **fields)
    assert refused.value.param == "tool_choice"


def test_a_tool_choice_of_an_offered_tool_is_accepted() -> None:
    for choice in ("auto", "none", "required", CALLED):
        assert responses(input="Hi", tools=[CALLED], tool_choice=choice).tool_choice
    assert responses(input="Hi", tool_choice="auto").tool_choice == "auto"
    for chosen in ({"type": "any"}, {"type": "tool", "name": "look"}):
        assert message(tools=[LOOK], tool_choice=chosen).tool_choice


def test_a_message_with_too_many_blocks_is_rejected() -> None:
    block = {"type": "text", "text": "x"}
    nested = {"type": "tool_result", "tool_use_id": "a", "content": [block] * 250}
    for content, turns in (([block] * 500, 20), ([nested] * 40, 1)):
        with pytest.raises(RequestError) as refused:
            message(messages=[{"role": "user", "content": content}] * turns)
        assert refused.value.code == "too_many_parts"


def test_client_fields_without_meaning_for_the_engine_are_not_forwarded() -> None:
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


def test_limits_count_all_choices_of_all_prompts() -> None:
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
def test_a_schema_with_a_huge_grammar_is_rejected(schema: dict[str, Any]) -> None:
    form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    with pytest.raises(RequestError) as refused:
        responses(input="Hi", text=form)
    assert refused.value.code == "schema_size"


def test_the_costs_of_schemas_in_one_grammar_are_added() -> None:
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


def test_a_schema_with_ordinary_counts_and_patterns_is_accepted() -> None:
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


def test_large_tool_arguments_are_not_limited_like_schemas() -> None:
    use = {"type": "tool_use", "id": "a", "name": "write", "input": {"text": "x" * 2**18}}
    assert message(messages=[{"role": "assistant", "content": [use]}])


CALL = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_fields_that_openais_client_adds_are_accepted_and_not_forwarded() -> None:
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


def test_fields_that_anthropics_client_adds_are_accepted_and_not_forwarded() -> None:
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


def test_text_parts_and_refusals_of_a_response_are_read_as_text() -> None:
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
def test_rejections_of_unsupported_fields_state_the_remedy(
    api: type[ApiRequest], fields: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(RequestError, match=remedy):
        parse(api, orjson.dumps({"model": "small", **fields}), CAP)
