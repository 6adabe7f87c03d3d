"""How a client names its conversation."""

from agent.gateway.conversation_id import from_client


def test_a_header_names_a_conversation_before_metadata_does() -> None:
    tags = {"session_id": "s1", "conversation_id": "c1"}

    assert (
        from_client({b"x-byheart-conversation": b"h1", b"x-openwebui-chat-id": b"o1"}, tags) == "h1"
    )
    assert from_client({b"x-openwebui-chat-id": b"o1"}, tags) == "o1"
    assert from_client({}, tags) == "c1"
    assert from_client({}, {"session_id": "s1", "ticket": "7"}) == "s1"
    assert from_client({}, {"ticket": "7"}) is None
    assert from_client({b"x-byheart-conversation": b""}, {"chat_id": "x" * 999}) == "x" * 256
