"""`POST /v1/chat/completions`: the text fields of the OpenAI API, and vLLM's extensions."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from agent.gateway.apis.chat_messages import (
    Messages,
    NamedTool,
    ResponseFormat,
    StreamOptions,
    Tool,
    ToolChoice,
)
from agent.gateway.apis.request import (
    MAX_CHOICES_PER_PROMPT,
    NEVER_FORWARDED,
    ApiRequest,
    Label,
    Limit,
    LogitBias,
    Metadata,
    MinP,
    Penalty,
    Repetition,
    Seed,
    Stops,
    TopK,
    TopP,
    check_tool_choice,
    inconsistent,
)
from agent.gateway.apis.strict import JsonObject, rejected_with
from store.contexts import Message


class ChatRequest(ApiRequest):
    """The body of `POST /v1/chat/completions`."""

    NOT_FORWARDED: ClassVar = NEVER_FORWARDED | {
        "stream_options",
        "prompt_cache_options",
        "verbosity",
        "modalities",
        "prediction",
        "moderation",
    }

    CONTENT_FIELDS: ClassVar = frozenset({"messages"})
    LIMIT_FIELD: ClassVar = "max_completion_tokens"

    messages: Messages

    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES_PER_PROMPT)] | None = None
    seed: Seed | None = None
    stop: Stops | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: TopP | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, min_length=1, max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )

    # vLLM's extensions of the OpenAI API.
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: Repetition | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None

    metadata: Metadata | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    prompt_cache_options: JsonObject | None = None
    service_tier: Label | None = None
    verbosity: Label | None = None
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True, max_length=8)] | None = None
    prediction: JsonObject | None = None
    moderation: JsonObject | None = None
    audio: Annotated[None, rejected_with("Only text is generated: omit it.")] = None
    functions: Annotated[None, rejected_with("Send 'tools' instead.")] = None
    function_call: Annotated[None, rejected_with("Send 'tool_choice' instead.")] = None
    web_search_options: Annotated[None, rejected_with("Web search is not supported: omit it.")] = (
        None
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise inconsistent("top_logprobs", "Set 'logprobs' to true to get top_logprobs.")
        named = self.tool_choice if isinstance(self.tool_choice, NamedTool) else None
        check_tool_choice(
            self.tool_choice not in (None, "none"),
            None if named is None else named.function.name,
            [tool.function.name for tool in self.tools or ()],
        )
        if self.stream_options is not None and not self.stream:
            raise inconsistent("stream_options", "Set 'stream' to true to use stream_options.")
        form = self.response_format
        if form is not None and form.type == "json_schema" and form.json_schema is None:
            raise inconsistent("response_format", "Type 'json_schema' needs 'json_schema'.")
        return self

    @property
    def wants_usage(self) -> bool:
        """Whether the client requests an event with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def token_limits(self) -> dict[str, int | None]:
        """Return both fields that limit the answer."""
        return {
            "max_tokens": self.max_tokens,
            "max_completion_tokens": self.max_completion_tokens,
        }

    def grammar_schemas(self) -> list[dict[str, Any] | None]:
        """Return the schemas of strict functions, or of all if one of them must be called."""
        is_strict = self.tool_choice == "required"
        functions = (tool.function for tool in self.tools or ())
        return [item.parameters for item in functions if item.strict or is_strict]

    def logprobs_per_token(self) -> int:
        """Return one for the token, and one for each alternative."""
        return 1 + (self.top_logprobs or 0) if self.logprobs else 0

    def tags(self) -> dict[str, str]:
        """Return the metadata."""
        return self.metadata or {}

    def chat_messages(self) -> list[Message]:
        """Return the messages as dicts, without nulls and fields that no model reads."""
        return [message.model_dump(exclude_none=True, by_alias=True) for message in self.messages]

    def content_fields(self, messages: list[Message]) -> dict[str, Any]:
        """Return the messages."""
        return {"messages": messages}
