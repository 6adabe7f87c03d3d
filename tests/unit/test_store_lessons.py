"""Lessons, snapshots and views: what is in the prompt, and what is in the weights."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import lessons, namespaces, prompts, rollouts, snapshots
from store.db import Database, Session
from store.lessons import Support
from store.schema import IllegalTransition, LessonStatus, Trust
from store.views import View, read_view
from tests.support.factories import NOW, OPERATOR, add_lesson, go_live, later, record, user

BUDGET = 10_000


def _view(session: Session, budget: int = BUDGET) -> View:
    view = read_view(session, "shop", budget)
    assert view is not None
    return view


def test_internalised_text_leaves_the_prompt_and_returns_on_rollback(shop: Database) -> None:
    with shop.begin() as session:
        prompts.register_system_prompt(session, "shop", "Be brief.", 3, NOW)
        add_lesson(session, "Ship to Norway only.", tokens=7)
        before = _view(session)
        name = go_live(session)
        add_lesson(session, "Open until 5.", tokens=4)
        after = _view(session)
        rollouts.rollback(session, "shop", "operator", "Worse.", NOW)
        back = _view(session)
    assert before.context.system_prompt == "Be brief."
    assert before.context.lessons == ("Ship to Norway only.",)
    assert (before.live, before.saved_tokens) == (None, 0)
    assert after.context.system_prompt is None
    assert after.context.lessons == ("Open until 5.",)
    assert (after.live, after.saved_tokens, after.registered) == (name, 10, "Be brief.")
    assert back.context.system_prompt == "Be brief."
    assert back.context.lessons == ("Ship to Norway only.", "Open until 5.")
    assert (back.live, back.saved_tokens) == (None, 0)
    assert before.revision < after.revision < back.revision


def test_a_new_system_prompt_is_in_the_prompt_until_it_is_internalised(shop: Database) -> None:
    with shop.begin() as session:
        old = prompts.register_system_prompt(session, "shop", "Be brief.", 3, NOW)
        go_live(session)
        same = prompts.register_system_prompt(session, "shop", "Be brief.", 3, later(1))
        assert same.id == old.id
        prompts.register_system_prompt(session, "shop", "Be polite.", 3, later(2))
        assert _view(session).context.system_prompt == "Be polite."
        go_live(session)
        assert _view(session).context.system_prompt is None


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 20), st.booleans(), st.sampled_from(list(Trust))), max_size=8
    ),
    budget=st.integers(0, 60),
)
def test_the_token_budget_goes_to_pinned_lessons_then_the_newest_without_reordering(
    db: Database, sizes: list[tuple[int, bool, Trust]], budget: int
) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        for lesson in lessons.listing(session, "shop", lessons.IN_USE):
            lessons.set_status(session, lesson, LessonStatus.RETIRED)
        added = [
            add_lesson(session, f"Lesson {n}", tokens=tokens, pinned=pinned, trust=trust)
            for n, (tokens, pinned, trust) in enumerate(sizes)
        ]
        in_prompt = _view(session, budget).context.lessons
    used = 0
    expected = set()
    for lesson in sorted(
        added, key=lambda lesson: (lesson.pinned, lesson.created_at), reverse=True
    ):
        if used + lesson.tokens <= budget:
            used += lesson.tokens
            expected.add(lesson.do)
    ordered = sorted(
        added, key=lambda lesson: (not lesson.pinned, lesson.trust.rank, lesson.created_at)
    )
    assert list(in_prompt) == [lesson.do for lesson in ordered if lesson.do in expected]
    assert used <= budget


def test_a_new_lesson_is_in_the_next_prompt_even_if_the_budget_was_full(db: Database) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        for number in range(4):
            add_lesson(session, f"Lesson {number}.", tokens=10)
        assert _view(session, 30).context.lessons == ("Lesson 1.", "Lesson 2.", "Lesson 3.")
        add_lesson(session, "Open until 5.", tokens=10)
        in_prompt = _view(session, 30).context.lessons
    assert in_prompt == ("Lesson 2.", "Lesson 3.", "Open until 5.")


def test_only_active_lessons_of_the_namespace_are_in_the_prompt(shop: Database) -> None:
    with shop.begin() as session:
        add_lesson(session, "Candidate.", status=LessonStatus.CANDIDATE)
        add_lesson(session, "Quarantined.", status=LessonStatus.QUARANTINED)
        add_lesson(session, "Elsewhere.", namespace="bank")
        add_lesson(session, "reply in Dutch", when="asked in Dutch")
        assert _view(session).context.lessons == ("When asked in Dutch: reply in Dutch",)
        assert read_view(session, "nowhere", BUDGET) is None


def test_a_snapshot_never_changes(shop: Database) -> None:
    with shop.begin() as session:
        lesson = add_lesson(session, "Ship to Norway only.")
        taken = snapshots.take(session, "shop", BUDGET, NOW)
        rendered = list(taken.lessons)
        assert snapshots.take(session, "shop", BUDGET, later(9)).created_at == NOW
        lessons.edit(session, lesson, "Ship to Sweden only.", later(10), 6)
        second = snapshots.take(session, "shop", BUDGET, later(11))
        session.expire_all()
        again = snapshots.get(session, taken.hash, "shop")
        assert again is not None
        assert (again.lessons, again.created_at) == (rendered, NOW)
        assert second.hash != taken.hash
        assert snapshots.context_of(again).hash == taken.hash
        assert snapshots.get(session, taken.hash, "bank") is None


def test_a_snapshot_holds_what_is_in_the_prompt_and_what_is_in_the_weights(shop: Database) -> None:
    with shop.begin() as session:
        add_lesson(session, "Ship to Norway only.")
        go_live(session)
        add_lesson(session, "Open until 5.")
        taken = snapshots.take(session, "shop", BUDGET, NOW)
    assert [lesson["text"] for lesson in taken.lessons] == ["Ship to Norway only.", "Open until 5."]


def test_an_edit_replaces_the_internalised_wording(shop: Database) -> None:
    with shop.begin() as session:
        lesson = add_lesson(session, "Ship to Norway only.")
        go_live(session)
        assert lesson.status is LessonStatus.INTERNALISED
        new = lessons.edit(session, lesson, "Ship to Sweden only.", later(9), 6)
        assert (lesson.status, new.status) == (LessonStatus.RETIRED, LessonStatus.ACTIVE)
        assert (new.supersedes, new.trust) == (lesson.id, Trust.OPERATOR)
        assert lessons.principals(session, new) == {"operator"}
        assert _view(session).context.lessons == ("Ship to Sweden only.",)


def test_a_lesson_with_internalised_text_is_not_put_into_the_prompt(shop: Database) -> None:
    with shop.begin() as session:
        lesson = add_lesson(session, "Ship to Norway only.")
        go_live(session)
        lessons.set_status(session, lesson, LessonStatus.QUARANTINED)
        lessons.set_status(session, lesson, LessonStatus.ACTIVE)
        again = add_lesson(session, "Ship to Norway only.")
        assert lesson.status is again.status is LessonStatus.INTERNALISED
        assert lessons.count_active(session, "shop") == 0


def test_only_the_listed_status_changes_are_legal(db: Database) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        for before, legal in lessons.TRANSITIONS.items():
            for after in LessonStatus:
                lesson = add_lesson(session, f"{before} to {after}")
                lesson.status = before
                session.flush()
                if after in legal:
                    lessons.set_status(session, lesson, after)
                    assert lesson.status is after
                else:
                    with pytest.raises(IllegalTransition, match="cannot become"):
                        lessons.set_status(session, lesson, after)


def test_the_same_support_counts_once(shop: Database) -> None:
    with shop.begin() as session:
        interaction = record(session)
        lesson = add_lesson(session, "Ship to Norway only.")
        second = Support(interaction.id, None, "only Norway", "customer", Trust.USER)
        assert lessons.add_support(session, lesson, second)
        assert not lessons.add_support(session, lesson, second)
        assert not lessons.add_support(session, lesson, OPERATOR)
        assert [row.position for row in lessons.supports(session, lesson)] == [0, 1]
        assert lessons.principals(session, lesson) == {"operator", "customer"}


def test_a_caller_with_named_users_is_not_counted_as_another_user(shop: Database) -> None:
    with shop.begin() as session:
        support = Support(None, None, "said", "app", Trust.USER)
        lesson = add_lesson(session, "Ship to Norway only.", support=[support])
        assert lessons.principals(session, lesson) == {"app"}
        named = Support(record(session).id, None, "said", "app/ann", Trust.USER)
        lessons.add_support(session, lesson, named)
        assert lessons.principals(session, lesson) == {"app/ann"}


KNOWN = "Refunds are possible within 14 days."


@pytest.mark.parametrize(
    "statement",
    [
        "refunds are possible within 14 days",
        "A refund is possible within 14 days.",
        "Within 14 days, refunds are possible.",
    ],
)
def test_the_same_words_in_another_order_or_inflection_are_a_duplicate(
    shop: Database, statement: str
) -> None:
    with shop.begin() as session:
        known = add_lesson(session, KNOWN)
        add_lesson(session, "Parcels are sent on Mondays.")
        found = lessons.find_duplicate(session, "shop", statement, 0.8)
        assert found is not None
        assert found.id == known.id
        assert lessons.find_duplicate(session, "bank", statement, 0.8) is None


@pytest.mark.parametrize(
    "statement",
    [
        "Refunds are possible within 30 days.",
        "Refunds are possible within 1.4 days.",
        "Refunds are not possible within 14 days.",
        "Returns are possible within 14 days.",
        "Refunds are possible within 14 hours.",
        "Refunds in dollars are possible within 14 days.",
        "Shoes are red.",
    ],
)
def test_another_number_negation_or_content_word_is_another_lesson(
    shop: Database, statement: str
) -> None:
    with shop.begin() as session:
        add_lesson(session, KNOWN)
        assert lessons.find_duplicate(session, "shop", statement, 0.5) is None


@pytest.mark.parametrize(
    ("known", "statement"),
    [
        ("We are closed on Tuesday.", "We are closed on Thursday."),
        ("Ask Mark about it.", "Ask Mary about it."),
        ("Tickets are refundable.", "Tickets are nonrefundable."),
        ("A small costs 5 and a large 8.", "A small costs 8 and a large 5."),
        ("Trains run from Paris to Rome.", "Trains run from Rome to Paris."),
        ("A lamp costs $9.", "A lamp costs \u00a39."),
    ],
)
def test_two_statements_that_contradict_each_other_are_two_lessons(
    shop: Database, known: str, statement: str
) -> None:
    with shop.begin() as session:
        add_lesson(session, known)
        assert lessons.find_duplicate(session, "shop", statement, 0.5) is None


def test_a_retired_lesson_is_not_a_duplicate(shop: Database) -> None:
    with shop.begin() as session:
        lesson = add_lesson(session, KNOWN)
        lessons.set_status(session, lesson, LessonStatus.RETIRED)
        assert lessons.find_duplicate(session, "shop", KNOWN, 0.9) is None


def test_seeds_and_anchors_are_replaced_and_keep_their_order(shop: Database) -> None:
    with shop.begin() as session:
        prompts.replace_seeds(session, "shop", [[user("a")]])
        prompts.replace_seeds(session, "shop", [[user("c")], [user("b")]])
        prompts.replace_seeds(session, "bank", [[user("d")]])
        prompts.replace_anchors(session, "shop", [([user("x")], {"contains": ["y"]})])
        assert [seed.messages for seed in prompts.seeds(session, "shop")] == [
            [user("c")],
            [user("b")],
        ]
        (anchor,) = prompts.anchors(session, "shop")
        assert (anchor.messages, anchor.expect) == ([user("x")], {"contains": ["y"]})
