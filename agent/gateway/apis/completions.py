"""`POST /v1/completions`: text completion, which is not a conversation and gets no context."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from agent.gateway.apis.chat_messages import ResponseFormat, StreamOptions
from agent.gateway.apis.request import (
    MAX_CHOICES_PER_PROMPT,
    NEVER_FORWARDED,
    ApiRequest,
    Limit,
    LogitBias,
    MinP,
    Penalty,
    Repetition,
    Seed,
    Stops,
    TopK,
    TopP,
    inconsistent,
)
from agent.gateway.apis.strict import Text, as_text_list, rejected_with
from store.contexts import Message

DEFAULT_MAX_TOKENS = 16
MAX_CHOICES = 32
"""Choices of one request, over all its prompts; LangChain sends 20 prompts in one request."""


class CompletionRequest(ApiRequest):
    """The body of `POST /v1/completions`."""

    NOT_FORWARDED: ClassVar = NEVER_FORWARDED | {"stream_options", "best_of", "suffix"}
    CONTENT_FIELDS: ClassVar = frozenset({"prompt"})

    prompt: Annotated[
        list[Text],
        Field(fail_fast=True, min_length=1, max_length=MAX_CHOICES),
        BeforeValidator(as_text_list),
    ]
    """One text or several; token ids are rejected."""

    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    echo: bool | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    max_tokens: Limit | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES_PER_PROMPT)] | None = None
    seed: Seed | None = None
    stop: Stops | None = None
    stream_options: StreamOptions | None = None
    suffix: Annotated[
        Literal[""] | None, rejected_with("Fill-in-the-middle is not supported: omit it.")
    ] = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: TopP | None = None

    # vLLM's extensions of the OpenAI API.
    response_format: ResponseFormat | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repetition_penalty: Repetition | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    ignore_eos: bool | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "CompletionRequest":
        if self.stream_options is not None and not self.stream:
            raise inconsistent("stream_options", "Set 'stream' to true to use stream_options.")
        if self.choice_count() > MAX_CHOICES:
            message = (
                f"At most {MAX_CHOICES} answers per request: send fewer prompts, or lower 'n'."
            )
            raise inconsistent("n", message)
        if self.echo and self.logprobs is not None:
            # On a CPU that serves LoRA, vLLM 0.32 crashes on log probabilities of a prompt.
            message = (
                "Log probabilities of the prompt are not supported: omit 'echo' or 'logprobs'."
            )
            raise inconsistent("logprobs", message)
        return self

    @property
    def wants_usage(self) -> bool:
        """Whether the client requests an event with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def token_limits(self) -> dict[str, int | None]:
        """Return the field that limits the answer."""
        return {"max_tokens": self.max_tokens}

    def engine_limits(self, max_tokens: int) -> dict[str, int]:
        """Return the API's default, sixteen tokens, if the client sets no limit."""
        return {} if self.max_tokens else {"max_tokens": min(DEFAULT_MAX_TOKENS, max_tokens)}

    def choice_count(self) -> int:
        """Return the number of answers over all prompts."""
        return len(self.prompt) * super().choice_count()

    def logprobs_per_token(self) -> int:
        """Return one for the token, and one for each alternative."""
        return 0 if self.logprobs is None else 1 + self.logprobs

    def chat_messages(self) -> list[Message]:
        """Return each prompt as a user message."""
        return [{"role": "user", "content": text} for text in self.prompt]

    def content_fields(self, messages: list[Message]) -> dict[str, Any]:
        """Return the prompts."""
        return {"prompt": [message["content"] for message in messages]}
