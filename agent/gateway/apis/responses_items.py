"""The input items of OpenAI's Responses API, and their conversion to chat messages."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Discriminator, Field, Tag

from agent.gateway.apis.answer import Json
from agent.gateway.apis.chat_messages import FunctionName, content_tag, text_only
from agent.gateway.apis.request import Label
from agent.gateway.apis.strict import JsonObjects, Strict
from store.contexts import Message

Id = Annotated[str, Field(max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]


class TextPart(Strict):
    """A text part."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Any = Field(None, exclude=True)
    prompt_cache_breakpoint: Any = Field(None, exclude=True)
    logprobs: Any = Field(None, exclude=True)
    parsed: Any = Field(None, exclude=True)


def _refusal_as_text(part: object) -> object:
    """Treat a refusal in the history as the model's text."""
    if isinstance(part, dict) and part.get("type") == "refusal":
        return {"type": "output_text", "text": part.get("refusal")}
    return part


Part = Annotated[
    Annotated[TextPart, BeforeValidator(_refusal_as_text), Tag("<text>")],
    text_only(
        dict.fromkeys(("input_text", "output_text", "text", "refusal"), "<text>"), "parts of text"
    ),
]
Content = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[Part], Tag("<parts>"), Field(fail_fast=True, max_length=256)],
    Discriminator(content_tag),
]


def _join_texts(output: object) -> object:
    """Join the texts of parts; return any other value unchanged, for validation to reject."""
    parts = output if isinstance(output, list) else []
    texts = [str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part]
    return "".join(texts) if parts and len(texts) == len(parts) else output


class MessageItem(Strict):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: Id | None = None
    status: Status | None = None
    phase: Label | None = Field(None, exclude=True)


class ServerFields(Strict):
    """Fields that servers add to calls and outputs, and that clients send back; ignored."""

    asynchronous: Any = Field(None, validation_alias=AliasChoices("async", "async_"), exclude=True)
    caller: Any = Field(None, exclude=True)
    created_by: Any = Field(None, exclude=True)
    namespace: Any = Field(None, exclude=True)


class FunctionCall(ServerFields):
    """A function call in the history."""

    type: Literal["function_call"]
    call_id: Id
    name: FunctionName
    arguments: str
    parsed_arguments: Any = Field(None, exclude=True)
    id: Id | None = None
    status: Status | None = None


class FunctionOutput(ServerFields):
    """The output of a function call."""

    type: Literal["function_call_output"]
    call_id: Id
    name: Any = Field(None, exclude=True)
    output: Annotated[str, BeforeValidator(_join_texts)]
    id: Id | None = None
    status: Status | None = None


class ReasoningItem(Strict):
    """Earlier reasoning in the history."""

    type: Literal["reasoning"]
    id: Id | None = None
    summary: JsonObjects | None = None
    content: JsonObjects | None = None
    encrypted_content: str | None = None
    status: Status | None = None


def _item_tag(item: object) -> str | None:
    kind = item.get("type", "message") if isinstance(item, dict) else None
    return f"<{kind}>" if isinstance(kind, str) and kind in ITEMS else None


ITEMS = ("message", "function_call", "function_call_output", "reasoning")
Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionOutput, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")],
    Discriminator(
        _item_tag,
        custom_error_type="text_only",
        custom_error_message="Only text messages, function calls and their outputs are supported: "
        "this endpoint fetches no images or files, and runs no tools.",
    ),
]


def chat_messages(items: Iterable[Item]) -> list[Message]:
    """Convert items to chat messages, without reasoning items."""
    messages = (_chat_message(item) for item in items)
    return _merge_assistant_messages([message for message in messages if message])


def _merge_assistant_messages(messages: list[Message]) -> list[Message]:
    """Merge consecutive assistant messages: one answer may be text and several calls."""
    merged: list[Message] = []
    for message in messages:
        if merged and message["role"] == merged[-1]["role"] == "assistant":
            last = merged[-1]
            calls = [*last.get("tool_calls", ()), *message.get("tool_calls", ())]
            text = f"{last['content']}{message['content']}"
            merged[-1] = last | {"content": text} | ({"tool_calls": calls} if calls else {})
        else:
            merged.append(message)
    return merged


def _chat_message(
    item: MessageItem | FunctionCall | FunctionOutput | ReasoningItem,
) -> Message | None:
    if isinstance(item, MessageItem):
        parts = item.content
        text = parts if isinstance(parts, str) else "\n".join(part.text for part in parts)
        return {"role": item.role, "content": text}
    if isinstance(item, FunctionCall):
        function: Json = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if isinstance(item, FunctionOutput):
        return {"role": "tool", "tool_call_id": item.call_id, "content": item.output}
    return None
