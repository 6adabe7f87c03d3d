"""`POST /v1/messages`: Anthropic's Messages API, which vLLM serves as well.

Content blocks are text, thinking, tool use and tool results. Blocks that would make a server fetch
images or files are rejected.
"""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from agent.gateway import conversation_id
from agent.gateway.apis.answer import Json
from agent.gateway.apis.chat_messages import (
    MAX_MESSAGES,
    FunctionName,
    bounded_parts,
    content_tag,
    text_only,
)
from agent.gateway.apis.request import (
    NEVER_FORWARDED,
    ApiRequest,
    Label,
    Limit,
    StopText,
    TopK,
    TopP,
    check_tool_choice,
    inconsistent,
)
from agent.gateway.apis.schema_cost import JsonSchema
from agent.gateway.apis.strict import JsonObject, Strict
from store.contexts import Message, split_system

Id = Annotated[str, Field(max_length=256)]


class TextBlock(Strict):
    """A block of text."""

    type: Literal["text"]
    text: str
    cache_control: JsonObject | None = Field(None, exclude=True)
    citations: Any = Field(None, exclude=True)


Text = Annotated[
    Annotated[TextBlock, Tag("<text>")], text_only({"text": "<text>"}, "blocks of text")
]
Texts = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[Text], Tag("<parts>"), Field(fail_fast=True, max_length=256)],
    Discriminator(content_tag),
]


class ThinkingBlock(Strict):
    """Earlier reasoning in the history; the engine does not get it as a message."""

    type: Literal["thinking", "redacted_thinking"]
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class ToolUseBlock(Strict):
    """A tool call in the history."""

    type: Literal["tool_use"]
    id: Id
    name: FunctionName
    input: JsonObject
    cache_control: JsonObject | None = Field(None, exclude=True)
    caller: JsonObject | None = Field(None, exclude=True)


class ToolResultBlock(Strict):
    """The result of a tool call."""

    type: Literal["tool_result"]
    tool_use_id: Id
    content: Texts | None = None
    is_error: bool | None = None
    cache_control: JsonObject | None = Field(None, exclude=True)


BLOCKS = {
    "text": "<text>",
    "thinking": "<thinking>",
    "redacted_thinking": "<thinking>",
    "tool_use": "<tool_use>",
    "tool_result": "<tool_result>",
}
Block = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")],
    text_only(BLOCKS, "blocks of text, thinking, tool use and tool results"),
]
Content = Annotated[
    Annotated[str, Tag("<string>")]
    | Annotated[list[Block], Tag("<parts>"), Field(fail_fast=True, max_length=512)],
    Discriminator(content_tag),
]


class Turn(Strict):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: Content


class Tool(Strict):
    """A tool that the model may call; the client runs it."""

    type: Literal["custom"] | None = Field(None, exclude=True)
    name: FunctionName
    description: str | None = None
    input_schema: JsonSchema
    strict: bool | None = None
    cache_control: JsonObject | None = Field(None, exclude=True)
    allowed_callers: Any = Field(None, exclude=True)
    defer_loading: bool | None = Field(None, exclude=True)
    eager_input_streaming: bool | None = Field(None, exclude=True)
    input_examples: Any = Field(None, exclude=True)


class ToolChoice(Strict):
    """Whether the model must call a tool, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Strict):
    """Whether the model reasons before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1024, lt=2**31)] | None = None
    display: Literal["summarized", "omitted", "updates"] | None = None


class Metadata(Strict):
    """The client's metadata on the request."""

    user_id: Label | None = None


class OutputFormat(Strict):
    """The format of the answer."""

    type: Literal["json_schema"]
    json_schema: JsonSchema | None = Field(None, alias="schema")


