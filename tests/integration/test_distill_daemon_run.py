"""A run from its row to its recorded end, on the tiny model."""

import errno
import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import Settings, load
from distill import commands, daemon_run
from distill.commands import DONE, FAILED
from distill.evaluate.preflight import NothingToLearn
from distill.inputs import BAD_INPUT
from distill.model.base import ModelError
from distill.run import folders
from distill.run.checkpoint import DATA, INPUTS, LATEST, METRICS, Checkpoints, freeze_inputs
from distill.settings import TrainerSettings
from store import adapters, interactions, jobs, namespaces, prompts, rollouts, runs
from store.adapter_tables import Run
from store.db import Database
from store.manifests import verify_files
from store.schema import AdapterStatus, RunStatus
from tests.support.factories import (
    NOW,
    add_feedback,
    add_lesson,
    go_live,
    later,
    record,
    user,
)
from tests.support.tiny import save_tiny_model

DISTILL = TrainerSettings(
    steps=2,
    batch_size=2,
    rank=4,
    max_completion_tokens=6,
    max_answer_tokens=6,
    questions_per_lesson=1,
    checkpoint_every=1,
    threads=1,
    statement_tolerance=1000,
)

TRAINED = "d"
"""A conversation that is not held out."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> Settings:
    overrides = {"store": {"data_dir": tmp_path}, "engine": {"model": str(model)}}
    return load(environ={}, overrides=overrides)


@pytest.fixture
def run(db: Database) -> str:
    """A queued run that is to learn one lesson."""
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        add_lesson(session, "Refunds take 3 days.")
        record(session, messages=[user("How long do refunds take?")])
        settings = DISTILL.model_dump(mode="json")
        return runs.open_run(session, "shop", settings, "a test", 100, later(10_000)).id


def end_of(db: Database, run: str) -> tuple[RunStatus, str]:
    with db.read() as session:
        row = runs.get(session, run)
        assert row
        return row.status, row.reason


def train_and_promote(db: Database, settings: Settings, run: str) -> str:
    """Do the run and let its adapter serve; the adapter's name."""
    daemon_run.run(run, settings, db)
    with db.begin() as session:
        name = runs.get(session, run).adapter
        rollouts.judge(session, name, True, ["Good."], NOW)
        rollouts.promote(session, name, None, "Better.", NOW)
    return name


def test_a_run_that_succeeds_leaves_a_verified_candidate_and_one_rollout_job(db, settings, run):
    daemon_run.run(run, settings, db)

    with db.read() as session:
        row = runs.get(session, run)
        adapter = adapters.get_one(session, row.adapter)
        assert (row.status, adapter.status) == (RunStatus.PUBLISHED, AdapterStatus.CANDIDATE)
        assert row.progress["stage"].startswith("measure")
        assert row.progress[runs.TRAINED] == DISTILL.steps
        assert (adapter.namespace, adapter.run, adapter.snapshot) == ("shop", run, row.snapshot)
        folder = adapters.folder(adapter, settings.data_dir)
        verify_files(folder, adapter.manifest_sha256)
        [job] = jobs.listing(session, 10)
    assert (job.kind, job.payload) == ("rollout", {"adapter": adapter.name})
    assert adapter.path == f"adapters/shop/{adapter.name}"


def test_a_run_stored_with_the_old_name_of_a_setting_still_loads(db, settings, run):
    with db.begin() as session:
        row = runs.get(session, run)
        stored = dict(row.settings)
        stored["teacher_share"] = stored.pop("teacher_share") / 2
        row.settings = stored

    with db.read() as session:
        spec, _ = daemon_run.read_spec(session, runs.get(session, run), settings)

    assert spec.settings.teacher_share == DISTILL.teacher_share / 2


def test_a_killed_run_resumes_with_the_inputs_of_its_first_start(db, settings, run, monkeypatch):
    specs = []

    def killed(spec, _):
        specs.append(spec)
        raise KeyboardInterrupt

    monkeypatch.setattr(daemon_run.train, "run", killed)
    for text in ("Do lamps burn?", "Where are you?"):
        anchor = ([user(text)], {"contains": text})
        with db.begin() as session:
            prompts.replace_seeds(session, "shop", [[user(text)]])
            prompts.replace_anchors(session, "shop", [anchor])
        with pytest.raises(KeyboardInterrupt):
            daemon_run.run(run, settings, db)

    assert specs[0] == specs[1]
    assert ({"role": "user", "content": "Do lamps burn?"},) in specs[1].prompts
    assert specs[1].anchors[0].expect == {"contains": "Do lamps burn?"}


