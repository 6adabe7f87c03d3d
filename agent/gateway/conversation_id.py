"""Which conversation a request belongs to, and whose that is where one name says both.

A client says so in a header or in its metadata; where it does not, the store finds the conversation
by the course of its messages (store/records.py), among those of the same principal and end user.
"""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

HEADERS = (b"x-byheart-conversation", b"x-openwebui-chat-id")
METADATA_KEYS = ("conversation_id", "session_id", "thread_id", "chat_id")
"""Keys of metadata under which clients name a conversation, the surest first."""
MAX_CONVERSATION_CHARS = 256
SESSION_SUFFIX = re.compile(r"_*session_([\w-]{8,})$")


class AgentUser(BaseModel):
    """Whom an agent asks for, as newer ones write it: JSON in the place of a name."""

    account_uuid: str = ""
    device_id: str = ""
    session_id: str = ""


def from_client(headers: Mapping[bytes, bytes], tags: Mapping[str, str]) -> str | None:
    """The conversation as the client names it; None where it does not."""
    for header in HEADERS:
        if headers.get(header):
            return headers[header][:MAX_CONVERSATION_CHARS].decode("latin-1")
    return next(
        (tags[tag][:MAX_CONVERSATION_CHARS] for tag in METADATA_KEYS if tags.get(tag)), None
    )


def split_user_id(name: str) -> tuple[str | None, str | None]:
    """Whom a request is made for, and in which session: agents say both by one name.

    A person is the same in all sessions, and on all devices where an account is told.
    """
    try:
        agent = AgentUser.model_validate_json(name)
    except ValidationError:
        agent = AgentUser()
    if agent != AgentUser():
        return agent.account_uuid or agent.device_id or None, agent.session_id or None
    session = SESSION_SUFFIX.search(name)
    return SESSION_SUFFIX.sub("", name) or name or None, session and session.group(1)
