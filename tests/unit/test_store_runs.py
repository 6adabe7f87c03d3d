"""Runs: a finished one is immutable, and a killed one starts again."""

import pytest

from store import lessons, namespaces, runs, snapshots
from store.db import Database
from store.runs import TRANSITIONS, IllegalTransition, UnknownRun
from store.schema import RunStatus
from tests.support.factories import NOW, add_lesson, later


@pytest.fixture
def run_id(any_db: Database) -> str:
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        add_lesson(session, "Ship to Norway only.")
        return runs.open_run(session, "shop", {"rank": 8}, "5 new lessons", 100, NOW).id


def test_a_run_learns_the_context_of_the_time_when_it_was_opened(
    any_db: Database, run_id: str
) -> None:
    with any_db.begin() as session:
        add_lesson(session, "Open until 5.")
        run = runs.get(session, run_id)
        assert run is not None
        snapshot = snapshots.get(session, run.snapshot, "shop")
        assert snapshot is not None
        assert snapshots.context_of(snapshot).lessons == ("Ship to Norway only.",)
        assert lessons.count_active(session, "shop") == 2


def test_a_run_goes_from_queued_to_its_end(any_db: Database, run_id: str) -> None:
    with any_db.begin() as session:
        unfinished = runs.unfinished(session, "shop")
        assert unfinished is not None
        assert unfinished.id == run_id
        assert runs.all_unfinished(session) == [unfinished]
        runs.start(session, run_id, later(1))
        runs.progress(session, run_id, {"step": 1, "loss": 0.5})
    with any_db.begin() as session:  # killed, and taken up again
        run = runs.start(session, run_id, later(2))
        runs.progress(session, run_id, {"step": 2})
        assert run.started_at == later(1)
        assert run.progress == {"step": 2, "loss": 0.5}
        runs.finish(session, run_id, RunStatus.PUBLISHED, "Learned.", later(3), adapter="bh-1")
        assert runs.unfinished(session, "shop") is None
        assert runs.all_unfinished(session) == []
        assert [row.adapter for row in runs.listing(session)] == ["bh-1"]
        assert runs.listing(session, "bank") == []


@pytest.mark.parametrize("end", [status for status in RunStatus if not TRANSITIONS[status]])
def test_a_finished_run_is_immutable(any_db: Database, run_id: str, end: RunStatus) -> None:
    with any_db.begin() as session:
        runs.start(session, run_id, NOW)
        runs.finish(session, run_id, end, "Because.", NOW)
        with pytest.raises(IllegalTransition):
            runs.start(session, run_id, NOW)
        with pytest.raises(IllegalTransition):
            runs.progress(session, run_id, {"step": 9})
        with pytest.raises(IllegalTransition):
            runs.cancel(session, run_id, NOW)
        assert runs.listing(session)[0].reason == "Because."


def test_a_queued_run_can_be_cancelled_but_not_published(any_db: Database, run_id: str) -> None:
    with any_db.begin() as session:
        with pytest.raises(IllegalTransition, match="is queued and cannot become published"):
            runs.finish(session, run_id, RunStatus.PUBLISHED, "", NOW)
        assert runs.cancel(session, run_id, NOW).status is RunStatus.CANCELLED


def test_an_unknown_run_is_an_error_that_names_it(any_db: Database) -> None:
    with pytest.raises(UnknownRun, match="run_x"), any_db.begin() as session:
        runs.start(session, "run_x", NOW)
