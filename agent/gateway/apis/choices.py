"""Parse chat completions and text completions, whose answers are choices.

A conversation continues from the first choice; only the texts of the others are stored.
"""

from typing import Any, TypedDict

from msgspec.json import Decoder

from agent.gateway.apis.answer import Answer, Json, decode_body, error_text
from agent.gateway.http.event_stream import EVENT_END, event_data, event_json

DONE = b"[DONE]"


class Choice(TypedDict, total=False):
    """The fields of a choice that are read: all except its log probabilities."""

    index: Any
    message: Any
    text: Any
    finish_reason: Any


class Choices(TypedDict, total=False):
    """The fields of an answer that are read."""

    choices: list[Choice] | None
    usage: Any


WITHOUT_LOGPROBS = Decoder(Choices)


def parse_body(body: bytes) -> Answer:
    """Parse the body of an answer."""
    answer = Answer()
    whole = decode_body(body, answer, WITHOUT_LOGPROBS)
    _count(answer, whole)
    for choice in _first_choice(whole):
        message = choice.get("message") or {}
        answer.text = message.get("content") or choice.get("text") or ""
        answer.reasoning = _reasoning(message)
        answer.refusal = message.get("refusal") or ""
        answer.tool_calls = message.get("tool_calls") or []
        answer.finish_reason = choice.get("finish_reason")
    for choice in _other_choices(whole):
        message = choice.get("message") or {}
        answer.other_choices.append(message.get("content") or choice.get("text") or "")
    return answer


def parse_events(events: bytes) -> Answer:
    """Parse the events of a stream, complete or cut off."""
    answer = Answer()
    texts: list[str] = []
    thoughts: list[str] = []
    others: dict[int, list[str]] = {}
    calls: dict[int, Json] = {}
    for event in EVENT_END.split(events):
        chunk = event_json(event)
        if chunk is None:
            continue
        _count(answer, chunk)
        if "error" in chunk:
            answer.error = error_text(chunk["error"])
        answer.chunk_count += len(chunk.get("choices") or ())
        for choice in _first_choice(chunk):
            delta = choice.get("delta") or {}
            texts.append(delta.get("content") or choice.get("text") or "")
            thoughts.append(_reasoning(delta))
            answer.refusal += delta.get("refusal") or ""
            for call in delta.get("tool_calls") or ():
                _add_call(calls, call)
            answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
        for choice in _other_choices(chunk):
            delta = choice.get("delta") or {}
            pieces = others.setdefault(choice["index"], [])
            pieces.append(delta.get("content") or choice.get("text") or "")
    answer.text, answer.reasoning = "".join(texts), "".join(thoughts)
    answer.other_choices = ["".join(others[index]) for index in sorted(others)]
    answer.tool_calls = [_joined(calls[index]) for index in sorted(calls)]
    return answer


def is_end(event: bytes) -> bool:
    """Return whether an event is the last of a stream."""
    return DONE in event and event_data(event) == DONE


def is_usage_only(event: bytes) -> bool:
    """Return whether an event has token counts and no choices."""
    if b'"usage"' not in event:
        return False
    chunk = event_json(event)
    return bool(chunk and chunk.get("usage") and not chunk.get("choices"))


def _reasoning(message: Json) -> str:
    """Return the reasoning, under its name in current or in older vLLM."""
    return message.get("reasoning") or message.get("reasoning_content") or ""


def _first_choice(chunk: Json) -> list[Json]:
    return [choice for choice in chunk.get("choices") or () if choice.get("index", 0) == 0]


def _other_choices(chunk: Json) -> list[Json]:
    return [choice for choice in chunk.get("choices") or () if choice.get("index", 0) != 0]


def _count(answer: Answer, chunk: Json) -> None:
    usage = chunk.get("usage")
    if usage:
        answer.prompt_tokens = usage.get("prompt_tokens")
        answer.completion_tokens = usage.get("completion_tokens")


def _add_call(calls: dict[int, Json], delta: Json) -> None:
    """Add a delta of a tool call, whose arguments arrive in pieces."""
    call = calls.setdefault(delta.get("index", 0), {"name": "", "arguments": []})
    call["id"] = delta.get("id") or call.get("id")
    function = delta.get("function") or {}
    call["name"] = function.get("name") or call["name"]
    call["arguments"].append(function.get("arguments") or "")


def _joined(call: Json) -> Json:
    function = {"name": call["name"], "arguments": "".join(call["arguments"])}
    return {"id": call.get("id"), "type": "function", "function": function}