def test_a_run_whose_context_improves_no_anchor_ends_as_nothing_to_learn(db, settings, run):
    anchor = ([user("Hi")], {"contains": ["no tiny model says this"]})
    with db.begin() as session:
        prompts.replace_anchors(session, "shop", [anchor])

    with pytest.raises(NothingToLearn):
        daemon_run.run(run, settings, db)

    status, reason = end_of(db, run)
    assert status is RunStatus.NOTHING_TO_LEARN
    assert "0 of 1 anchors" in reason


def test_a_run_that_fails_records_its_reason_and_registers_nothing(db, settings, run, tmp_path):
    broken = settings.model_copy(
        update={"engine": settings.engine.model_copy(update={"model": str(tmp_path / "gone")})}
    )

    with pytest.raises(ModelError):
        daemon_run.run(run, broken, db)

    status, reason = end_of(db, run)
    assert status is RunStatus.FAILED
    assert reason.startswith("ModelError: ")
    assert str(tmp_path / "gone") in reason
    with db.read() as session:
        assert (adapters.listing(session), jobs.listing(session, 10)) == ([], [])


def distil(settings: Settings, run: str) -> int:
    """The exit code of `python -m distill run`."""
    config = settings.data_dir / "byheart.toml"
    config.write_text(
        f'[store]\ndata_dir = "{settings.data_dir}"\n[engine]\nmodel = "{settings.engine.model}"\n'
    )
    return commands.run_command(Namespace(command="run", id=run, config=config))


def kept_of(settings: Settings, run: str) -> set[str]:
    return {path.name for path in (settings.data_dir / "runs" / run).glob("*.*")}


@pytest.mark.parametrize("name", [DATA, LATEST])
def test_a_run_stopped_by_a_full_disk_keeps_its_checkpoints_and_resumes(
    db, settings, run, monkeypatch, capsys, name
):
    save = Checkpoints.save

    def full(self, what, state):
        if what == name:
            raise OSError(errno.ENOSPC, "No space left on device", what)
        save(self, what, state)

    with monkeypatch.context() as filled:
        filled.setattr(Checkpoints, "save", full)
        assert distil(settings, run) == FAILED
    assert "repeat the command to resume the run" in capsys.readouterr().err
    assert end_of(db, run)[0] is RunStatus.RUNNING
    assert kept_of(settings, run) >= ({INPUTS} if name == DATA else {INPUTS, DATA})

    assert distil(settings, run) == DONE
    assert end_of(db, run)[0] is RunStatus.PUBLISHED


def test_a_second_process_of_a_run_ends_without_disturbing_the_first(db, settings, run, capsys):
    with db.begin() as session:
        runs.start(session, run, NOW)
    work = settings.data_dir / "runs" / run
    work.mkdir(parents=True)
    (work / DATA).touch()

    with folders.lock_folder(work):
        assert distil(settings, run) == BAD_INPUT

    assert "Another process is using" in capsys.readouterr().err
    assert end_of(db, run)[0] is RunStatus.RUNNING
    assert kept_of(settings, run) >= {DATA}


def test_a_finished_run_is_not_run_again(db, settings, run):
    with db.begin() as session:
        runs.cancel(session, run, NOW)

    with pytest.raises(runs.IllegalTransition):
        daemon_run.run(run, settings, db)

    assert end_of(db, run)[0] is RunStatus.CANCELLED


def test_checkpoints_are_removed_once_their_run_has_finished_and_not_before(db, run, tmp_path):
    with db.begin() as session:
        other = runs.open_run(session, "shop", {}, "a test", 100, NOW).id
        runs.cancel(session, other, NOW)
    for folder in (run, other, "run_unknown"):
        for name in (DATA, LATEST, INPUTS, METRICS):
            (tmp_path / "runs" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "runs" / folder / name).touch()

    daemon_run.clear_finished(db, tmp_path / "runs")

    left = {
        folder.name: {path.name for path in folder.iterdir()}
        for folder in (tmp_path / "runs").iterdir()
    }
    everything = {DATA, LATEST, INPUTS, METRICS}
    assert left == {run: everything, other: {METRICS}, "run_unknown": everything}


def test_a_run_from_its_parent_starts_from_the_live_adapter_if_it_has_its_rank(
    db, settings, run, tmp_path
):
    live = train_and_promote(db, settings, run)

    def parent(**changes):
        return daemon_run.parent_adapter(
            session, "shop", DISTILL.model_copy(update=changes), tmp_path
        )

    with db.read() as session:
        assert parent() is None
        started = parent(generation="from_parent")
        assert started.folder.name == live
        assert started.context.lessons == ("Refunds take 3 days.",)
        assert parent(generation="from_parent", rank=8) is None


