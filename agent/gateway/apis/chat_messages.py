"""The messages of a chat request: every role of the OpenAI API, with text content.

Unknown fields are rejected, so none reaches the engine. Content parts that make a server fetch
something (images, files, audio) are rejected with a reason. Tags in angle brackets select the
branch of a union; error messages omit them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from agent.gateway.apis.schema_cost import JsonSchema
from agent.gateway.apis.strict import Strict

MAX_MESSAGES = 4096
MAX_PARTS = 8192
"""Content parts and tool calls in all messages together."""

Name = Annotated[str, Field(min_length=1, max_length=128)]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class TextPart(Strict):
    """A text part."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = Field(None, exclude=True)
    cache_control: dict[str, Any] | None = Field(None, exclude=True)


class RefusalPart(Strict):
    """A refusal of the model in the history."""

    type: Literal["refusal"]
    refusal: str


def text_only(tags: Mapping[str, str], supported: str) -> Discriminator:
    """Return a discriminator by `type`: `tags` maps each supported type; others are rejected."""

    def tag(part: object) -> str | None:
        kind = part.get("type") if isinstance(part, dict) else None
        return tags.get(kind) if isinstance(kind, str) else None

    return Discriminator(
        tag,
        custom_error_type="text_only",
        custom_error_message=f"Only {supported} are supported: this endpoint fetches no images, "
        "files or audio. Send their content as text.",
    )


def content_tag(content: object) -> str | None:
    """Return the tag of content: a string, or a list of parts."""
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
    """A user message."""

    role: Literal["user"]
    content: Content
    name: Name | None = None


class FunctionCall(Strict):
    """The function that the model called, and its arguments."""

    name: FunctionName
    arguments: str
    parsed_arguments: Any = Field(None, exclude=True)
    """Added by OpenAI's client."""


class ToolCall(Strict):
    """A tool call in the history."""

    id: Annotated[str, Field(max_length=256)]
    type: Literal["function"]
    function: FunctionCall
    index: int | None = Field(None, exclude=True)


class AssistantTurn(Strict):
    """An assistant message; clients send back every field that they got, nulls included."""

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
    """Added by OpenAI's client."""
    provider_specific_fields: Any = Field(None, exclude=True)
    thinking_blocks: Any = Field(None, exclude=True)
    """Added by LiteLLM."""


class ToolResult(Strict):
    """The result of a tool call."""

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
        custom_error_message="A message needs a role: 'system', 'developer', 'user', "
        "'assistant' or 'tool'.",
    ),
]


def bounded_parts(messages: object) -> object:
    """Reject too many content parts before validating any of them."""
    items = messages if isinstance(messages, list) else []
    if len(items) > MAX_MESSAGES:
        return messages  # the field's max_length rejects it
    parts = _parts(items)
    count = len(parts) + len(_parts(parts)) if len(parts) <= MAX_PARTS else len(parts)
    if count > MAX_PARTS:
        raise PydanticCustomError(
            "too_many_parts",
            "The messages have {count} content parts and tool calls; the limit is {limit}. Join "
            "texts, or omit the oldest turns.",
            {"count": count, "limit": MAX_PARTS},
        )
    return messages


def _parts(items: list[object]) -> list[object]:
    """Return the content parts and tool calls of messages, or of parts that contain parts."""
    lists = [item.get(key) for item in items if isinstance(item, dict) for key in PART_FIELDS]
    return [part for parts in lists if isinstance(parts, list) for part in parts]


PART_FIELDS = ("content", "tool_calls")
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
    """The tool that the model must call."""

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
    """The format of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StreamOptions(Strict):
    """What a stream contains in addition to the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
