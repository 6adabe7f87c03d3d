"""Which conversation a request belongs to.

A client says so in a header or in its metadata; where it does not, the store finds the conversation
by the course of its messages (store/records.py), among those of the same principal and end user.
"""

from collections.abc import Mapping

HEADERS = (b"x-byheart-conversation", b"x-openwebui-chat-id")
TAGS = ("conversation_id", "session_id", "thread_id", "chat_id")
"""Keys of metadata under which clients name a conversation, the surest first."""
MAX_ID = 256


def named(headers: Mapping[bytes, bytes], tags: Mapping[str, str]) -> str | None:
    """The conversation as the client names it; None where it does not."""
    for header in HEADERS:
        if headers.get(header):
            return headers[header][:MAX_ID].decode("latin-1")
    return next((tags[tag][:MAX_ID] for tag in TAGS if tags.get(tag)), None)
