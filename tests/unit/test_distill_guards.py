"""A run ends, with its reason, when the student's answers are no longer answers; and not before."""

import pytest

from distill import guards
from distill.guards import WINDOW, Diverged, Style

TEACHER = Style(tokens=20, repetition=0.05, leaks=0.0)
ENDS = (Style(tokens=24, repetition=0.1, leaks=0.0), TEACHER)
WELL = {
    "answer_tokens": 22,
    "answer_repetition": 0.1,
    "answer_leaks": 0.0,
    "on_policy_entropy": 0.5,
    "on_policy_divergence": 0.3,
}


def curves(steps: int, **changes: float) -> list[dict[str, float]]:
    return [{"step": step, **WELL, **changes} for step in range(steps)]


def test_answers_like_the_teachers_go_on():
    guards.check_answers(curves(50), ENDS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer_repetition": 0.9}, "repeat 90%"),
        ({"answer_leaks": 0.75}, "mention a context"),
        ({"answer_tokens": 2}, "have 2 tokens; base's and teacher's 20 to 24"),
        ({"answer_tokens": 200}, "have 200 tokens"),
        ({"on_policy_entropy": 0.001, "on_policy_divergence": 2.0}, "always the same"),
    ],
)
def test_answers_out_of_bounds_for_a_while_end_the_run_and_say_why(changes, reason):
    guards.check_answers([*curves(9), *curves(1, **changes)], ENDS)  # once is chance

    with pytest.raises(Diverged, match=reason):
        guards.check_answers([*curves(9), *curves(WINDOW, **changes)], ENDS)


def test_a_certain_student_that_agrees_with_its_teacher_is_no_collapse():
    sure = {"on_policy_entropy": 0.001, "on_policy_divergence": 0.01}
    guards.check_answers(curves(WINDOW, **sure), ENDS)


def test_a_teacher_that_repeats_itself_may_be_followed():
    repeating = Style(tokens=20, repetition=0.5, leaks=0.0)
    guards.check_answers(curves(WINDOW, answer_repetition=0.6), (TEACHER, repeating))


@pytest.mark.parametrize("tokens", [64, 30, 8])
def test_a_student_on_its_way_from_long_answers_to_a_teachers_short_ones_goes_on(tokens):
    chatty, terse = (Style(tokens=each, repetition=0.05, leaks=0.0) for each in (64, 8))
    guards.check_answers(curves(WINDOW, answer_tokens=tokens), (chatty, terse))


def test_steps_without_answers_of_the_student_say_nothing():
    guards.check_answers([{"step": step} for step in range(30)], ENDS)


def test_the_best_step_is_the_least_divergence_since_guidance_ended_and_the_later_of_equals():
    values = [0.1, 0.5, 0.3, 0.3, 0.4]
    measured = [{"step": step, "validation": value} for step, value in enumerate(values)]

    assert guards.best_step(measured, since=1) == 3
    assert guards.best_step(measured, since=0) == 0
    assert guards.best_step([{"step": 0}], since=0) is None


def test_a_run_has_had_enough_when_nothing_better_came_for_its_patience():
    values = [0.5, 0.3, 0.4, 0.4, 0.4]
    measured = [{"step": step, "validation": value} for step, value in enumerate(values)]

    assert guards.should_stop_early(measured, since=0, patience=3)
    assert not guards.should_stop_early(measured, since=0, patience=4)
    assert not guards.should_stop_early(measured, since=2, patience=3)
