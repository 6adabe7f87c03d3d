"""Conversations: which are unread, and which are due for extraction."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import event, text

from store import conversations, feedback, jobs, records
from store.db import Database, Session
from store.feedback import NewFeedback
from store.models import Conversation, Interaction
from store.schema import Trust
from tests.support.factories import later, make_record, record

LONG_AFTER = later(10_000_000)
RETRY_S = 600


def conversation_of(session: Session, interaction: str) -> str:
    return session.get_one(Interaction, interaction).conversation


def say_something(session: Session, at: float, **values: Any) -> str:
    """A turn of conversation "c"; the conversation's key."""
    made = record(session, **{"conversation": "c", "created_at": later(at)} | values)
    return conversation_of(session, made.id)


def give_feedback(session: Session, target: str, at: float, **values: Any) -> None:
    said = {"id": None, "name": "thumbs", "value": {}, "comment": None, "demonstration": None}
    origin = {"tags": {}, "principal": "local", "trust": Trust.OPERATOR}
    new = NewFeedback(target_id=target, **{**said, **origin, **values})
    feedback.add(session, "shop", new, later(at))


def unread(session: Session, idle_before: datetime = LONG_AFTER) -> list[str]:
    return [one.id for one in conversations.unread(session, idle_before, 100)]


def due(session: Session, at: float) -> list[str]:
    retry_before = later(at - RETRY_S)
    return [one.id for one in conversations.due(session, later(at), retry_before, 100)]


def read(session: Session, conversation: str) -> None:
    conversations.mark_read(
        session, conversation, conversations.count_entries(session, conversation)
    )


def test_a_conversation_is_unread_from_its_second_entry(shop: Database) -> None:
    with shop.begin() as session:
        two_turns = say_something(session, 0)
        assert unread(session) == []
        say_something(session, 1)
        assert unread(session) == [two_turns]
        judged = record(session, conversation="d", created_at=later(2))
        give_feedback(session, judged.id, 3)
        assert unread(session) == [two_turns, conversation_of(session, judged.id)]


@pytest.mark.parametrize("new", ["turn", "feedback"])
def test_after_an_extraction_one_more_entry_makes_a_conversation_unread(
    shop: Database, new: str
) -> None:
    with shop.begin() as session:
        first = record(session, conversation="c", created_at=later(0))
        conversation = say_something(session, 1)
        read(session, conversation)
        assert unread(session) == []
        if new == "turn":
            say_something(session, 2)
        else:
            give_feedback(session, first.id, 2)
        assert unread(session) == [conversation]


def test_a_turn_recorded_after_an_extraction_is_unread_though_it_started_before(
    shop: Database,
) -> None:
    with shop.begin() as session:
        say_something(session, 10)
        conversation = say_something(session, 11)
        read(session, conversation)
        say_something(session, 5)
        assert unread(session) == [conversation]
        assert session.get_one(Conversation, conversation).last_at == later(11)


def test_entries_during_an_extraction_stay_unread(shop: Database) -> None:
    with shop.begin() as session:
        say_something(session, 0)
        conversation = say_something(session, 1)
        count = conversations.count_entries(session, conversation)
        say_something(session, 2)
        conversations.mark_read(session, conversation, count)
        assert unread(session) == [conversation]


def test_a_conversation_is_unread_only_once_it_is_idle(shop: Database) -> None:
    with shop.begin() as session:
        first = record(session, conversation="c", created_at=later(0))
        conversation = say_something(session, 10)
        assert unread(session, later(9)) == []
        assert unread(session, later(10)) == [conversation]
        give_feedback(session, first.id, 20)
        assert unread(session, later(19)) == []


def test_interactions_excluded_from_learning_are_never_unread(shop: Database) -> None:
    with shop.begin() as session:
        made = record(session, conversation="c", learn=False)
        record(session, conversation="c", learn=False)
        give_feedback(session, made.id, 1)
        assert unread(session) == []


def test_a_record_and_feedback_that_arrive_twice_are_counted_once_each(shop: Database) -> None:
    made = make_record()
    with shop.begin() as session:
        for _ in range(2):
            records.save(session.connection(), [made])
            give_feedback(session, made.id, 1, id="f1")
        assert conversations.count_entries(session, conversation_of(session, made.id)) == 2


def enqueue(session: Session, conversation: str, at: float) -> None:
    key = conversations.job_key(conversation)
    assert jobs.enqueue(session, "extract", {}, later(at), unique_key=key, max_attempts=1)


def end_job(session: Session, at: float, error: str | None) -> None:
    claim = jobs.claim(session, ["extract"], later(at), 30)
    assert claim
    if error:
        jobs.fail(session, claim, error, later(at), None)
    else:
        jobs.finish(session, claim, later(at))


def test_a_conversation_with_an_unfinished_job_is_not_due(shop: Database) -> None:
    with shop.begin() as session:
        say_something(session, 0)
        conversation = say_something(session, 1)
        assert due(session, 2) == [conversation]
        enqueue(session, conversation, 2)
        assert due(session, 3) == []
        say_something(session, 4)
        end_job(session, 5, error=None)
        assert due(session, 6) == [conversation]


def test_a_failed_job_is_repeated_after_activity_or_the_retry_time(
    shop: Database,
) -> None:
    with shop.begin() as session:
        say_something(session, 0)
        conversation = say_something(session, 1)
        enqueue(session, conversation, 2)
        end_job(session, 3, error="no engine")
        assert due(session, 4) == []
        assert due(session, 4 + RETRY_S) == [conversation]
        say_something(session, 5)
        assert due(session, 6) == [conversation]


def test_the_query_for_due_conversations_uses_the_index_of_unread_ones(shop: Database) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    with shop.begin() as session:
        event.listen(shop.engine, "before_cursor_execute", note)
        due(session, 1)
        event.remove(shop.engine, "before_cursor_execute", note)
        statement, values = asked[-1]
        is_sqlite = shop.engine.dialect.name == "sqlite"
        if not is_sqlite:
            session.execute(text("SET LOCAL enable_seqscan = off"))  # the tables are empty
        explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
        plan = session.connection().exec_driver_sql(f"{explain} {statement}", values)
        lines = " ".join(str(row) for row in plan)
    assert "ix_conversations_unread" in lines
    assert "ix_jobs_unique_key" in lines or "uq_jobs_unfinished" in lines
