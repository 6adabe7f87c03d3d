"""Which conversation a request belongs to, and whether it is one of its turns at all.

A client says so in a header or in its metadata; where it does not, the store finds the conversation
by the course of its messages (store/records.py), among those of the same principal and end user.
Chat clients also send requests of their own making, for a title, tags, a summary or the next
question: that is side traffic. It is answered as any other, and never learned from.
"""

import re
from collections.abc import Mapping, Sequence

from store.contexts import SYSTEM_ROLES, Message, message_text

HEADERS = (b"x-byheart-conversation", b"x-openwebui-chat-id")
TAGS = ("conversation_id", "session_id", "thread_id", "chat_id")
"""Keys of metadata under which clients name a conversation, the surest first."""
MAX_ID = 256
LONGEST_SYSTEM_TASK = 600
LONGEST_TASK = 4_000
"""Characters of a text that are looked at: instructions stand at its beginning or its end."""

THINGS = (
    "title",
    "headline",
    "tag",
    "emoji",
    "follow",
    "quer",
    "summar",
    "cond",
    "compact",
    "rephr",
    "standalone",
)
TALK = ("conversation", "chat", "discussion", "dialog", "message", "thread", "exchange")
"""Of the words below, so much that none is without one of either."""
SESSION = re.compile(r"session_([\w-]{8,})")
"""In the `user_id` of agents that speak Anthropic's API."""
_MADE = r"\b(?:generate|create|write|provide|suggest|give|extract|come up with|produce)\b"
_THING = r"\b(?:title|headline|tags?|emoji|follow[- ]?up questions?|search quer(?:y|ies))\b"
_TALK = r"\b(?:conversation|chat|discussion|dialog(?:ue)?|messages?|thread|exchange)\b"
_SUMMED = r"\b(?:summari[sz](?:e|ing)|condens(?:e|ing)|compact(?:ing)?|summary of|rephrase)\b"
SIDE = re.compile(
    rf"{_MADE}[^\n]{{0,80}}?{_THING}(?:.{{0,400}}?){_TALK}"
    rf"|{_TALK}[^\n]{{0,120}}?{_MADE}[^\n]{{0,80}}?{_THING}"
    rf"|{_SUMMED}[^\n]{{0,60}}?{_TALK}"
    rf"|{_TALK}.{{0,400}}?standalone question",
    re.IGNORECASE | re.DOTALL,
)


def named(headers: Mapping[bytes, bytes], tags: Mapping[str, str]) -> str | None:
    """The conversation as the client names it; None where it does not."""
    for header in HEADERS:
        if headers.get(header):
            return headers[header][:MAX_ID].decode("latin-1")
    for tag in TAGS:
        if tags.get(tag):
            return tags[tag][:MAX_ID]
    session = SESSION.search(tags.get("user_id", ""))
    return session.group(1)[:MAX_ID] if session else None


def is_side(messages: Sequence[Message]) -> bool:
    """Whether a client made this request itself, about a conversation rather than in it.

    Told by what is asked last, and, where nothing was answered before, by a system text that is
    short: such a task is all that it says, and an application's says much else.
    """
    asked = [message for message in messages if message["role"] == "user"]
    texts = [message_text(asked[-1])] if asked else []
    if not any(message["role"] == "assistant" for message in messages):
        system = [message_text(each) for each in messages if each["role"] in SYSTEM_ROLES]
        texts += [text for text in system if len(text) <= LONGEST_SYSTEM_TASK]
    return any(_is_task(text) for text in texts)


def _is_task(text: str) -> bool:
    half = LONGEST_TASK // 2
    ends = (text,) if len(text) <= LONGEST_TASK else (text[:half], text[-half:])
    return any(_may_be_task(end.lower()) and SIDE.search(end) for end in ends)


def _may_be_task(text: str) -> bool:
    """Whether the pattern may be in a text: it takes a hundred times as long to be sure."""
    return any(word in text for word in THINGS) and any(word in text for word in TALK)
