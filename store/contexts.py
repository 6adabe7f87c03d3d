"""Contexts: the text that conditions the model, and the one function that puts it in a prompt.

`compose` is pure and is used by the gateway, by the trainer's teacher and by the gate, so what the
teacher saw is byte for byte what the gateway sends. Stable text comes first, so that the engine's
prefix cache holds: registered system prompt, lessons, the client's own system text, messages.
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
    """What stands in front of a conversation: a registered system prompt and rendered lessons."""

    system_prompt: str | None = None
    lessons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.system_prompt or self.lessons)

    @property
    def hash(self) -> str:
        """SHA-256 (64 hex digits) of the content; the name of a snapshot."""
        canonical = json.dumps([self.system_prompt, list(self.lessons)], ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def text(self) -> str:
        """The context as it stands in a system message; empty for an empty context."""
        lessons = "\n".join([LESSONS_HEADING, *(f"- {lesson}" for lesson in self.lessons)])
        return "\n\n".join(filter(None, [self.system_prompt, lessons if self.lessons else None]))


def compose(
    messages: Sequence[Message], context: Context, elide: str | None = None
) -> list[Message]:
    """Put `context` in front of `messages`, as one system message with the client's system text.

    Args:
        messages: Chat messages as the client sent them; never changed in place.
        context: What the answering adapter has not internalised; empty leaves messages alone.
        elide: The registered system prompt; where the client's own system text is it, or goes on
            after it, whatever the white space, it is taken out, so that it stands in the prompt
            once or, when internalised, not at all.
    """
    own, rest = split_system(messages)
    kept = _without_prefix(own, elide) if elide else own
    if not context and kept == own:
        return list(messages)
    text = "\n\n".join(filter(None, [context.text(), kept]))
    return [{"role": "system", "content": text}, *rest] if text else rest


def still_contains(messages: Sequence[Message], registered: str) -> bool:
    """Whether a system text of the client has the registered prompt where `compose` leaves it."""
    own, rest = split_system(messages)
    later = [message_text(message) for message in rest if message["role"] in SYSTEM_ROLES]
    looked_for = " ".join(registered.split())
    said = (" ".join(text.split()) for text in (_without_prefix(own, registered), *later))
    return any(f" {looked_for} " in f" {text} " for text in said)


def split_system(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """The text of the leading system messages, and the other messages."""
    count = 0
    while count < len(messages) and messages[count]["role"] in SYSTEM_ROLES:
        count += 1
    return "\n\n".join(map(message_text, messages[:count])), list(messages[count:])


def _without_prefix(text: str, prefix: str) -> str:
    """`text` without the words of `prefix` in front, whatever white space stands between them.

    It stays whole where its words are others, or a word goes on after them.
    """
    place = 0
    for word in prefix.split():
        start = _end_of_space(text, place)
        if not text.startswith(word, start) or (place and start == place):
            return text
        place = start + len(word)
    rest = text[place:]
    return rest.lstrip() if not rest[:1].strip() else text


def _end_of_space(text: str, place: int) -> int:
    space = SPACE.match(text, place)
    return space.end() if space else place


def message_text(message: Message) -> str:
    """The text of a message, whether its content is a string, text parts or absent.

    Parts are joined as vLLM joins them.
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or () if part.get("type") == "text")
