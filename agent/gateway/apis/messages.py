"""The messages of a chat request: every role and content part of the OpenAI API that is text.

Strict: a field that is not here is refused, so nothing unknown reaches the engine. Parts that make
a server fetch something (images, files, audio) are refused with a reason. Tags in angle brackets
tell the branches of a union apart and are taken out of what a client is told.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from agent.gateway.apis.schema_cost import JsonSchema
from agent.gateway.apis.strict import Strict

MAX_MESSAGES = 4096
MAX_PARTS = 8192
"""Most content parts and tool calls in all messages together."""

Name = Annotated[str, Field(min_length=1, max_length=128)]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class TextPart(Strict):
    """Text as one part of several."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, exclude=True)
    cache_control: dict[str, Any] | None = Field(None, exclude=True)


class RefusalPart(Strict):
    """A refusal of the model, sent back in the history."""

    type: Literal["refusal"]
    refusal: str


def text_only(tags: Mapping[str, str], served: str) -> Discriminator:
    """Tells parts apart by their type: the tag of each one served; others are refused."""

    def tag(part: object) -> str | None:
        kind = part.get("type") if isinstance(part, dict) else None
        return tags.get(kind) if isinstance(kind, str) else None

    return Discriminator(
        tag,
        custom_error_type="text_only",
        custom_error_message=f"Only {served} are served here: this endpoint fetches no images, "
        "files or audio. Put what matters into text.",
    )


def content_tag(content: object) -> str | None:
    """Tells a text from a list of parts: the tags of a union of the two."""
    return (
        "<string>" if isinstance(content, str) else "<parts>" if isinstance(content, list) else None
    )


Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")],
    text_only({"text": "<text>", "refusal": "<refusal>"}, "parts of type 'text'"),
]
Content = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[Part], Tag("<parts>"), Field(fail_fast=True, min_length=1, max_length=256)],
    Discriminator(
        content_tag,
        custom_error_type="content",
        custom_error_message="The content of a message is a string or a list of text parts.",
    ),
]


class Instruction(Strict):
    """A system or developer message."""

    role: Literal["system", "developer"]
    content: Content
    name: Name | None = None


class UserTurn(Strict):
    """What the user says."""

    role: Literal["user"]
    content: Content
    name: Name | None = None


class FunctionCall(Strict):
    """Which function the model called, and with what."""

    name: FunctionName
    arguments: str
    parsed_arguments: Any = Field(None, exclude=True)
    """What OpenAI's client makes of them."""


class ToolCall(Strict):
    """A call of a tool in the history."""

    id: Annotated[str, Field(max_length=256)]
    type: Literal["function"]
    function: FunctionCall
    index: int | None = Field(None, exclude=True)


class AssistantTurn(Strict):
    """What the model said; clients send back whatever they got, with its nulls."""

    role: Literal["assistant"]
    content: Content | None = None
    name: Name | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True, max_length=128)] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    annotations: Any = Field(None, exclude=True)
    audio: None = Field(None, exclude=True)
    function_call: None = Field(None, exclude=True)
    parsed: Any = Field(None, exclude=True)
    """What OpenAI's client makes of the text."""
    provider_specific_fields: Any = Field(None, exclude=True)
    thinking_blocks: Any = Field(None, exclude=True)
    """LiteLLM's own, in what it has answered."""


class ToolResult(Strict):
    """What a tool gave back."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Annotated[str, Field(max_length=256)]
    name: Name | None = None


ROLES = {
    "system": "<instruction>",
    "developer": "<instruction>",
    "user": "<user>",
    "assistant": "<assistant>",
    "tool": "<tool>",
}


def _role_tag(message: object) -> str | None:
    role = message.get("role") if isinstance(message, dict) else None
    return ROLES.get(role) if isinstance(role, str) else None


Message = Annotated[
    Annotated[Instruction, Tag("<instruction>")]
    | Annotated[UserTurn, Tag("<user>")]
    | Annotated[AssistantTurn, Tag("<assistant>")]
    | Annotated[ToolResult, Tag("<tool>")],
    Discriminator(
        _role_tag,
        custom_error_type="role",
        custom_error_message="A message has a role: 'system', 'developer', 'user', 'assistant' "
        "or 'tool'.",
    ),
]


def bounded_parts(messages: object) -> object:
    """Refuse more parts than a conversation has, before each is looked at."""
    said = messages if isinstance(messages, list) else []
    if len(said) > MAX_MESSAGES:
        return messages  # refused for that
    parts = _parts(said)
    count = len(parts) + len(_parts(parts)) if len(parts) <= MAX_PARTS else len(parts)
    if count > MAX_PARTS:
        raise PydanticCustomError(
            "too_many_parts",
            "The messages have {count} content parts and tool calls, but may have {most}. Join "
            "texts, or leave out the oldest turns.",
            {"count": count, "most": MAX_PARTS},
        )
    return messages


def _parts(things: list[object]) -> list[object]:
    """What is in the lists of messages, or of parts that have parts themselves."""
    lists = [thing.get(key) for thing in things if isinstance(thing, dict) for key in PARTS]
    return [part for each in lists if isinstance(each, list) for part in each]


PARTS = ("content", "tool_calls")
Messages = Annotated[
    list[Message],
    Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES),
    BeforeValidator(bounded_parts),
]


class Function(Strict):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


class FunctionRef(Strict):
    """A function by its name."""

    name: FunctionName


class NamedTool(Strict):
    """The one tool that the model must call."""

    type: Literal["function"]
    function: FunctionRef


def _choice_tag(choice: object) -> str:
    return "<mode>" if isinstance(choice, str) else "<named>"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedTool, Tag("<named>")],
    Discriminator(_choice_tag),
]


class NamedSchema(Strict):
    """A JSON schema that the answer must follow."""

    name: Name
    description: str | None = None
    json_schema: JsonSchema | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StreamOptions(Strict):
    """What a streamed answer carries beside the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
