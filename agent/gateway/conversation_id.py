"""Read the conversation, and the end user, that a client names in its request.

Clients name a conversation in a header or in their metadata. If a request names none, the store
finds its conversation by the messages (store/records.py), among those of the same principal and
end user.
"""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

HEADERS = (b"x-byheart-conversation", b"x-openwebui-chat-id")
METADATA_KEYS = ("conversation_id", "session_id", "thread_id", "chat_id")
"""Metadata keys under which clients name a conversation, the most reliable first."""
MAX_CONVERSATION_CHARS = 256
SESSION_SUFFIX = re.compile(r"_*session_([\w-]{8,})$")


class AgentUser(BaseModel):
    """The `user_id` of newer agents: JSON that names an account, a device and a session."""

    account_uuid: str = ""
    device_id: str = ""
    session_id: str = ""


def from_client(headers: Mapping[bytes, bytes], tags: Mapping[str, str]) -> str | None:
    """Return the conversation that the client names; None if it names none."""
    for header in HEADERS:
        if headers.get(header):
            return headers[header][:MAX_CONVERSATION_CHARS].decode("latin-1")
    return next(
        (tags[tag][:MAX_CONVERSATION_CHARS] for tag in METADATA_KEYS if tags.get(tag)), None
    )


def split_user_id(name: str) -> tuple[str | None, str | None]:
    """Split an agent's `user_id`, which may contain both, into end user and session.

    An end user is the same in all sessions, and on all devices if the agent names the account.
    """
    try:
        agent = AgentUser.model_validate_json(name)
    except ValidationError:
        agent = AgentUser()
    if agent != AgentUser():
        return agent.account_uuid or agent.device_id or None, agent.session_id or None
    session = SESSION_SUFFIX.search(name)
    return SESSION_SUFFIX.sub("", name) or name or None, session and session.group(1)
