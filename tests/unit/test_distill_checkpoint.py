"""Checkpoints are complete, of this run and release, and removed when the run has finished."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.model.engine_sampler import STUDENT
from distill.run import checkpoint
from distill.run.checkpoint import DATA, LATEST, METRICS, Checkpoints, ResumeState
from distill.run.folders import FolderError


def train_two_steps(checkpoints: Checkpoints) -> tuple[list[torch.nn.Parameter], torch.optim.SGD]:
    parameters = [torch.nn.Parameter(torch.ones(2))]
    optimiser = torch.optim.SGD(parameters)
    checkpoints.resume(parameters, optimiser)
    for step in range(2):
        checkpoints.append_metrics({"step": step})
    checkpoints.save_progress(
        parameters, optimiser, ResumeState(2, {}, None, [{"step": 0}, {"step": 1}])
    )
    return parameters, optimiser


def test_checkpoints_of_another_run_are_ignored(tmp_path):
    Checkpoints(tmp_path, "one").save(LATEST, {"step": 3})

    assert Checkpoints(tmp_path, "one").load(LATEST) == {"step": 3}
    assert Checkpoints(tmp_path, "other").load(LATEST) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 of a class that is gone"])
def test_a_checkpoint_of_another_release_is_ignored_without_unpickling_it(
    tmp_path, monkeypatch, content
):
    checkpoints = Checkpoints(tmp_path, "one")
    (tmp_path / LATEST).write_bytes(content)
    assert checkpoints.load(LATEST) is None

    checkpoints.save(LATEST, {"step": 3})
    monkeypatch.setattr(checkpoint, "RELEASE", "another")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpacked"))
    assert checkpoints.load(LATEST) is None


def test_a_checkpoint_of_an_older_format_is_ignored_with_a_message(tmp_path, monkeypatch, caplog):
    checkpoints = Checkpoints(tmp_path, "one")
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT - 1)
    checkpoints.save(LATEST, {"step": 3})
    monkeypatch.undo()

    assert checkpoints.load(LATEST) is None
    assert f"{tmp_path / LATEST} was written by another release of byheart" in caplog.text
    caplog.clear()
    assert Checkpoints(tmp_path / "new", "one").load(LATEST) is None
    assert not caplog.text


class Harmful:
    """Calls a function when it is unpacked, as pickles can."""

    def __reduce__(self):
        return Path.touch, (Path(Harmful.__name__),)


def test_a_planted_checkpoint_is_rejected_and_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints(tmp_path, "one")
    checkpoints.save(LATEST, {"step": Harmful()})

    with pytest.raises(FolderError, match=rf"{LATEST} was not written by byheart"):
        checkpoints.load(LATEST)

    assert not Path(Harmful.__name__).exists()


@given(st.data())
def test_a_checkpoint_with_any_bit_flipped_is_ignored(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("kept")
    checkpoints = Checkpoints(folder, "one")
    checkpoints.save(LATEST, {"weights": torch.ones(3), "step": 3})
    content = bytearray((folder / LATEST).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / LATEST).write_bytes(content)

    assert checkpoints.load(LATEST) is None


def test_a_truncated_checkpoint_is_ignored(tmp_path):
    checkpoints = Checkpoints(tmp_path, "one")
    checkpoints.save(LATEST, {"step": 3})
    content = (tmp_path / LATEST).read_bytes()

    for length in (10, len(content) // 2, len(content) - 1):
        (tmp_path / LATEST).write_bytes(content[:length])
        assert checkpoints.load(LATEST) is None


@pytest.mark.parametrize("left", ['{"step": 0}\n{"st', '{"step": 0}\n{"step": 1}\n{"step": 2}\n'])
def test_a_resume_rewrites_the_curves_from_the_checkpoint(tmp_path, left):
    checkpoints = Checkpoints(tmp_path, "one")
    parameters, optimiser = train_two_steps(checkpoints)
    (tmp_path / METRICS).write_text(left)

    assert checkpoints.resume(parameters, optimiser) == (2, {}, None, [{"step": 0}, {"step": 1}])
    checkpoints.append_metrics({"step": 2})

    lines = (tmp_path / METRICS).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]


def test_without_a_checkpoint_the_curves_start_empty(tmp_path):
    parameters, optimiser = train_two_steps(Checkpoints(tmp_path, "one"))

    other = Checkpoints(tmp_path, "other")

    assert other.resume(parameters, optimiser) == (0, {}, None, [])
    assert (tmp_path / METRICS).read_text() == ""


def test_processes_that_do_not_write_resume_from_the_first_ones_checkpoint(tmp_path):
    parameters, optimiser = train_two_steps(Checkpoints(tmp_path, "one"))
    before = (tmp_path / METRICS).read_text()
    other = Checkpoints(tmp_path, "one", writes=False)

    assert other.resume(parameters, optimiser).step == 2
    other.append_metrics({"step": 2})
    other.save_progress(parameters, optimiser, ResumeState(3, {}, None, []))

    assert (tmp_path / METRICS).read_text() == before
    assert Checkpoints(tmp_path, "one").load(LATEST)["step"] == 2


def test_clearing_a_finished_run_keeps_only_its_curves(tmp_path):
    checkpoints = Checkpoints(tmp_path, "one")
    train_two_steps(checkpoints)
    checkpoints.save(DATA, {})
    (tmp_path / STUDENT).mkdir()
    (tmp_path / STUDENT / "adapter_config.json").touch()

    checkpoint.clear(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [METRICS]
