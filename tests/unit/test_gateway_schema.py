"""The schema of chat completions: what it accepts, and what it forwards."""

import math
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.gateway.apis.chat import ChatRequest
from agent.gateway.apis.completions import CompletionRequest
from agent.gateway.apis.request import MAX_VALUES, explain, parse, parse_json
from agent.gateway.apis.strict import MAX_FIELDS, Strict
from agent.gateway.errors import RequestError
from agent.gateway.feedback import FeedbackRequest
from tests.support.cpu_time import max_cpu_s

CAP = 4096
USER = [{"role": "user", "content": "Hi"}]
FORWARDED = set(ChatRequest.model_fields) - ChatRequest.NOT_FORWARDED - ChatRequest.CONTENT_FIELDS
BOUNDS = {
    "n": (1, 8),
    "max_tokens": (1, CAP),
    "max_completion_tokens": (1, CAP),
    "min_tokens": (0, CAP),
    "top_logprobs": (0, 20),
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (-1, 100_000),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0, 2),
    "seed": (-(2**63), 2**63 - 1),
}
GIVEN_ONLY_TO_US = {"cache_salt": "x", "priority": -1, "request_id": "r", "user": "u"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
TEXT = {"type": "text", "text": ""}
LONG = "k" * 50_000
MANY = {f"f{number}": 1 for number in range(50_000)}
names = st.sampled_from(sorted(ChatRequest.model_fields)) | st.text(max_size=8)


def near(least: int, most: int) -> st.SearchStrategy[Any]:
    """Mostly what is allowed, or just was."""
    outside = [least - 1, most + 1, 10 * most, math.nan, math.inf, -math.inf, None, "1", True]
    inside = st.integers(least, most)
    fractions = st.floats(max(least, -(2**53)), min(most, 2**53))
    return inside | inside | inside | fractions | st.sampled_from(outside)


numbers = st.lists(st.sampled_from(sorted(BOUNDS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: near(*BOUNDS[name]) for name in names})
)


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": USER} | fields)


def refusal(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(ChatRequest, body(**fields), CAP)
    assert caught.value.status == 400
    return caught.value


@settings(max_examples=400)
@given(numbers, st.dictionaries(names, json_values, max_size=1))
def test_no_unknown_or_out_of_bounds_field_is_forwarded(
    bounded: dict[str, Any], anything: dict[str, Any]
) -> None:
    fields = {"model": "m", "messages": USER} | GIVEN_ONLY_TO_US | anything | bounded
    try:
        request = parse(ChatRequest, orjson.dumps(fields, option=orjson.OPT_NON_STR_KEYS), CAP)
    except (RequestError, TypeError):  # TypeError: orjson cannot write an integer so large
        return

    forwarded = request.forwarded_fields()

    assert set(forwarded) <= FORWARDED
    assert not set(forwarded) & set(GIVEN_ONLY_TO_US)
    for name, (least, most) in BOUNDS.items():
        if name in forwarded:
            assert math.isfinite(forwarded[name])
            assert least <= forwarded[name] <= most
    assert len(forwarded.get("stop", [])) <= 4
    orjson.dumps(forwarded)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_400(data: bytes) -> None:
    try:
        parse(ChatRequest, data, CAP)
    except RequestError as error:
        assert error.status == 400  # noqa: PT017 — both outcomes are right


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"temprature": 1}, "temprature", "Did you mean 'temperature'?"),
        ({"weather_options": 1}, "weather_options", "omit it"),
        ({"<x>": 1}, "<x>", "Unknown field '<x>'"),
        ({"messages": [{"role": "user", "contents": "x"}]}, "messages.0.content", "required"),
        (
            {"messages": [{"role": "user", "content": "x", "nam": "y"}]},
            "messages.0.nam",
            "Did you mean 'name'?",
        ),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0", "'user'"),
        ({"messages": []}, "messages", "at least 1"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"temperature": "1"}, "temperature", "number"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"stop": ["a"] * 5}, "stop", "at most 4"),
        ({"stop": [""]}, "stop.0", "at least 1"),
        ({"top_logprobs": 5}, "top_logprobs", "'logprobs'"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "'stream'"),
        ({"tool_choice": "auto"}, "tool_choice", "'tools'"),
        ({"max_tokens": 5, "min_tokens": 6}, "min_tokens", "at most 5"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "'json_schema'"),
        ({"logit_bias": {"12": 101}}, "logit_bias.12", "100"),
        ({"metadata": {"k": 1}}, "metadata.k", "string"),
        ({"modalities": ["audio"]}, "modalities.0", "'text'"),
    ],
)
def test_an_error_names_the_field_and_the_remedy(
    fields: dict[str, Any], param: str, said: str
) -> None:
    error = refusal(**fields)

    assert error.param == param
    assert said in error.message


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_content_parts_that_are_not_text_are_rejected_with_the_reason(kind: str) -> None:
    part = {"type": kind, kind: {"url": "http://169.254.169.254/"}}

    error = refusal(messages=[{"role": "user", "content": [part]}])

    assert error.code == "text_only"
    assert "'text'" in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {"modalities": [1] * 50_000},
        {"modalities": ["text"] * 50_000},
        {"stop": [1] * 50_000},
        {"tools": [1] * 50_000},
        {"metadata": MANY},
        {"metadata": {LONG: 1}},
        {"logit_bias": MANY},
        {"stream_options": MANY},
        {"tool_choice": MANY},
        {"prediction": MANY},
        {"tools": [{"type": "function", "function": {"name": LONG} | MANY}] * 9},
        MANY,
        {LONG: 1},
        {f"{number}{LONG}": 1 for number in range(60)},
        {"messages": [1] * 50_000},
        {"messages": [USER[0] | MANY]},
        {"messages": [{"role": "user", "content": [0] * 256}] * 4096},
        {"messages": [{"role": "user", "content": [TEXT] * 256}] * 100},
        {"messages": [{"role": "assistant", "tool_calls": [1] * 128}] * 4096},
        {"messages": [{"role": ["user"] * 50_000, "content": ""}]},
        {"messages": [{"role": "user", "content": [TEXT | {LONG: 1}]}]},
    ],
)
def test_a_huge_request_gives_few_errors_and_a_short_message(fields: Any) -> None:
    """Also where it has fewer values than would be refused unread."""
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate({"model": "small", "messages": USER} | fields)

    assert caught.value.error_count() <= MAX_FIELDS
    error = explain(caught.value, ChatRequest)
    assert len(error.message) < 300
    assert len(error.param or "") < 300


