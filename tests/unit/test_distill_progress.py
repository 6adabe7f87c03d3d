"""Progress lines: which steps have one, the time left, speed and memory."""

import pytest

from distill.progress import PLAN, RESUME, Meter, PlainProgress, peak_memory


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines without their time of day."""
    return [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]


def test_the_first_the_last_and_every_tenth_step_are_printed(capsys):
    lines = PlainProgress(lambda: 0.0)
    for done in range(25):
        lines("train", done, 24, {"loss": 0.5})

    assert said(capsys) == [f"train {done}/24 loss=0.5" for done in (0, 1, 10, 20, 24)]


def test_minutes_left_are_estimated_from_the_pace_so_far_except_for_short_stages(capsys):
    now = 1000.0
    lines = PlainProgress(lambda: now)
    for done in (0, 10, 20, 30, 40):
        lines("train", done, 40, {})
        now += 50.0

    assert said(capsys) == [
        "train 0/40",
        "train 10/40 (3 min left)",
        "train 20/40 (2 min left)",
        "train 30/40",
        "train 40/40",
    ]


def test_a_resumed_run_is_timed_from_the_step_where_it_resumes(capsys):
    now = 0.0
    lines = PlainProgress(lambda: now)
    lines(PLAN, 100, 100, {})
    lines(RESUME, 80, 100, {})
    for done in (80, 90):
        lines("train", done, 100, {})
        now += 120.0

    assert said(capsys)[-2:] == ["train 80/100", "train 90/100 (2 min left)"]


def test_each_stage_has_its_own_pace(capsys):
    now = 0.0
    lines = PlainProgress(lambda: now)
    for stage in ("questions", "train"):
        lines(stage, 0, 20, {})
        now += 90.0
        lines(stage, 10, 20, {})
        now += 1e6

    assert [line for line in said(capsys) if "left" in line] == [
        "questions 10/20 (2 min left)",
        "train 10/20 (2 min left)",
    ]


def test_tokens_per_second_are_averaged_over_all_steps_so_far():
    clock = iter([10.0, 12.0, 15.0])
    meter = Meter(lambda: next(clock))

    assert meter.count(100)["tokens_per_s"] == 50
    assert meter.count(100)["tokens_per_s"] == 40


def test_the_peak_memory_never_decreases():
    before = peak_memory()
    ballast = bytearray(50 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])

    during = peak_memory()
    del ballast

    assert 0 < before <= during <= peak_memory()
