"""Feedback on an answer of the live adapter returns what it did not know to the prompt."""

from typing import Any

import pytest

from store import adapters, feedback, interactions, lessons, prompts, rollouts, statements
from store.adapter_tables import Run
from store.db import Database, Session
from store.feedback import NewFeedback
from store.schema import InteractionStatus, LessonStatus, Trust
from store.views import read_view
from tests.support.factories import (
    NOW,
    add_adapter,
    add_feedback,
    add_lesson,
    go_live,
    measured_statements,
    record,
    user,
)

RETURNS, TEAM = "Returns are accepted within 45 days.", "The Team plan costs 31 euros."
ASKED, WRONG = "How long can I return a lamp?", "Within 30 days."


def answered(session: Session, version: str, **values: Any) -> str:
    """A wrong answer; its interaction."""
    texts = {"messages": [user(ASKED)], "response": WRONG} | values
    return record(session, version=version, **texts).id


def in_prompt(session: Session) -> set[str]:
    view = read_view(session, "shop", 1000)
    assert view
    return {*view.context.lessons, *(view.context.system_prompt or "").splitlines()}


@pytest.fixture
def live(shop: Database) -> str:
    """An adapter that has internalised two lessons and a line of the system prompt."""
    with shop.begin() as session:
        prompts.register_system_prompt(session, "shop", "Be brief.", 2, NOW)
        add_lesson(session, RETURNS)
        add_lesson(session, TEAM)
        return go_live(session)


@pytest.mark.parametrize(
    "given",
    [
        {"demonstration": RETURNS},
        {"comment": "No, it is 45 days."},
        {"demonstration": RETURNS, "trust": Trust.USER, "principal": "support-bot/ann"},
        {"name": "thumbs", "value": {"value": False}, "comment": "forty-five days"},
    ],
)
def test_a_correction_of_any_trust_returns_what_it_concerns(
    shop: Database, live: str, given: dict[str, Any]
) -> None:
    with shop.begin() as session:
        target = answered(session, live)
        assert in_prompt(session) == set()
        add_feedback(session, target, **given)
        assert in_prompt(session) == {RETURNS}
    with shop.read() as session:
        [row] = [
            row for row in statements.of(session, adapters.live(session, "shop")) if row.relapsed_at
        ]
        principal = given.get("principal", "local")
        assert (row.text, row.relapsed_at, row.relapse_interaction) == (RETURNS, NOW, target)
        assert row.relapse_cause == f"{principal} corrected the answer."
        active = lessons.listing(session, "shop", [LessonStatus.ACTIVE])
        assert [lesson.do for lesson in active] == [RETURNS]


def test_a_line_of_the_system_prompt_relapses_like_a_lesson(shop: Database) -> None:
    with shop.begin() as session:
        prompts.register_system_prompt(session, "shop", f"Be brief.\n{TEAM}", 7, NOW)
        target = answered(session, go_live(session))
        add_feedback(session, target, comment="The Team plan costs 31 euros!")
        assert in_prompt(session) == {TEAM}


def test_feedback_on_another_versions_answer_records_nothing(shop: Database, live: str) -> None:
    with shop.begin() as session:
        for version in ("base", "none", "bh_other"):
            add_feedback(session, answered(session, version), demonstration=RETURNS)
        add_feedback(
            session,
            answered(session, live, status=InteractionStatus.FAILED, response=""),
            demonstration=RETURNS,
        )
        old = answered(session, live)
        newer = go_live(session)
        add_feedback(session, old, demonstration=RETURNS)
        assert in_prompt(session) == set()
        rollouts.rollback(session, "shop", "operator", "Worse.", NOW)
        add_feedback(session, answered(session, newer), demonstration=RETURNS)
        assert in_prompt(session) == set()


def test_praise_chat_and_news_return_nothing(shop: Database, live: str) -> None:
    with shop.begin() as session:
        target = answered(session, live)
        revision = read_view(session, "shop", 1000).revision
        add_feedback(session, target, name="thumbs", value={"value": True}, demonstration=RETURNS)
        add_feedback(session, target, comment="What a nice shop!")
        add_feedback(session, target, comment="No, it is 60 days.")
        add_feedback(session, target, name="note", value={"value": False})
        assert in_prompt(session) == set()
        assert read_view(session, "shop", 1000).revision == revision


def test_the_same_feedback_twice_is_one_relapse(shop: Database, live: str) -> None:
    with shop.begin() as session:
        target = answered(session, live)
        new = NewFeedback(
            "f1", target, "demonstration", {}, None, RETURNS, {}, "local", Trust.OPERATOR
        )
        assert feedback.add(session, "shop", new, NOW)[1]
        second = go_live(session)
        assert in_prompt(session) == set()
        assert not feedback.add(session, "shop", new, NOW)[1]
        assert in_prompt(session) == set()
        assert statements.relapse_count(session, "shop", RETURNS) == 1
        assert second == adapters.live(session, "shop").name


def test_a_bad_rating_returns_what_the_question_was_measured_with(shop: Database) -> None:
    with shop.begin() as session:
        add_lesson(session, RETURNS)
        add_lesson(session, TEAM)
        draft = add_adapter(session)
        run = session.get_one(Run, draft.run)
        measured = measured_statements(session, run)
        measured[0]["questions"] = [{"prompt": "How long can I return lamps?", "teacher": RETURNS}]
        name = add_adapter(session, statements=measured).name
        rollouts.judge(session, name, True, ["Good."], NOW)
        rollouts.promote(session, name, None, "Better.", NOW)
        right = answered(session, name, response="45 days.")
        add_feedback(session, right, name="thumbs", value={"value": False})
        assert in_prompt(session) == set()
        wrong = answered(session, name)
        add_feedback(session, wrong, name="thumbs", value={"value": False})
        assert in_prompt(session) == {RETURNS}
        [row] = [
            row for row in statements.of(session, adapters.live(session, "shop")) if row.relapsed_at
        ]
        assert row.relapse_cause == "local rated the answer as bad."


def test_a_correction_of_an_answer_whose_texts_are_deleted_still_counts(
    shop: Database, live: str
) -> None:
    with shop.begin() as session:
        target = answered(session, live)
        session.delete(interactions.payload(session, target))
        session.flush()
        add_feedback(session, target, demonstration=RETURNS)
        assert in_prompt(session) == {RETURNS}