def nodes(schema: object) -> Iterator[dict[str, Any]]:
    """Every part of a core schema of pydantic."""
    inner = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict):
        yield schema
    if isinstance(schema, (dict, list, tuple)):
        for part in inner:
            yield from nodes(part)


@pytest.mark.parametrize("model", [ChatRequest, FeedbackRequest])
def test_every_list_has_a_maximum_length_and_stops_at_its_first_error(model: type[Strict]) -> None:
    every = [node for node in nodes(model.__pydantic_core_schema__) if "type" in node]
    checked = [
        node
        for node in every
        if (node["type"] == "list" and node["items_schema"]["type"] != "any")
        or (node["type"] == "dict" and node["values_schema"]["type"] != "any")
    ]

    assert checked
    assert [node for node in checked if not (node.get("fail_fast") and "max_length" in node)] == []
    fields = [node["fields"] for node in every if node["type"] == "model-fields"]
    assert max(map(len, fields)) <= MAX_FIELDS


def test_a_schema_that_is_too_deep_or_too_large_is_rejected() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"properties": deep}
    large = {str(number): 1 for number in range(5000)}

    for schema in (deep, large):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        assert refusal(response_format=form).code == "json_size"
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        assert refusal(tools=[tool]).code == "json_size"


def test_a_schema_is_forwarded_unchanged() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [None, 1]}}, "default": None}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}

    request = parse(ChatRequest, body(response_format=form), CAP)
    assert request.forwarded_fields() == {"response_format": form}


def test_every_field_of_the_official_client_is_known() -> None:
    from openai.types.chat import completion_create_params

    fields = set(completion_create_params.CompletionCreateParamsBase.__annotations__)

    assert fields <= set(ChatRequest.model_fields)


@pytest.mark.parametrize("name", ["audio", "functions", "function_call", "web_search_options"])
def test_an_unsupported_field_may_be_null_and_is_otherwise_rejected_with_the_reason(
    name: str,
) -> None:
    assert name not in parse(ChatRequest, body(**{name: None}), CAP).forwarded_fields()
    assert refusal(**{name: {"a": 1}}).code == "not_served"


def test_log_probabilities_of_a_prompt_are_rejected() -> None:
    asked = {"model": "m", "prompt": "Hi", "echo": True}

    parse(CompletionRequest, orjson.dumps(asked), CAP)
    with pytest.raises(RequestError, match="'echo' or 'logprobs'"):
        parse(CompletionRequest, orjson.dumps(asked | {"logprobs": 0}), CAP)


def test_an_answer_with_null_fields_can_be_sent_back() -> None:
    answer = {
        "role": "assistant",
        "content": "Yes.",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning": None,
        "provider_specific_fields": {"citations": None},
    }

    request = parse(ChatRequest, body(messages=[*USER, answer]), CAP)

    assert request.chat_messages()[1] == {"role": "assistant", "content": "Yes.", "tool_calls": []}


@pytest.mark.parametrize("item", [b"[]", b'{"":0}', b"0", b'"\\""', b'{"a":[{}]}'])
def test_a_request_with_too_many_values_is_rejected_before_it_is_parsed(item: bytes) -> None:
    raw = b"[" + b",".join([item] * (MAX_VALUES + 1)) + b"]"
    with max_cpu_s(0.5), pytest.raises(RequestError, match="values") as caught:
        parse_json(raw)
    assert caught.value.code == "too_many_values"


def test_commas_and_brackets_in_strings_are_not_counted_as_values() -> None:
    text = 'a, [b], {c}, "d", \\' * MAX_VALUES
    assert parse_json(orjson.dumps({"content": text})) == {"content": text}


def test_many_empty_strings_are_rejected_before_they_are_parsed() -> None:
    raw = b'{"stop":[' + b'"",' * 1_300_000 + b'""]}'
    with max_cpu_s(0.1), pytest.raises(RequestError) as refused:
        parse_json(raw)
    assert refused.value.code == "too_many_values"


@pytest.mark.parametrize("text", [b'"', b'\\"', b'["\\', b',"\\"'])
def test_unterminated_strings_are_rejected_in_linear_time(text: bytes) -> None:
    raw = b'["' + b"," * MAX_VALUES + text * 2**20
    with max_cpu_s(1), pytest.raises(RequestError):
        parse_json(raw)
