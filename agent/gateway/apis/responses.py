"""`POST /v1/responses`: OpenAI's Responses API, without state between requests."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from agent.gateway.apis.chat_messages import MAX_MESSAGES, FunctionName, bounded_parts
from agent.gateway.apis.request import (
    NEVER_FORWARDED,
    ApiRequest,
    Label,
    Limit,
    Metadata,
    MinP,
    Repetition,
    Seed,
    Stops,
    TopK,
    TopP,
    check_tool_choice,
)
from agent.gateway.apis.responses_items import Item, chat_messages
from agent.gateway.apis.schema_cost import JsonSchema
from agent.gateway.apis.strict import JsonObject, Strict, rejected_with
from store.contexts import SYSTEM_ROLES, Message, split_system

STATELESS = "The server keeps no state between requests: send the whole conversation as 'input'."


class FunctionTool(Strict):
    """A function that the model may call; the client runs it."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class NamedFunction(Strict):
    """The function that the model must call."""

    type: Literal["function"]
    name: FunctionName


class TextFormat(Strict):
    """The format of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: Label | None = None
    description: str | None = None
    json_schema: JsonSchema | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(Strict):
    """Options of the answer's text."""

    format: TextFormat | None = None
    verbosity: Label | None = None


class Reasoning(Strict):
    """How much the model reasons before it answers."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Label | None = None


class Obfuscation(Strict):
    """Whether events are padded to a uniform length; byheart does not pad them."""

    include_obfuscation: bool | None = None


class ResponsesRequest(ApiRequest):
    """The body of `POST /v1/responses`."""

    NOT_FORWARDED: ClassVar = NEVER_FORWARDED | {
        *("background", "previous_response_id", "conversation"),
        *("max_tool_calls", "stream_options", "prompt_cache_options", "moderation"),
    }
    CONTENT_FIELDS: ClassVar = frozenset({"instructions", "input"})
    LIMIT_FIELD: ClassVar = "max_output_tokens"

    input: Annotated[
        list[Item],
        Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES),
        BeforeValidator(
            lambda text: [{"role": "user", "content": text}] if isinstance(text, str) else text
        ),
        BeforeValidator(bounded_parts),
    ]
    instructions: str | None = None
    background: Annotated[
        Literal[False] | None, rejected_with("Only synchronous requests are supported.")
    ] = None
    previous_response_id: Annotated[None, rejected_with(STATELESS)] = None
    conversation: Annotated[None, rejected_with(STATELESS)] = None
    include: Annotated[list[Label], Field(fail_fast=True, max_length=16)] | None = None
    max_output_tokens: Limit | None = None
    max_tool_calls: Limit | None = None
    """Limits calls of tools that a server runs; byheart runs no tools."""
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    prompt_cache_options: JsonObject | None = None
    moderation: JsonObject | None = None
    reasoning: Reasoning | None = None
    service_tier: Label | None = None
    stream_options: Obfuscation | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    text: TextConfig | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    tools: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=128)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: TopP | None = None
    truncation: Literal["auto", "disabled"] | None = None

    # vLLM's extensions of the OpenAI API.
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: Repetition | None = None
    seed: Seed | None = None
    stop: Stops | None = None
    ignore_eos: bool | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ResponsesRequest":
        must_call = self.tool_choice not in (None, "none", "auto")
        name = self.tool_choice.name if isinstance(self.tool_choice, NamedFunction) else None
        check_tool_choice(must_call, name, [tool.name for tool in self.tools or ()])
        return self

    def token_limits(self) -> dict[str, int | None]:
        """Return the field that limits the answer."""
        return {"max_output_tokens": self.max_output_tokens}

    def grammar_schemas(self) -> list[dict[str, Any] | None]:
        """Return the schemas of strict functions, or of all if one of them must be called."""
        is_strict = self.tool_choice == "required"
        return [tool.parameters for tool in self.tools or () if tool.strict or is_strict]

    def logprobs_per_token(self) -> int:
        """Return one for the token, and one for each alternative."""
        return 1 + self.top_logprobs if self.top_logprobs else 0

    def tags(self) -> dict[str, str]:
        """Return the metadata."""
        return self.metadata or {}

    def chat_messages(self) -> list[Message]:
        """Return the instructions and the items as chat messages."""
        first: list[Message] = (
            [{"role": "system", "content": self.instructions}] if self.instructions else []
        )
        return [*first, *chat_messages(self.input)]

    def content_fields(self, messages: list[Message]) -> dict[str, Any]:
        """Return the system prompt of `messages` as instructions, and the request's other items."""
        system, _ = split_system(messages)
        items = [item.model_dump(exclude_none=True) for item in self.input]
        while items and items[0].get("role") in SYSTEM_ROLES:
            del items[0]
        # The engine must not store the response.
        fields: dict[str, Any] = {"input": items, "store": False}
        return fields | ({"instructions": system} if system else {})
