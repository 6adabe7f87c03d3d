"""Retention deletes old rows in batches, except what is still needed."""

import threading
from typing import Any

import pytest
from sqlalchemy import func, select

from agent.jobs.retention import Drop, Find
from store import feedback, interactions, retention, statements
from store.db import Database, Session, insert_if_absent
from store.feedback import NewFeedback
from store.lessons import Support
from store.models import Conversation, Feedback, Interaction, Payload
from store.schema import Trust
from tests.support.factories import (
    NOW,
    add_adapter,
    add_lesson,
    later,
    make_record,
    record,
    user,
)


def count(session: Session, table: type) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


TEXTS = (retention.old_texts, retention.drop_texts)
INTERACTIONS = (retention.old_interactions, retention.drop_interactions)


def drain(db: Database, kind: tuple[Find, Drop], seconds: float) -> list[int]:
    """The sizes of the steps until nothing is left to drop."""
    find, drop = kind
    steps = list[int]()
    while not steps or steps[-1]:
        with db.read() as session:
            ids = find(session, later(seconds))
        with db.begin() as session:
            drop(session, ids)
        steps.append(len(ids))
    return steps


def test_texts_are_deleted_before_interactions(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_SIZE", 4)
    with shop.begin() as session:
        old = [record(session, created_at=later(n)) for n in range(10)]
        new = record(session, created_at=later(100))
    assert drain(shop, TEXTS, 50) == [4, 4, 2, 0]
    with shop.read() as session:
        assert count(session, Interaction) == 11
        assert interactions.payload(session, old[0].id) is None
        assert interactions.payload(session, new.id)
        row = interactions.get(session, old[0].id)
        assert row
        assert interactions.turns(session, row.conversation) == []


def test_interactions_are_deleted_with_their_texts_and_feedback(shop: Database) -> None:
    with shop.begin() as session:
        old = record(session, created_at=later(1), conversation="c")
        record(session, created_at=later(100), conversation="c")
        record(session, created_at=later(2), messages=[user("Alone?")])
        said = NewFeedback(None, old.id, "thumbs", {}, None, None, {}, "customer", Trust.USER)
        feedback.add(session, "shop", said, NOW)
    assert drain(shop, INTERACTIONS, 50) == [2, 0]
    with shop.read() as session:
        left = [count(session, table) for table in (Interaction, Payload, Feedback, Conversation)]
    assert left == [1, 1, 0, 1]


def test_concurrent_feedback_is_deleted_with_its_interaction(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shop.begin() as session:
        made = record(session, created_at=later(1))

    def drop() -> None:
        with shop.begin() as session:
            retention.drop_interactions(session, [made.id])

    dropping = threading.Thread(target=drop)

    def insert_late(*arguments: Any) -> bool:
        dropping.start()
        dropping.join(0.5)
        return insert_if_absent(*arguments)

    monkeypatch.setattr(feedback, "insert_if_absent", insert_late)
    said = NewFeedback(None, made.id, "thumbs", {}, None, None, {}, "customer", Trust.USER)
    with shop.begin() as session:
        assert feedback.add(session, "shop", said, NOW)[1]
    dropping.join(20)
    with shop.read() as session:
        assert [count(session, table) for table in (Interaction, Feedback)] == [0, 0]


def test_interactions_that_support_a_lesson_are_not_deleted(shop: Database) -> None:
    with shop.begin() as session:
        made = make_record(created_at=later(1))
        record(session, id=made.id, created_at=later(1))
        support = Support(made.id, None, "At nine.", "operator", Trust.OPERATOR)
        add_lesson(session, "We open at nine.", support=[support])
    assert drain(shop, INTERACTIONS, 50) == [0]
    assert drain(shop, TEXTS, 50) == [1, 0]


def test_interactions_that_support_a_concurrent_lesson_are_not_deleted(shop: Database) -> None:
    with shop.begin() as session:
        made = record(session, created_at=later(1))
        found = retention.old_interactions(session, later(50))
        support = Support(made.id, None, "At nine.", "operator", Trust.OPERATOR)
        add_lesson(session, "We open at nine.", support=[support])
        retention.drop_interactions(session, found)
        assert count(session, Interaction) == 1


def test_a_relapse_outlives_the_interaction_that_showed_it(shop: Database) -> None:
    with shop.begin() as session:
        made = record(session, created_at=later(1))
        add_lesson(session, "We open at nine.")
        adapter = add_adapter(session)
        (row,) = statements.of(session, adapter)
        row.relapsed_at, row.relapse_cause = NOW, "A customer said so."
        row.relapse_interaction = made.id
    assert drain(shop, INTERACTIONS, 50) == [1, 0]
    with shop.read() as session:
        (row,) = statements.of(session, adapter)
        assert (row.relapsed_at, row.relapse_cause) == (NOW, "A customer said so.")
        assert row.relapse_interaction is None
