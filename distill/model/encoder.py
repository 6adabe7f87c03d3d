"""Encodes prompts for the student and for the teacher.

A prompt is encoded twice with the same chat template: `compose(messages, nothing)` for the student
and `compose(messages, context)` for the teacher. This is what the gateway sends after and before
the adapter is live. Where the client's system text begins with the registered system prompt, that
part is removed on both sides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jinja2 import TemplateError

from distill.model.packing import TokenIds, common_prefix
from store.contexts import Context, Message, compose, message_text
from store.contexts import Messages as Messages


class PromptTooLong(Exception):
    """A prompt with its context does not fit the model; prompts are never truncated."""


class PromptRejected(Exception):
    """The chat template rejects a conversation, for example one whose roles do not alternate."""


@dataclass(frozen=True)
class Prompt:
    """One conversation to answer, encoded for both sides."""

    text: str
    """The last message, for display and near-duplicate detection."""
    student_ids: TokenIds
    """The student's prompt, without context."""
    teacher_ids: TokenIds
    """The teacher's prompt, which starts with the context."""
    prefix: TokenIds
    """The prefix of `teacher_ids` that all prompts of this context share."""
    replay: bool = False
    """Whether this is a replay prompt: unrelated, with an empty context."""
    messages: Messages = ()
    """The conversation itself."""


@dataclass(frozen=True)
class Encoder:
    """Encodes messages as prompts of one context."""

    tokenizer: Any
    context: Context
    max_prompt_tokens: int
    """Maximum tokens of a prompt, which leaves space for the longest completion."""
    max_answer_tokens: int = 0
    """Maximum tokens of a completion."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, the same as in serving, such as `enable_thinking`."""

    def prompt(self, messages: Messages, replay: bool = False) -> Prompt:
        """Encode messages for both sides.

        Raises:
            PromptTooLong: The teacher's prompt does not fit; the message names the prompt.
            PromptRejected: The chat template rejects it; the message names the prompt.
        """
        context = Context() if replay else self.context
        teacher_ids = self.ids(messages, context)
        text = message_text(messages[-1])
        if len(teacher_ids) > self.max_prompt_tokens:
            raise PromptTooLong(
                f"With its context the prompt {text[:80]!r} has {len(teacher_ids)} tokens; "
                f"{self.max_prompt_tokens} fit next to the answer. Shorten the context or "
                "the prompt."
            )
        prefix = common_prefix([teacher_ids, self._opening(context)])
        student_ids = self.ids(messages, Context())
        return Prompt(text, student_ids, teacher_ids, prefix, replay, messages)

    def with_student_context(self, prompt: Prompt, context: Context) -> Prompt:
        """Return the prompt as a student sees it that has a part of the context in its prompt."""
        return replace(prompt, student_ids=self.ids(prompt.messages, context))

    def ids(self, messages: Messages, context: Context) -> TokenIds:
        """Return the token ids of the composed messages with the generation prompt, as in serving.

        Raises:
            PromptRejected: The chat template rejects them.
        """
        composed = compose(messages, context, elide=self.context.system_prompt)
        try:
            ids = self.tokenizer.apply_chat_template(
                [_plain(message) for message in composed],
                add_generation_prompt=True,
                return_dict=False,
                **self.template,
            )
        except TemplateError as error:
            text = message_text(messages[-1])
            raise PromptRejected(
                f"The model's chat template rejects the prompt {text[:80]!r}: {error}"
            ) from error
        return tuple(ids)

    def answer_budget(self, prompt: Prompt) -> int:
        """Return the maximum tokens of an answer to the teacher's prompt."""
        return self.max_prompt_tokens + self.max_answer_tokens - len(prompt.teacher_ids)

    def answer_ids(self, text: str) -> TokenIds:
        """Return the token ids of a complete answer: the text and the end token."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return (*ids, self.tokenizer.eos_token_id)

    def fits(self, messages: Messages) -> bool:
        """Whether the chat template accepts the conversation and it fits next to the context."""
        try:
            return len(self.ids(messages, self.context)) <= self.max_prompt_tokens
        except PromptRejected:
            return False

    def decode(self, completions: Sequence[TokenIds]) -> list[str]:
        """Decode completions to text, without special tokens."""
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in completions]

    def _opening(self, context: Context) -> TokenIds:
        """Return the tokens before the first user text."""
        left, right = (self.ids(user(text), context) for text in ("a", "0"))
        # -1 is no token id: `common_prefix` leaves each prompt a last token, here this one.
        return (*common_prefix([left, right]), -1)


def _plain(message: Message) -> Message:
    """Return the message with plain text as its content, as vLLM passes it to a chat template."""
    return {**message, "content": message_text(message)}


def encode_text(tokenizer: Any, text: str) -> TokenIds:  # noqa: ANN401
    """Return the token ids of a text, after the BOS token if the tokenizer adds one."""
    has_bos = tokenizer.bos_token_id in tokenizer("")["input_ids"]
    start = (tokenizer.bos_token_id,) if has_bos else ()
    return (*start, *tokenizer(text, add_special_tokens=False)["input_ids"])


def user(text: str) -> Messages:
    """Return a conversation of one user message."""
    return ({"role": "user", "content": text},)


def user_text(messages: Messages) -> str:
    """Return the text of all user messages, which identifies a conversation."""
    texts = [message_text(message) for message in messages if message["role"] == "user"]
    return "\n".join(texts)


def prompt_texts(messages: Messages) -> list[str]:
    """Return the texts to deduplicate by: all user messages, and the last message."""
    return list(dict.fromkeys([user_text(messages), message_text(messages[-1])]))
