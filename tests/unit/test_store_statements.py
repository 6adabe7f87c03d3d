"""What an adapter has learned is left out of its prompts, statement by statement."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from store import adapters, lessons, namespaces, prompts, relapses, rollouts, statements
from store.db import Database, Session
from store.rollouts import IllegalTransition, OutdatedAdapter
from store.schema import LessonStatus
from store.views import read_view
from tests.support.factories import (
    NOW,
    add_adapter,
    add_feedback,
    add_lesson,
    go_live,
    later,
    record,
)

_examples = itertools.count()
NORWAY, HOURS, BRIEF = "Ship to Norway only.", "Open until 5.", "Be brief."


def lesson(text: str, learned: bool = True) -> dict[str, Any]:
    return {"text": text, "lesson": True, "spans": [], "support": [], "learned": learned}


def part(text: str, *spans: list[int], learned: bool = True, support: Any = ()) -> dict[str, Any]:
    """A statement of a system prompt."""
    return lesson(text, learned) | {"lesson": False, "spans": spans, "support": list(support)}


def test_an_adapter_has_internalised_the_lessons_that_it_has_learned(shop: Database) -> None:
    with shop.begin() as session:
        measured = [part(BRIEF, [0, 9, 2]), lesson(NORWAY), lesson(HOURS, learned=False)]
        adapter = add_adapter(session, statements=measured)
        assert [row.text for row in statements.of(session, adapter)] == [BRIEF, NORWAY, HOURS]
        assert statements.internalised(session, adapter) == {NORWAY}
        assert statements.internalised(session, None) == frozenset()


def test_an_adapter_without_a_list_of_statements_has_internalised_nothing(shop: Database) -> None:
    with shop.begin() as session:
        adapter = add_adapter(session, statements=[])
        assert statements.internalised(session, adapter) == frozenset()
        assert statements.residual_segments(session, adapter) is None


def test_a_lesson_listed_twice_is_internalised_only_if_both_are_learned(shop: Database) -> None:
    with shop.begin() as session:
        measured = [lesson(NORWAY), lesson(NORWAY, learned=False), part(HOURS, learned=False)]
        adapter = add_adapter(session, statements=[*measured, lesson(HOURS)])
        assert statements.internalised(session, adapter) == {HOURS}


def test_unlearned_parts_of_a_system_prompt_stay_with_their_support(shop: Database) -> None:
    heading, first, second = [0, 7, 2], [8, 20, 4], [21, 30, 3]
    with shop.begin() as session:
        learned = part(NORWAY, first, support=[heading])
        missed = part(HOURS, second, learned=False, support=[heading])
        some = add_adapter(session, statements=[learned, missed, lesson("Be kind.", False)])
        assert statements.residual_segments(session, some) == [second, heading]
        all_of_it = add_adapter(session, statements=[learned])
        assert statements.residual_segments(session, all_of_it) == []


def test_a_statement_whose_place_is_unknown_keeps_the_whole_prompt(shop: Database) -> None:
    with shop.begin() as session:
        measured = [part(NORWAY, [0, 9, 2], learned=False), part(HOURS, learned=False)]
        adapter = add_adapter(session, statements=measured)
        assert statements.residual_segments(session, adapter) is None
        learned = [part(NORWAY, [0, 9, 2], learned=False), part(HOURS)]
        adapter = add_adapter(session, statements=learned)
        assert statements.residual_segments(session, adapter) == [[0, 9, 2]]


def relapse(session: Session, *texts: str) -> list[str]:
    """Record that statements of the live adapter have relapsed; which returned to the prompt."""
    live = adapters.live(session, "shop")
    assert live
    rows = [row for row in statements.of(session, live) if row.text in texts]
    return [row.text for row in relapses.record(session, "shop", rows, "Corrected.", None, NOW)]


def test_a_relapse_is_recorded_with_its_cause_and_returns_the_lesson(shop: Database) -> None:
    with shop.begin() as session:
        norway, hours = add_lesson(session, NORWAY), add_lesson(session, HOURS)
        live = adapters.get_one(session, go_live(session))
        answer = record(session).id
        before = read_view(session, "shop", 100)
        first, _ = statements.of(session, live)
        relapses.record(session, "shop", [first], "A user corrected it.", answer, later(9))
        after = read_view(session, "shop", 100)
        assert (norway.status, hours.status) == (LessonStatus.ACTIVE, LessonStatus.INTERNALISED)
        assert lessons.count_active(session, "shop") == 1
    with shop.read() as session:
        first, second = statements.of(session, live)
        assert (first.relapsed_at, first.relapse_cause) == (later(9), "A user corrected it.")
        assert first.relapse_interaction == answer
        assert second.relapsed_at is None
        assert statements.relapsed_since(session, "shop", later(8)) == {NORWAY}
        assert statements.relapsed_since(session, "shop", later(9)) == frozenset()
        assert statements.relapsed_since(session, "bank", NOW) == frozenset()
    assert before
    assert after
    assert (before.context.lessons, before.saved_tokens) == ((), 20)
    assert (after.context.lessons, after.saved_tokens) == ((NORWAY,), 10)
    assert before.revision < after.revision


def test_only_what_the_live_adapter_has_internalised_can_relapse(shop: Database) -> None:
    with shop.begin() as session:
        add_lesson(session, NORWAY)
        add_lesson(session, HOURS)
        first = adapters.get_one(session, go_live(session))
        go_live(session, missed=[HOURS])
        replaced = statements.of(session, first)
        assert relapses.record(session, "shop", replaced, "Corrected.", None, NOW) == []
        assert relapse(session, NORWAY, HOURS) == [NORWAY]
        assert relapse(session, NORWAY, HOURS) == []
        assert statements.relapse_count(session, "shop", HOURS) == 0
        rollouts.rollback(session, "shop", "operator", "Worse.", NOW)
        assert statements.internalised(session, first) == {NORWAY, HOURS}
        rollouts.rollback(session, "shop", "operator", "Worse.", NOW)
        assert relapses.record(session, "shop", replaced, "Corrected.", None, NOW) == []


def test_a_statement_that_has_relapsed_under_three_adapters_stays_in_the_prompt(
    shop: Database,
) -> None:
    with shop.begin() as session:
        lesson_ = add_lesson(session, NORWAY)
        add_lesson(session, HOURS)
        prompts.register_system_prompt(session, "shop", f"{BRIEF}\nBe kind.", 4, NOW)
        first = adapters.get_one(session, go_live(session))
        for count in range(1, statements.RELAPSE_LIMIT + 1):
            assert lesson_.status is LessonStatus.INTERNALISED
            assert relapse(session, NORWAY, BRIEF) == [BRIEF, NORWAY]
            assert statements.relapse_count(session, "shop", NORWAY) == count
            assert statements.relapse_count(session, "bank", NORWAY) == 0
            name = go_live(session)
        view = read_view(session, "shop", 100)
        assert view
        assert (view.context.system_prompt, view.context.lessons) == (BRIEF, (NORWAY,))
        assert (view.saved_prompt_tokens, view.saved_tokens) == (2, 12)
        assert statements.unlearnable(session, "shop") == {NORWAY, BRIEF}
        assert relapse(session, NORWAY, BRIEF) == []
        again = add_lesson(session, NORWAY)
        assert again.status is lesson_.status is LessonStatus.ACTIVE
        # Nor under an adapter that learned it before.
        assert statements.internalised(session, first) == {HOURS}
        assert adapters.live(session, "shop").name == name


def test_a_rest_with_more_tokens_than_the_whole_saves_no_tokens(shop: Database) -> None:
    with shop.begin() as session:
        prompts.register_system_prompt(session, "shop", f"{BRIEF} {HOURS}", 6, NOW)
        measured = [part(BRIEF, [0, 9, 3]), part(HOURS, [10, 23, 7], learned=False)]
        adapter = add_adapter(session, statements=measured)
        rollouts.judge(session, adapter.name, True, [], NOW)
        rollouts.promote(session, adapter.name, None, "Better.", NOW)
        view = read_view(session, "shop", 100)
    assert view
    assert (view.context.system_prompt, view.saved_tokens) == (HOURS, 0)


LINES = [f"Line {number}." for number in range(4)]
LESSONS = [f"Lesson {number}." for number in range(4)]
LESSON_TOKENS, SMALL_BUDGET = 10, 25

some_statements = st.frozensets(st.sampled_from([*LINES, *LESSONS]), max_size=4)
seldom = st.sampled_from([False, False, False, True])


class KilledError(Exception):
    """The process ends before its transaction does."""


class Knowledge(RuleBasedStateMachine):
    """Random changes of a context, of what serves and of what it knows; some are broken off."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self.db = db
        self.namespace = f"shop-{next(_examples)}"
        self.prompt = ""
        self.lessons: dict[str, str] = {}
        """The texts of the lessons in use, by id."""
        self.trained: dict[str, tuple[str, frozenset[str]]] = {}
        """System prompt and lessons of each adapter."""
        self.learned: dict[str, frozenset[str]] = {}
        self.relapsed: set[tuple[str, str]] = set()
        """Adapters with the texts that have relapsed under them."""
        self.live: str | None = None
        self.good: list[str] = []
        """Adapters that were live and replaced, the last one last."""
        self.over: set[str] = set()
        with db.begin() as session:
            namespaces.ensure(session, self.namespace, NOW)
        self.register_prompt(LINES[:3])
        for text in LESSONS[:3]:
            self.add(text)
        self.train(frozenset({LINES[1], LESSONS[1]}), goes_live=True)

    @contextmanager
    def transaction(self, is_killed: bool) -> Iterator[Session]:
        with suppress(KilledError), self.db.begin() as session:
            yield session
            if is_killed:
                raise KilledError

    def internalised(self, name: str | None) -> set[str]:
        """What is left out under an adapter."""
        relapses_of = dict.fromkeys([*LINES, *LESSONS], 0)
        for _, text in self.relapsed:
            relapses_of[text] += 1
        return {
            text
            for text in self.learned.get(name or "", ())
            if (name, text) not in self.relapsed and relapses_of[text] < statements.RELAPSE_LIMIT
        }

    @rule(text=st.sampled_from(LESSONS))
    def add(self, text: str) -> None:
        with self.db.begin() as session:
            self.lessons[add_lesson(session, text, self.namespace).id] = text

    @precondition(lambda self: self.lessons)
    @rule(data=st.data(), text=st.sampled_from(LESSONS))
    def edit(self, data: st.DataObject, text: str) -> None:
        old = data.draw(st.sampled_from(sorted(self.lessons)))
        with self.db.begin() as session:
            new = lessons.edit(
                session, lessons.get(session, old), text, later(next(_examples)), LESSON_TOKENS
            )
        del self.lessons[old]
        self.lessons[new.id] = text

    @precondition(lambda self: self.lessons)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.lessons)))
        with self.db.begin() as session:
            lessons.set_status(session, lessons.get(session, gone), LessonStatus.RETIRED)
        del self.lessons[gone]

    @rule(lines=st.sampled_from([LINES[:3], LINES[1:], []]))
    def register_prompt(self, lines: list[str]) -> None:
        self.prompt = "\n".join(lines)
        with self.db.begin() as session:
            prompts.register_system_prompt(
                session, self.namespace, self.prompt, 2 * len(lines), NOW
            )

    @rule(missed=some_statements, goes_live=st.booleans())
    def train(self, missed: frozenset[str], goes_live: bool) -> None:
        with self.db.begin() as session:
            name = add_adapter(session, self.namespace, missed=missed).name
            rollouts.judge(session, name, True, ["Good."], NOW)
            if goes_live:
                rollouts.promote(session, name, self.live, "Better.", NOW)
        self.trained[name] = (self.prompt, frozenset(self.lessons.values()))
        held = {*self.prompt.splitlines(), *self.lessons.values()}
        self.learned[name] = frozenset(held - missed)
        if goes_live:
            self._begin(name)

    @precondition(lambda self: self.trained)
    @rule(data=st.data(), is_killed=seldom)
    def promote(self, data: st.DataObject, is_killed: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.trained)))
        prompt, taught = self.trained[name]
        outdated = prompt not in ("", self.prompt) or not taught <= {*self.lessons.values()}
        if name != self.live and (name in self.over or outdated):
            with (
                pytest.raises((IllegalTransition, OutdatedAdapter)),
                self.db.begin() as session,
            ):
                rollouts.promote(session, name, self.live, "Better.", NOW)
            return
        with self.transaction(is_killed) as session:
            rollouts.promote(session, name, self.live, "Better.", NOW)
        if not is_killed and name != self.live:
            self._begin(name)

    @precondition(lambda self: self.live)
    @rule(is_killed=seldom)
    def roll_back(self, is_killed: bool) -> None:
        with self.transaction(is_killed) as session:
            rollouts.rollback(session, self.namespace, "operator", "Worse.", NOW)
        if not is_killed:
            self._end()

    @precondition(lambda self: self.live or self.good)
    @rule(data=st.data(), is_killed=seldom)
    def withdraw(self, data: st.DataObject, is_killed: bool) -> None:
        name = data.draw(st.sampled_from([*self.good, *([self.live] if self.live else [])]))
        with self.transaction(is_killed) as session:
            rollouts.withdraw(session, name, "Not what was trained.", NOW)
        if is_killed:
            return
        if name == self.live:
            self._end()
        else:
            self.good.remove(name)
            self.over.add(name)

    @precondition(lambda self: self.trained)
    @rule(data=st.data(), texts=some_statements, of_another=seldom, is_killed=seldom)
    def relapse(
        self, data: st.DataObject, texts: frozenset[str], of_another: bool, is_killed: bool
    ) -> None:
        some = data.draw(st.sampled_from(sorted(self.trained)))
        name = some if of_another or not self.live else self.live
        with self.transaction(is_killed) as session:
            rows = statements.of(session, adapters.get_one(session, name))
            concerned = [row for row in rows if row.text in texts]
            returned = {
                row.text
                for row in relapses.record(
                    session, self.namespace, concerned, "Corrected.", None, NOW
                )
            }
        expected = texts & self.internalised(name) if name == self.live else set()
        assert returned == expected
        if not is_killed:
            self.relapsed |= {(name, text) for text in expected}

    @precondition(lambda self: self.live)
    @rule(text=st.sampled_from([*LINES, *LESSONS]), by_live=st.booleans(), is_killed=seldom)
    def correct(self, text: str, by_live: bool, is_killed: bool) -> None:
        assert self.live
        version = self.live if by_live else "base"
        with self.transaction(is_killed) as session:
            made = record(session, namespace=self.namespace, version=version, response="Dunno.")
            add_feedback(session, made.id, self.namespace, demonstration=text)
        if by_live and not is_killed and text in self.internalised(self.live):
            self.relapsed.add((self.live, text))

    def _begin(self, name: str) -> None:
        self.good = [one for one in self.good if one != name]
        self.good += [self.live] if self.live else []
        self.live = name

    def _end(self) -> None:
        assert self.live
        self.over.add(self.live)
        self.live = self.good.pop() if self.good else None

    @invariant()
    def each_statement_is_in_the_prompt_or_known_and_never_both_nor_neither(self) -> None:
        with self.db.read() as session:
            self._check_view(session, self.live, None)
            for name in self.good[-1:]:
                self._check_view(session, name, name)

    def _check_view(self, session: Session, name: str | None, version: str | None) -> None:
        inside = self.internalised(name)
        view = read_view(session, self.namespace, 10_000, version)
        assert view
        assert view.live == name
        assert set(view.context.lessons) == {*self.lessons.values()} - inside
        # A prompt that the adapter was not trained on is in its prompts as it is.
        knows_prompt = name and self.trained[name][0] == self.prompt
        lines = self.prompt.splitlines()
        missing = [line for line in lines if not knows_prompt or line not in inside]
        assert (view.context.system_prompt or "") == "\n".join(missing)
        assert view.saved_prompt_tokens == 2 * (len(lines) - len(missing))
        known = [text for text in self.lessons.values() if text in inside]
        assert view.saved_tokens == view.saved_prompt_tokens + LESSON_TOKENS * len(known)

    @invariant()
    def a_lesson_is_internalised_exactly_if_the_live_adapter_knows_it(self) -> None:
        inside = self.internalised(self.live)
        with self.db.read() as session:
            statuses = {each.id: each.status for each in lessons.in_use(session, self.namespace)}
            new = lessons.count_active(session, self.namespace)
            small = read_view(session, self.namespace, SMALL_BUDGET)
        assert small
        assert len(small.context.lessons) == min(new, SMALL_BUDGET // LESSON_TOKENS)
        assert statuses == {
            one: LessonStatus.INTERNALISED if text in inside else LessonStatus.ACTIVE
            for one, text in self.lessons.items()
        }
        assert new == sum(text not in inside for text in self.lessons.values())


def test_no_statement_is_lost_between_the_weights_and_the_prompt(any_db: Database) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Knowledge(any_db),
        settings=settings(max_examples=10, stateful_step_count=25),
    )
