"""A run ends with a reason when the student's answers degenerate, and not before."""

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


def test_a_run_with_answers_like_the_teachers_continues():
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
def test_answers_out_of_bounds_for_a_whole_window_end_the_run_with_a_reason(changes, reason):
    guards.check_answers([*curves(9), *curves(1, **changes)], ENDS)  # once is chance

    with pytest.raises(Diverged, match=reason):
        guards.check_answers([*curves(9), *curves(WINDOW, **changes)], ENDS)


def test_low_entropy_without_divergence_is_not_a_collapse():
    sure = {"on_policy_entropy": 0.001, "on_policy_divergence": 0.01}
    guards.check_answers(curves(WINDOW, **sure), ENDS)


def test_a_student_may_repeat_as_much_as_its_teacher():
    repeating = Style(tokens=20, repetition=0.5, leaks=0.0)
    guards.check_answers(curves(WINDOW, answer_repetition=0.6), (TEACHER, repeating))


@pytest.mark.parametrize("tokens", [64, 30, 8])
def test_any_answer_length_between_base_and_teacher_is_accepted(tokens):
    chatty, terse = (Style(tokens=each, repetition=0.05, leaks=0.0) for each in (64, 8))
    guards.check_answers(curves(WINDOW, answer_tokens=tokens), (chatty, terse))


def test_steps_without_on_policy_answers_are_not_judged():
    guards.check_answers([{"step": step} for step in range(30)], ENDS)


def test_the_best_step_has_the_lowest_validation_once_purely_on_policy_and_is_the_later_of_ties():
    values = [0.1, 0.5, 0.3, 0.3, 0.4]
    measured = [{"step": step, "validation": value} for step, value in enumerate(values)]

    assert guards.best_step(measured, since=1) == 3
    assert guards.best_step(measured, since=0) == 0
    assert guards.best_step([{"step": 0}], since=0) is None


def test_a_run_stops_early_after_its_patience_without_improvement():
    values = [0.5, 0.3, 0.4, 0.4, 0.4]
    measured = [{"step": step, "validation": value} for step, value in enumerate(values)]

    assert guards.should_stop_early(measured, since=0, patience=3)
    assert not guards.should_stop_early(measured, since=0, patience=4)
    assert not guards.should_stop_early(measured, since=2, patience=3)