def test_a_run_finds_its_parent_after_the_data_folder_was_moved(db, settings, run, tmp_path):
    live = train_and_promote(db, settings, run)
    with db.begin() as session:
        add_lesson(session, "Lamps cost 15 euros.")
        chosen = DISTILL.model_copy(update={"generation": "from_parent"}).model_dump(mode="json")
        second = runs.open_run(session, "shop", chosen, "a test", 100, later(10_001)).id
    with db.read() as session:
        spec, _ = daemon_run.read_spec(session, runs.get(session, second), settings)
    freeze_inputs(spec, writes=True)
    there = tmp_path / "moved"
    there.mkdir()
    (tmp_path / "runs").rename(there / "runs")

    moved = replace(spec, out=there / "adapters" / "shop", work=there / "runs" / second)
    resumed = freeze_inputs(moved, writes=True)

    assert resumed.parent.folder == there / "adapters" / "shop" / live


def relapse(db: Database, live: str, asked: str, answer: str, **values) -> None:
    """A wrong answer of an adapter, and its correction."""
    with db.begin() as session:
        texts = {"messages": [user(asked)], "response": answer}
        made = record(session, version=live, **texts | values)
        add_feedback(session, made.id, comment="No, 3 days.", at=later(20_000))


def open_second(db: Database) -> str:
    with db.begin() as session:
        settings = DISTILL.model_dump(mode="json")
        return runs.open_run(session, "shop", settings, "a test", 100, later(30_000)).id


@pytest.fixture
def live(db: Database) -> str:
    """A live adapter that has learned its lesson, as a run would have found it."""
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        add_lesson(session, "Refunds take 3 days.")
        add_lesson(session, "Lamps cost 15 euros.")
        return go_live(session)


def test_the_next_run_gets_what_has_relapsed_and_the_wording_in_which_it_failed(db, settings, live):
    asked = "When will I have my money, after refunds?"
    relapse(db, live, asked, "In 9 days.", conversation=TRAINED)
    second = open_second(db)
    with db.read() as session:
        spec, _ = daemon_run.read_spec(session, runs.get(session, second), settings)
        held_out = interactions.logged_prompts(session, "shop", True, 9)
    assert spec.relapsed == ("Refunds take 3 days.",)
    assert not held_out
    assert spec.prompts[0] == (user(asked),)
    assert spec.data_sha256() != replace(spec, relapsed=()).data_sha256()
    given = freeze_inputs(spec, writes=True)
    assert freeze_inputs(replace(spec, relapsed=()), writes=True) == given


@pytest.mark.parametrize("values", [{"learn": False}, {"params": {"tools": [{}]}}])
def test_a_wording_that_may_not_be_learned_from_is_not_trained_on(db, settings, live, values):
    relapse(db, live, "How long do refunds take?", "9 days.", conversation=TRAINED, **values)
    with db.read() as session:
        spec, _ = daemon_run.read_spec(session, runs.get(session, open_second(db)), settings)
    assert (spec.relapsed, spec.prompts) == (("Refunds take 3 days.",), ())


def test_a_held_out_wording_stays_held_out(db, settings, live):
    for number in range(20):  # a fifth of the conversations is held out
        relapse(
            db, live, f"{number}: how long do refunds take?", "9 days.", conversation=f"c{number}"
        )
        if number == 0:
            first = open_second(db)
    with db.read() as session:
        held_out = interactions.logged_prompts(session, "shop", True, 99)
        spec, _ = daemon_run.read_spec(session, runs.get(session, first), settings)
    assert held_out
    assert not {json.dumps(prompt) for prompt in held_out} & {
        json.dumps(list(prompt)) for prompt in spec.prompts
    }


def test_what_relapsed_before_the_live_adapter_was_trained_is_not_news(db, settings, live):
    relapse(db, live, "How long do refunds take?", "9 days.")
    with db.begin() as session:
        run = session.get_one(Run, adapters.get_one(session, go_live(session)).run)
        run.created_at = later(25_000)
    with db.read() as session:
        spec, _ = daemon_run.read_spec(session, runs.get(session, open_second(db)), settings)
    assert spec.relapsed == ()


def test_the_next_generation_names_its_parent(db, settings, run):
    live = train_and_promote(db, settings, run)
    with db.begin() as session:
        add_lesson(session, "Lamps cost 15 euros.")
        chosen = DISTILL.model_copy(update={"generation": "from_parent"}).model_dump(mode="json")
        second = runs.open_run(session, "shop", chosen, "a test", 100, later(10_001)).id

    daemon_run.run(second, settings, db)

    with db.read() as session:
        assert adapters.get_one(session, runs.get(session, second).adapter).parent == live
