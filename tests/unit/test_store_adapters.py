"""Adapters: which one is live, how it changes, and what that does to lessons."""

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor

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

from store import adapters, audit, lessons, namespaces, prompts, rollouts, runs
from store.adapters import NameTaken, UnknownAdapter
from store.db import Database
from store.rollouts import (
    TRANSITIONS,
    IllegalTransition,
    NothingToRollBack,
    OutdatedAdapter,
    StaleAlias,
)
from store.schema import AdapterStatus, LessonStatus
from store.views import read_view
from tests.support.factories import NOW, add_adapter, add_lesson, go_live, later

_examples = itertools.count()


class Rollout(RuleBasedStateMachine):
    """Random registrations, verdicts, promotions and rollbacks in a namespace of its own."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self.db = db
        self.namespace = f"shop-{next(_examples)}"
        self.held: dict[str, frozenset[str]] = {}
        """Lesson texts of each adapter."""
        self.passed: dict[str, bool | None] = {}
        self.good: list[str] = []
        """Adapters that were live and replaced, the last one last."""
        self.live: str | None = None
        self.over: set[str] = set()
        """Rolled back."""
        with db.begin() as session:
            namespaces.ensure(session, self.namespace, NOW)

    def _texts(self) -> frozenset[str]:
        return self.held[self.live] if self.live else frozenset()

    @rule(number=st.integers(0, 4))
    def add_lesson(self, number: int) -> None:
        with self.db.begin() as session:
            add_lesson(session, f"Lesson {number}", self.namespace)

    @rule(data=st.data())
    def retire_lesson(self, data: st.DataObject) -> None:
        with self.db.begin() as session:
            used = lessons.in_use(session, self.namespace)
            if used:
                lessons.set_status(session, data.draw(st.sampled_from(used)), LessonStatus.RETIRED)

    @rule()
    def register(self) -> None:
        with self.db.begin() as session:
            adapter = add_adapter(session, self.namespace)
            used = lessons.in_use(session, self.namespace)
            self.held[adapter.name] = frozenset(map(lessons.text, used))
            self.passed[adapter.name] = None

    @precondition(lambda self: self.passed)
    @rule(data=st.data(), passed=st.booleans())
    def judge(self, data: st.DataObject, passed: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.passed)))

        def write() -> None:
            with self.db.begin() as session:
                rollouts.judge(session, name, passed, ["So it is."], NOW)

        if self.passed[name] not in (None, passed):
            with pytest.raises(IllegalTransition):
                write()
        else:
            write()
            self.passed[name] = passed

    @precondition(lambda self: self.passed)
    @rule(data=st.data(), knows=st.booleans())
    def promote(self, data: st.DataObject, knows: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.passed)))
        others = [None, *sorted(self.passed)]
        expected = self.live if knows else data.draw(st.sampled_from(others))

        def write() -> None:
            with self.db.begin() as session:
                rollouts.promote(session, name, expected, "Better.", NOW)

        with self.db.read() as session:
            used = {lessons.text(lesson) for lesson in lessons.in_use(session, self.namespace)}
        if name == self.live:
            write()
        elif name in self.over or not self.passed[name]:
            with pytest.raises((IllegalTransition, StaleAlias, OutdatedAdapter)):
                write()
        elif not self.held[name] <= used:
            with pytest.raises(OutdatedAdapter):
                write()
        elif expected != self.live:
            with pytest.raises(StaleAlias):
                write()
        else:
            write()
            self.good = [one for one in self.good if one != name]
            self.good += [self.live] if self.live else []
            self.live = name

    @rule()
    def roll_back(self) -> None:
        with self.db.begin() as session:
            if self.live is None:
                with pytest.raises(NothingToRollBack):
                    rollouts.rollback(session, self.namespace, "operator", "Worse.", NOW)
                return
            before, after = rollouts.rollback(session, self.namespace, "operator", "Worse.", NOW)
        assert before == self.live
        self.over.add(before)
        self.live = self.good.pop() if self.good else None
        assert after == self.live

    @precondition(lambda self: self.passed)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.passed)))
        with self.db.begin() as session:
            rollouts.withdraw(session, name, "Not what was trained.", NOW)
        if name in self.over or self.passed[name] is False:
            return
        if name == self.live:
            self.live = self.good.pop() if self.good else None
        elif name in self.good:
            self.good.remove(name)
        else:
            self.passed[name] = False
            return
        self.over.add(name)

    @invariant()
    def the_alias_and_the_live_status_agree(self) -> None:
        with self.db.read() as session:
            rows = adapters.listing(session, self.namespace)
            live = [row.name for row in rows if row.status is AdapterStatus.LIVE]
            serving = adapters.live(session, self.namespace)
            wanted = {adapter.name for adapter in adapters.required(session)}
            undecided = {adapter.name for adapter in adapters.candidates(session)}
        assert live == ([self.live] if self.live else [])
        assert (serving.name if serving else None) == self.live
        # The last good one is loaded too, or a rollback would have to wait for it.
        ready = {*live, *(self.good[-1:] if self.live else [])}
        assert wanted & self.passed.keys() == ready
        seen = {self.live, *self.good, *self.over}
        rejected = {name for name, passed in self.passed.items() if passed is False}
        assert undecided & self.passed.keys() == self.passed.keys() - seen - rejected

    @invariant()
    def lessons_are_in_the_weights_or_in_the_prompt(self) -> None:
        with self.db.read() as session:
            used = lessons.in_use(session, self.namespace)
            view = read_view(session, self.namespace, 10_000)
        assert view is not None
        texts = {lessons.text(lesson) for lesson in used}
        for lesson in used:
            is_held = lessons.text(lesson) in self._texts()
            assert (lesson.status is LessonStatus.INTERNALISED) == is_held
        assert set(view.context.lessons) == texts - self._texts()
        assert view.live == self.live

    def teardown(self) -> None:
        with self.db.read() as session:
            audit.verify(session)


def test_rollouts_keep_alias_statuses_and_lessons_together(any_db: Database) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Rollout(any_db),
        settings=settings(max_examples=10, stateful_step_count=20),
    )


def test_the_second_of_two_promotions_that_expect_the_same_adapter_fails(shop: Database) -> None:
    with shop.begin() as session:
        first, second = add_adapter(session), add_adapter(session)
        for adapter in (first, second):
            rollouts.judge(session, adapter.name, True, [], NOW)
    with shop.begin() as session:
        rollouts.promote(session, first.name, None, "Better.", NOW)
    with pytest.raises(StaleAlias, match="decide again"), shop.begin() as session:
        rollouts.promote(session, second.name, None, "Better.", NOW)


def test_one_of_many_concurrent_promotions_succeeds(shop: Database) -> None:
    with shop.begin() as session:
        names = [add_adapter(session).name for _ in range(4)]
        for name in names:
            rollouts.judge(session, name, True, [], NOW)

    def promote(name: str) -> str | None:
        with contextlib.suppress(StaleAlias), shop.begin() as session:
            rollouts.promote(session, name, None, "Better.", NOW)
            return name
        return None

    with ThreadPoolExecutor(len(names)) as pool:
        won = [name for name in pool.map(promote, names) if name]
    with shop.read() as session:
        live = [row for row in adapters.listing(session) if row.status is AdapterStatus.LIVE]
        assert [row.name for row in live] == won
        assert len(won) == 1
        assert audit.verify(session) == 1


def test_a_rejected_promotion_changes_nothing(shop: Database) -> None:
    with shop.begin() as session:
        live = go_live(session)
        unjudged = add_adapter(session)
        revision = namespaces.bump_revision(session, "shop")
    with pytest.raises(IllegalTransition, match="not passed"), shop.begin() as session:
        rollouts.promote(session, unjudged.name, live, "Hope.", NOW)
    with shop.begin() as session:
        assert namespaces.bump_revision(session, "shop") == revision + 1
        assert len(rollouts.events(session, "shop", 10)) == 1
        assert audit.verify(session) == 1


@pytest.mark.parametrize("status", [AdapterStatus.REJECTED, AdapterStatus.ROLLED_BACK])
def test_rejected_and_rolled_back_adapters_never_serve_again(
    shop: Database, status: AdapterStatus
) -> None:
    assert TRANSITIONS[status] == ()
    with shop.begin() as session:
        adapter = add_adapter(session)
        rollouts.judge(session, adapter.name, True, [], NOW)
        adapter.status = status
        session.flush()
    with pytest.raises(IllegalTransition, match="cannot become live"), shop.begin() as session:
        rollouts.promote(session, adapter.name, None, "Please.", NOW)


def test_registering_again_changes_nothing_and_another_adapter_cannot_take_the_name(
    shop: Database,
) -> None:
    with shop.begin() as session:
        first = add_adapter(session)
        rollouts.judge(session, first.name, True, ["Good."], NOW)
        values = {
            "name": first.name,
            "run": first.run,
            "parent": None,
            "snapshot": first.snapshot,
            "path": "/elsewhere",
            "measured": {},
            "now": NOW,
        }
        again = adapters.register(
            session, namespace="shop", manifest_sha256=first.manifest_sha256, **values
        )
        assert again.path == first.path
        assert adapters.evaluation(session, first.name).passed
        with pytest.raises(NameTaken):
            adapters.register(session, namespace="shop", manifest_sha256="1" * 64, **values)


def test_a_rejection_is_an_event_with_its_reasons(shop: Database) -> None:
    with shop.begin() as session:
        adapter = add_adapter(session)
        rollouts.judge(session, adapter.name, False, ["Too long.", "Too odd."], NOW)
        (event,) = rollouts.events(session, "shop", 10)
    assert (event.before, event.after) == (AdapterStatus.CANDIDATE, AdapterStatus.REJECTED)
    assert event.reason == "Too long. Too odd."


def test_namespaces_are_promoted_and_rolled_back_independently(shop: Database) -> None:
    with shop.begin() as session:
        mine, theirs = go_live(session, "shop"), go_live(session, "bank")
        assert {adapter.name for adapter in adapters.required(session)} == {mine, theirs}
        assert rollouts.rollback(session, "shop", "operator", "Worse.", NOW) == (mine, None)
        serving = adapters.live(session, "bank")
        assert serving is not None
        assert serving.name == theirs


def test_an_unknown_adapter_is_an_error_that_names_it(shop: Database) -> None:
    with pytest.raises(UnknownAdapter, match="bh-x"), shop.begin() as session:
        rollouts.promote(session, "bh-x", None, "", NOW)
    with pytest.raises(UnknownAdapter, match="bh-x"), shop.begin() as session:
        rollouts.judge(session, "bh-x", True, [], NOW)


def test_an_adapter_of_a_system_prompt_that_is_no_longer_registered_does_not_go_live(
    shop: Database,
) -> None:
    with shop.begin() as session:
        prompts.register_system_prompt(session, "shop", "The first policy.", 4, NOW)
        name = add_adapter(session).name
        rollouts.judge(session, name, True, ["Good."], NOW)
        prompts.register_system_prompt(session, "shop", "The second policy.", 4, NOW)
    with shop.begin() as session, pytest.raises(OutdatedAdapter, match="no longer registered"):
        rollouts.promote(session, name, None, "Better.", NOW)


def test_an_adapter_of_an_earlier_run_does_not_replace_one_of_a_later_run(shop: Database) -> None:
    with shop.begin() as session:
        old, new = add_adapter(session), add_adapter(session)
        runs.get(session, new.run).created_at = later(60)
        for adapter in (old, new):
            rollouts.judge(session, adapter.name, True, ["Good."], NOW)
        rollouts.promote(session, new.name, None, "Better.", NOW)
    with shop.begin() as session, pytest.raises(OutdatedAdapter, match="earlier run"):
        rollouts.promote(session, old.name, new.name, "Late.", NOW)


def test_the_second_of_two_rollbacks_of_the_same_adapter_fails(shop: Database) -> None:
    with shop.begin() as session:
        first, second = go_live(session), go_live(session)
        rollouts.rollback(session, "shop", "operator", "Worse.", NOW, expected=second)
    with shop.begin() as session, pytest.raises(StaleAlias):
        rollouts.rollback(session, "shop", "operator", "Worse.", NOW, expected=second)
    with shop.read() as session:
        assert adapters.live(session, "shop").name == first
