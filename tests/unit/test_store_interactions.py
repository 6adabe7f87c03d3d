"""Interactions and feedback: recorded once, in conversations, separate by namespace."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from store import feedback, interactions, namespaces, records
from store.db import Database, Session
from store.feedback import FeedbackConflict, NewFeedback, UnknownTarget
from store.models import Conversation, Feedback, Interaction
from store.records import Record
from store.schema import InteractionStatus, Trust
from tests.support.factories import NOW, assistant, later, make_record, record, user


def _conversation(session: Session, made: Record) -> str:
    return session.get_one(Interaction, made.id).conversation


def test_saving_a_record_is_idempotent(shop: Database) -> None:
    made = make_record()
    with shop.begin() as session:
        assert records.save(session.connection(), [made])
    with shop.begin() as session:
        assert not records.save(session.connection(), [made])
    with shop.read() as session:
        assert [row.id for row in interactions.recent(session, "shop", 10)] == [made.id]


def test_a_record_round_trips_through_json() -> None:
    made = make_record(error="gone", status=InteractionStatus.ABORTED, trust=Trust.OPERATOR)
    assert Record.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_every_recorded_field_can_be_read(shop: Database) -> None:
    with shop.begin() as session:
        made = record(session, prompt_tokens=None, first_token_ms=None)
    with shop.read() as session:
        row = interactions.get(session, made.id)
        texts = interactions.payload(session, made.id)
        assert row is not None
        assert texts is not None
        kept = {name: getattr(row, name) for name in records.SHARED_COLUMNS}
    assert kept == {name: getattr(made, name) for name in kept}
    assert len(kept) == len(dataclasses.fields(Record)) - 4  # conversation is resolved; three texts
    assert (texts.messages, texts.params, texts.response) == (
        made.messages,
        made.params,
        made.response,
    )


def test_three_turns_are_one_conversation(shop: Database) -> None:
    said: list[dict[str, Any]] = [{"role": "system", "content": "It is Monday."}]
    with shop.begin() as session:
        made = []
        for turn in range(3):
            said = [*said, user(f"Question  {turn}?")]
            made.append(record(session, messages=said, response=f"Answer {turn}."))
            # Clients send white space and system messages as they like.
            said = [{"role": "system", "content": f"Turn {turn}"}, *said[1:]]
            said = [*said, assistant(f" Answer\n{turn}. ")]
        assert len({_conversation(session, one) for one in made}) == 1
        turns = interactions.turns(session, _conversation(session, made[0]))
    assert [turn.response for turn in turns] == ["Answer 0.", "Answer 1.", "Answer 2."]
    assert [len(turn.messages) for turn in turns] == [2, 4, 6]


def test_a_tool_result_continues_its_conversation(shop: Database) -> None:
    with shop.begin() as session:
        first = record(session, messages=[user("Weather?")], response="")
        call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
        tool = {"role": "tool", "content": "Rain", "tool_call_id": "1"}
        second = record(session, messages=[user("Weather?"), call, tool])
        assert _conversation(session, first) == _conversation(session, second)


def test_two_users_with_the_same_greeting_keep_separate_conversations(shop: Database) -> None:
    hello = [user("Hi")]
    with shop.begin() as session:
        greeted = [record(session, messages=hello, response="Hello!") for _ in range(2)]
        went_on = [
            record(session, messages=[*hello, assistant("Hello!"), user(text)])
            for text in ("Where is my parcel?", "Do you ship abroad?")
        ]
        begun = {_conversation(session, one) for one in greeted}
        continued = {_conversation(session, one) for one in went_on}
    assert begun == continued
    assert len(begun) == 2


@pytest.mark.parametrize("other", [{"namespace": "bank"}, {"principal": "somebody else"}])
def test_a_principal_does_not_continue_the_conversation_of_another(
    shop: Database, other: dict[str, str]
) -> None:
    following = [user("Hi"), assistant("Hello!"), user("And?")]
    with shop.begin() as session:
        mine = record(session, messages=[user("Hi")], response="Hello!")
        theirs = record(session, messages=following, **other)
        assert _conversation(session, mine) != _conversation(session, theirs)


def test_a_conversation_named_by_the_client_belongs_to_its_namespace(shop: Database) -> None:
    with shop.begin() as session:
        one = record(session, conversation="chat-1")
        same = record(session, conversation="chat-1", messages=[user("Something else?")])
        other = record(session, conversation="chat-1", namespace="bank")
        assert _conversation(session, one) == _conversation(session, same)
        assert _conversation(session, one) != _conversation(session, other)
        assert session.get_one(Conversation, _conversation(session, other)).namespace == "bank"


def test_a_replay_finds_the_same_conversation(shop: Database, db: Database) -> None:
    made = make_record()
    with shop.begin() as session:
        records.save(session.connection(), [made])
        here = session.get_one(Conversation, _conversation(session, made))
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        records.save(session.connection(), [made])
        there = session.get_one(Conversation, _conversation(session, made))
    assert (here.id, here.held_out) == (there.id, there.held_out)


def test_a_fifth_of_conversations_is_held_out_permanently(db: Database) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        made = [record(session, conversation=f"chat-{n}") for n in range(200)]
        drawn = [
            session.get_one(Conversation, _conversation(session, one)).held_out for one in made
        ]
        assert 20 < sum(drawn) < 60
        again = record(session, conversation="chat-7")
        assert session.get_one(Conversation, _conversation(session, again)).held_out == drawn[7]


def test_held_out_prompts_are_never_trained_on(shop: Database) -> None:
    with shop.begin() as session:
        for n in range(40):
            record(session, conversation=f"chat-{n}", messages=[user(f"Question {n}?")])
            record(session, conversation=f"chat-{n}", messages=[user(f"Question {n}?")])
        record(session, messages=[user("Failed")], status=InteractionStatus.FAILED)
        record(session, messages=[user("Secret")], learn=False)
        record(session, messages=[user("Elsewhere")], namespace="bank")
        train = interactions.logged_prompts(session, "shop", held_out=False, limit=100)
        held_out = interactions.logged_prompts(session, "shop", held_out=True, limit=100)
        newest = interactions.logged_prompts(session, "shop", held_out=False, limit=3)
    texts = [prompt[0]["content"] for prompt in train + held_out]
    assert sorted(texts) == sorted(f"Question {n}?" for n in range(40))
    assert newest == train[:3]
    numbers = [int(prompt[0]["content"][9:-1]) for prompt in train]
    assert numbers == sorted(numbers, reverse=True)


def test_prompts_can_be_read_as_of_a_time(shop: Database) -> None:
    with shop.begin() as session:
        first = record(session, messages=[user("First?")])
        record(session, messages=[user("Second?")])
        until = first.created_at
        both = [
            interactions.logged_prompts(session, "shop", out, 9, until) for out in (False, True)
        ]
    assert [*both[0], *both[1]] == [[user("First?")]]


def test_conversations_with_tools_are_never_trained_on(shop: Database) -> None:
    call = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    with shop.begin() as session:
        record(session, messages=[user("Rain?")], params={"tools": [{"type": "function"}]})
        record(session, messages=[user("Rain?"), call, {"role": "tool", "content": "No"}])
        both = [interactions.logged_prompts(session, "shop", out, 9) for out in (False, True)]
    assert both == [[], []]


MESSAGE = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "assistant", "system"]),
    st.text("ab \n", max_size=4),
)


@given(one=st.lists(MESSAGE, max_size=4), other=st.lists(MESSAGE, max_size=4))
def test_prefixes_are_equal_for_equal_messages(
    one: list[dict[str, str]], other: list[dict[str, str]]
) -> None:
    def said(messages: list[dict[str, str]]) -> list[tuple[str, str]]:
        return [
            (message["role"], " ".join(message["content"].split()))
            for message in messages
            if message["role"] != "system"
        ]

    same = records.prefix_hash(one) == records.prefix_hash(other)
    assert same == (said(one) == said(other))


def _feedback(target: str, **values: Any) -> NewFeedback:
    defaults: dict[str, Any] = {
        "id": None,
        "target_id": target,
        "name": "thumbs",
        "value": {"up": False},
        "comment": "We do not ship abroad.",
        "demonstration": None,
        "tags": {},
        "principal": "customer",
        "trust": Trust.USER,
    }
    return NewFeedback(**defaults | values)


def test_the_same_feedback_again_changes_nothing(shop: Database) -> None:
    with shop.begin() as session:
        made = record(session)
        row, added = feedback.add(session, "shop", _feedback(made.id, id="f1"), NOW)
        assert added
    with shop.begin() as session:
        again, added = feedback.add(session, "shop", _feedback(made.id, id="f1"), later(9))
        assert (again.id, again.created_at, added) == (row.id, NOW, False)
        assert session.scalar(select(func.count()).select_from(Feedback)) == 1


@pytest.mark.parametrize(
    "change", [{"comment": None}, {"value": {}}, {"value": {"up": 0}}, {"principal": "other"}]
)
def test_different_feedback_with_the_same_id_is_a_conflict(
    shop: Database, change: dict[str, Any]
) -> None:
    with shop.begin() as session:
        made = record(session)
        feedback.add(session, "shop", _feedback(made.id, id="f1"), NOW)
    with pytest.raises(FeedbackConflict, match="new id"), shop.begin() as session:
        feedback.add(session, "shop", _feedback(made.id, id="f1", **change), NOW)


def test_feedback_ids_of_other_namespaces_are_free(shop: Database) -> None:
    with shop.begin() as session:
        for namespace in ("shop", "bank"):
            made = record(session, namespace=namespace)
            assert feedback.add(session, namespace, _feedback(made.id, id="1"), NOW)[1]


def test_feedback_on_another_namespaces_interaction_finds_no_target(shop: Database) -> None:
    with shop.begin() as session:
        made = record(session, namespace="bank")
    for target in (made.id, "int_unknown"):
        with pytest.raises(UnknownTarget), shop.begin() as session:
            feedback.add(session, "shop", _feedback(target), NOW)


def test_feedback_with_unstorable_characters_is_idempotent(shop: Database) -> None:
    with shop.begin() as session:
        made = record(session)
        new = _feedback(made.id, id="a\x00", comment="\ud800")
        assert feedback.add(session, "shop", new, NOW)[1]
        assert not feedback.add(session, "shop", new, NOW)[1]


def test_a_turn_is_read_with_its_feedback(shop: Database) -> None:
    with shop.begin() as session:
        made = record(session)
        feedback.add(session, "shop", _feedback(made.id, comment="Wrong."), later(1))
        feedback.add(session, "shop", _feedback(made.id, comment="Still wrong."), later(2))
        (turn,) = interactions.turns(session, _conversation(session, made))
    assert [one.comment for one in turn.feedback] == ["Wrong.", "Still wrong."]
