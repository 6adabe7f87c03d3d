"""Parse answers of the Responses API, and their streams."""

from typing import Any, TypedDict

from msgspec.json import Decoder

from agent.gateway.apis.answer import Answer, Json, decode_body, error_text
from agent.gateway.http.event_stream import EVENT_END, event_json


class Part(TypedDict, total=False):
    """The fields of a text that are read: all except its log probabilities."""

    text: Any


class Item(TypedDict, total=False):
    """The fields of an output item that are read."""

    type: Any
    id: Any
    content: list[Part] | None
    call_id: Any
    name: Any
    arguments: Any


class Response(TypedDict, total=False):
    """The fields of a response that are read."""

    output: list[Item] | None
    incomplete_details: Any
    status: Any
    error: Any
    usage: Any


WITHOUT_LOGPROBS = Decoder(Response)
LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed")


def parse_body(body: bytes) -> Answer:
    """Parse the body of a response."""
    answer = Answer()
    _read(decode_body(body, answer, WITHOUT_LOGPROBS), answer)
    return answer


def parse_events(events: bytes) -> Answer:
    """Parse the events of a stream, complete or cut off."""
    answer = Answer()
    texts: list[str] = []
    thoughts: list[str] = []
    calls: dict[str, Json] = {}
    for raw in EVENT_END.split(events):
        event = event_json(raw) or {}
        kind = event.get("type") or ""
        answer.chunk_count += kind.endswith(".delta")
        if kind == "response.output_text.delta":
            texts.append(event.get("delta") or "")
        elif kind == "response.reasoning_text.delta":
            thoughts.append(event.get("delta") or "")
        elif kind == "response.output_item.added":
            _begin_call(event.get("item") or {}, calls)
        elif kind == "response.function_call_arguments.delta":
            _add_arguments(event, calls)
        elif kind == "error" or "error" in event:
            answer.error = error_text(event.get("error") or event)
        elif kind in LAST_EVENTS:
            _read(event.get("response") or {}, answer)
    answer.text = answer.text or "".join(texts)
    answer.reasoning = answer.reasoning or "".join(thoughts)
    answer.tool_calls = answer.tool_calls or list(calls.values())
    return answer


def is_end(event: bytes) -> bool:
    """Return whether an event is the last of a stream."""
    if not any(end.encode() in event for end in LAST_EVENTS):
        return False
    return (event_json(event) or {}).get("type") in LAST_EVENTS


def _read(response: Json, answer: Answer) -> None:
    items = response.get("output") or []
    answer.text, answer.reasoning = _text(items, "message"), _text(items, "reasoning")
    answer.tool_calls = [_call(item) for item in items if item.get("type") == "function_call"]
    incomplete_reason = (response.get("incomplete_details") or {}).get("reason")
    answer.finish_reason = incomplete_reason or response.get("status")
    if response.get("error"):
        answer.error = error_text(response["error"])
    usage = response.get("usage") or {}
    answer.prompt_tokens = usage.get("input_tokens")
    answer.completion_tokens = usage.get("output_tokens")


def _text(items: list[Json], kind: str) -> str:
    contents = [item.get("content") or () for item in items if item.get("type") == kind]
    return "".join(part.get("text") or "" for content in contents for part in content)


def _begin_call(item: Json, calls: dict[str, Json]) -> None:
    if item.get("type") == "function_call":
        calls[item.get("id") or ""] = _call(item)


def _add_arguments(event: Json, calls: dict[str, Json]) -> None:
    call = calls.get(event.get("item_id") or "")
    if call:
        call["function"]["arguments"] += event.get("delta") or ""


def _call(item: Json) -> Json:
    function = {"name": item.get("name"), "arguments": item.get("arguments") or ""}
    return {"id": item.get("call_id"), "type": "function", "function": function}
