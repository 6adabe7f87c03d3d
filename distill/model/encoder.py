"""Prompts of a run, as the student and as the teacher see them.

A prompt is encoded twice with the same chat template: for the student `compose(messages, nothing)`,
for the teacher `compose(messages, context)`, which is what the gateway sends before and after the
adapter is live: where the client's own system text begins with the registered one, that is taken
out on both sides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from distill.model.packing import TokenIds, common_prefix
from store.contexts import Context, Message, compose, message_text
from store.contexts import Messages as Messages


class PromptTooLong(Exception):
    """A prompt with its context does not fit the model; nothing is ever truncated."""


class PromptRejected(Exception):
    """The chat template does not take a conversation, such as one whose roles do not alternate."""


@dataclass(frozen=True)
class Prompt:
    """One conversation to answer, for both sides."""

    text: str
    """The last message, for people and for finding near-duplicates."""
    student_ids: TokenIds
    """What the student sees: no context."""
    teacher_ids: TokenIds
    """What the teacher sees: the context first."""
    prefix: TokenIds
    """Beginning of `teacher_ids` that all prompts of this context share."""
    replay: bool = False
    """Whether it is there to be left unchanged: an unrelated prompt, with an empty context."""


@dataclass(frozen=True)
class Encoder:
    """Turns messages into prompts of one context."""

    tokenizer: Any
    context: Context
    max_prompt_tokens: int
    """Most tokens that a prompt may have beside the longest completion."""
    max_answer_tokens: int = 0
    """Tokens of the longest completion."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, as serving gives them: whether the model thinks, say."""

    def prompt(self, messages: Messages, replay: bool = False) -> Prompt:
        """Encode messages for both sides.

        Raises:
            PromptTooLong: The teacher's prompt does not fit; the message names the prompt.
            PromptRejected: The chat template does not take it; the message names the prompt.
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
        return Prompt(text, self.ids(messages, Context()), teacher_ids, prefix, replay)

    def ids(self, messages: Messages, context: Context) -> TokenIds:
        """Token ids of the composed messages with the generation prompt, as serving sends them.

        Raises:
            PromptRejected: The chat template does not take them.
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
                f"The model's chat template refuses the prompt {text[:80]!r}: {error}"
            ) from error
        return tuple(ids)

    def answer_budget(self, prompt: Prompt) -> int:
        """Tokens that an answer to a prompt may have behind the teacher's."""
        return self.max_prompt_tokens + self.max_answer_tokens - len(prompt.teacher_ids)

    def answer_ids(self, text: str) -> TokenIds:
        """A whole answer: the text, and the end token."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return (*ids, self.tokenizer.eos_token_id)

    def fits(self, messages: Messages) -> bool:
        """Whether the model takes the conversation, and has room for it beside the context."""
        try:
            return len(self.ids(messages, self.context)) <= self.max_prompt_tokens
        except PromptRejected:
            return False

    def decode(self, completions: Sequence[TokenIds]) -> list[str]:
        """The completions as text, without special tokens."""
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in completions]

    def _opening(self, context: Context) -> TokenIds:
        """The tokens up to where a user's words begin."""
        one, other = (self.ids(user(text), context) for text in ("a", "0"))
        # An id that no prompt has: the opening may be shared to its end.
        return (*common_prefix([one, other]), -1)


def _plain(message: Message) -> Message:
    """The message with text as its content, as vLLM gives it to a chat template."""
    return {**message, "content": message_text(message)}


def encode_text(tokenizer: Any, text: str) -> TokenIds:  # noqa: ANN401
    """The tokens of a text by itself, behind the one with which the tokenizer begins any text."""
    begins = tokenizer.bos_token_id in tokenizer("")["input_ids"]
    start = (tokenizer.bos_token_id,) if begins else ()
    return (*start, *tokenizer(text, add_special_tokens=False)["input_ids"])


def user(text: str) -> Messages:
    """A conversation of one user message."""
    return ({"role": "user", "content": text},)


def user_text(messages: Messages) -> str:
    """What the user said in a conversation, from its first turn: what makes it this one."""
    said = [message_text(message) for message in messages if message["role"] == "user"]
    return "\n".join(said)


def prompt_texts(messages: Messages) -> list[str]:
    """What must not be repeated of a conversation: all that was asked, and its last question."""
    return list(dict.fromkeys([user_text(messages), message_text(messages[-1])]))