class OutputConfig(Strict):
    """Options of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class MessagesRequest(ApiRequest):
    """The body of `POST /v1/messages`."""

    NOT_FORWARDED: ClassVar = NEVER_FORWARDED | {
        *("container", "betas", "cache_control", "context_management", "thread")
    }
    CLAMPS_LIMIT: ClassVar = True
    CONTENT_FIELDS: ClassVar = frozenset({"system", "messages"})

    messages: Annotated[
        list[Turn],
        Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES),
        BeforeValidator(bounded_parts),
    ]
    max_tokens: Limit
    system: Texts | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
    stop_sequences: Annotated[list[StopText], Field(fail_fast=True, max_length=16)] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    thinking: Thinking | None = None
    tool_choice: ToolChoice | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=128)] | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    service_tier: Label | None = None
    container: Label | None = None
    thread: JsonObject | None = None
    cache_control: JsonObject | None = None
    context_management: JsonObject | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "MessagesRequest":
        choice = self.tool_choice
        if choice is not None and choice.type == "tool" and choice.name is None:
            raise inconsistent("tool_choice", "Type 'tool' needs a 'name'.")
        if choice is not None and choice.type in ("any", "tool"):
            name = choice.name if choice.type == "tool" else None
            check_tool_choice(True, name, [tool.name for tool in self.tools or ()])
        return self

    def token_limits(self) -> dict[str, int | None]:
        """Return the field that limits the answer."""
        return {"max_tokens": self.max_tokens}

    def grammar_schemas(self) -> list[dict[str, Any] | None]:
        """Return the schemas of strict tools, or of all tools if one of them must be called."""
        is_strict = self.tool_choice is not None and self.tool_choice.type == "any"
        return [tool.input_schema for tool in self.tools or () if tool.strict or is_strict]

    def tags(self) -> dict[str, str]:
        """Return the session that agents put into `user_id`."""
        _, session = conversation_id.split_user_id(self._user_id)
        return {"session_id": session} if session else {}

    @property
    def end_user(self) -> str | None:
        """The end user in `user_id`, without the session."""
        user, _ = conversation_id.split_user_id(self._user_id)
        return user

    @property
    def _user_id(self) -> str:
        return (self.metadata and self.metadata.user_id) or ""

    def chat_messages(self) -> list[Message]:
        """Return the system prompt and the turns as chat messages."""
        system = _join_blocks(self.system)
        first: list[Message] = [{"role": "system", "content": system}] if system else []
        return [*first, *(message for turn in self.messages for message in _chat_turn(turn))]

    def content_fields(self, messages: list[Message]) -> dict[str, Any]:
        """Return the system prompt of `messages`, and the request's own turns."""
        system, _ = split_system(messages)
        turns = [turn.model_dump(exclude_none=True) for turn in self.messages]
        return {"messages": turns} | ({"system": system} if system else {})


class CountRequest(MessagesRequest):
    """The body of `POST /v1/messages/count_tokens`."""

    max_tokens: Limit | None = None  # type: ignore[assignment]

    def prompt_fields(self) -> dict[str, Any]:
        """Return the fields that affect the length of the prompt."""
        return {name: value for name, value in self.params().items() if name in PROMPT_FIELDS}


PROMPT_FIELDS = ("tools", "tool_choice", "thinking", "output_config")


def _join_blocks(text: str | list[TextBlock] | None) -> str:
    if isinstance(text, list):
        return "\n".join(block.text for block in text)
    return text or ""


def _chat_turn(turn: Turn) -> list[Message]:
    """Convert a turn to chat messages; each tool result becomes a separate message."""
    if isinstance(turn.content, str):
        return [{"role": turn.role, "content": turn.content}]
    text = "\n".join(block.text for block in turn.content if isinstance(block, TextBlock))
    calls = [_call(block) for block in turn.content if isinstance(block, ToolUseBlock)]
    results: list[Message] = [
        {"role": "tool", "tool_call_id": block.tool_use_id, "content": _join_blocks(block.content)}
        for block in turn.content
        if isinstance(block, ToolResultBlock)
    ]
    message: Message = {"role": turn.role, "content": text}
    if calls:
        message["tool_calls"] = calls
    return [*results, message] if text or calls or not results else results


def _call(block: ToolUseBlock) -> Json:
    function = {"name": block.name, "arguments": json.dumps(block.input)}
    return {"id": block.id, "type": "function", "function": function}
