"""Contexts: the text prepended to a conversation, and `compose`, which prepends it.

`compose` is pure. The gateway, the trainer's teacher and the evaluation all use it, so what the
teacher reads is byte for byte what the gateway sends. Stable text comes first, so that the engine's
prefix cache hits: registered system prompt, lessons, the client's own system text, messages.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Messages = tuple[Message, ...]

LESSONS_HEADING = "Keep to the following:"
SYSTEM_ROLES = ("system", "developer")
SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Context:
    """The text prepended to a conversation: registered system prompt and rendered lessons.

    Under an adapter it is the residual context: the part that the adapter has not internalised.
    """

    system_prompt: str | None = None
    lessons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.system_prompt or self.lessons)

    @property
    def hash(self) -> str:
        """SHA-256 of the content (64 hex digits), which names the snapshot."""
        canonical = json.dumps([self.system_prompt, list(self.lessons)], ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def text(self) -> str:
        """Return the context as system message text; empty for an empty context."""
        lessons = "\n".join([LESSONS_HEADING, *(f"- {lesson}" for lesson in self.lessons)])
        return "\n\n".join(filter(None, [self.system_prompt, lessons if self.lessons else None]))


def compose(
    messages: Sequence[Message], context: Context, elide: str | None = None
) -> list[Message]:
    """Prepend `context` to `messages`, merged with the client's system text into one message.

    Args:
        messages: Chat messages as the client sent them; not modified.
        context: What the answering adapter has not internalised; if empty, nothing is prepended.
        elide: The whole registered system prompt. If the client's system text starts with it
            (ignoring differences in white space), it is removed there, so that the prompt has
            only what `context` has of it.
    """
    own, rest = split_system(messages)
    client_text = _without_prefix(own, elide) if elide else own
    if not context and client_text == own:
        return list(messages)
    text = "\n\n".join(filter(None, [context.text(), client_text]))
    return [{"role": "system", "content": text}, *rest] if text else rest


def still_contains(messages: Sequence[Message], registered: str) -> bool:
    """Return whether `compose` leaves the registered prompt in some system text of the client."""
    own, rest = split_system(messages)
    later = [message_text(message) for message in rest if message["role"] in SYSTEM_ROLES]
    prompt = " ".join(registered.split())
    texts = (" ".join(text.split()) for text in (_without_prefix(own, registered), *later))
    return any(f" {prompt} " in f" {text} " for text in texts)


def split_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Split messages into the text of the leading system messages, and the rest."""
    count = 0
    while count < len(messages) and messages[count]["role"] in SYSTEM_ROLES:
        count += 1
    return "\n\n".join(map(message_text, messages[:count])), list(messages[count:])


def _without_prefix(text: str, prefix: str) -> str:
    """Remove the words of `prefix` from the start of `text`, ignoring differences in white space.

    Returns `text` unchanged if it starts with other words, or continues the last word of `prefix`.
    """
    position = 0
    for word in prefix.split():
        start = _end_of_space(text, position)
        if not text.startswith(word, start) or (position and start == position):
            return text
        position = start + len(word)
    rest = text[position:]
    return rest.lstrip() if not rest[:1].strip() else text


def _end_of_space(text: str, position: int) -> int:
    space = SPACE.match(text, position)
    return space.end() if space else position


def message_text(message: Message) -> str:
    """Return the text of a message whose content is a string, a list of content parts or absent.

    Text parts are joined with newlines, as in vLLM.
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or () if part.get("type") == "text")


def last_user_text(messages: Sequence[Message]) -> str:
    """Return the text of the last user message; empty if there is none."""
    texts = [message_text(message) for message in messages if message["role"] == "user"]
    return texts[-1].strip() if texts else ""
