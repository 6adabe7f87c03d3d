import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rollout.gate import NonInferiorityCheck, judge
from config.sections import Gate
from distill.evaluate.candidate import Evaluation

GOOD = {
    "held_out": 12,
    "gap_closed": 0.9,
    "facts": 40,
    "facts_learned": 0.9,
    "retention_kl": 0.05,
    "length_ratio": 1.1,
    "repetition": 0.0,
    "leak_rate": 0.0,
    "anchors": {"total": 10, "base": 1, "teacher": 8, "candidate": 8},
    "compared": {"total": 30, "teacher_only": 2, "candidate_only": 1},
    "frontier": [
        {"context": "whole", "prompt_tokens": 200, "right": 30, "total": 30},
        {"context": "residual", "prompt_tokens": 40, "right": 29, "total": 30},
    ],
}


def test_the_gate_reads_only_fields_that_the_trainer_measures():
    assert set(GOOD) <= {field.name for field in fields(Evaluation)}


def test_a_candidate_within_all_bounds_passes():
    verdict = judge(GOOD, Gate())
    assert verdict.passed
    assert all(reason.startswith("passed") for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("worse", "named"),
    [
        ({"held_out": 2}, "held-out"),
        ({"gap_closed": 0.1}, "gap"),
        ({"facts_learned": 0.3}, "facts"),
        ({"retention_kl": 3.0}, "unrelated"),
        ({"length_ratio": 5.0}, "length"),
        ({"length_ratio": 0.1}, "length"),
        ({"length_ratio": 0.0}, "length"),
        ({"repetition": 0.9}, "repeat"),
        ({"leak_rate": 0.5}, "mention"),
        ({"anchors": {"total": 10, "base": 1, "teacher": 8, "candidate": 2}}, "anchors"),
        ({"anchors": {"total": 10, "base": 5, "teacher": 5, "candidate": 4}}, "anchors"),
        ({"compared": {"total": 30, "teacher_only": 6, "candidate_only": 0}}, "lost"),
        ({"compared": {"total": 0, "teacher_only": 0, "candidate_only": 0}}, "lost"),
        ({"compared": {}}, "lost"),
        ({"frontier": [point | {"prompt_tokens": 200} for point in GOOD["frontier"]]}, "tokens"),
        ({"frontier": []}, "tokens"),
    ],
)
def test_one_failed_check_rejects_the_candidate_and_only_that_check_has_failed(worse, named):
    verdict = judge(GOOD | worse, Gate())
    failed = [reason for reason in verdict.reasons if reason.startswith("FAILED")]
    assert not verdict.passed
    assert len(failed) == 1
    assert named in failed[0]


@pytest.mark.parametrize(("learned", "facts"), [(2, 47), (4, 27), (2, 39), (2, 14), (1, 8), (0, 4)])
def test_a_candidate_that_learned_few_of_the_facts_is_rejected(learned, facts):
    verdict = judge(GOOD | {"facts": facts, "facts_learned": learned / facts}, Gate())
    assert not verdict.passed
    assert [reason for reason in verdict.reasons if reason.startswith("FAILED")] == [
        reason for reason in verdict.reasons if "facts" in reason
    ]


@pytest.mark.parametrize(("learned", "facts"), [(38, 47), (20, 27), (29, 39), (7, 14), (0, 0)])
def test_a_candidate_passes_if_chance_explains_the_facts_it_missed(learned, facts):
    assert judge(GOOD | {"facts": facts, "facts_learned": learned / max(facts, 1)}, Gate()).passed


@given(st.integers(1, 80), st.floats(0, 1), st.floats(0, 1))
def test_learning_more_facts_never_changes_a_pass_into_a_failure(facts, one, other):
    low, high = sorted((one, other))
    passed = [
        judge(GOOD | {"facts": facts, "facts_learned": share}, Gate()).passed
        for share in (low, high)
    ]
    assert passed == sorted(passed)


@pytest.mark.parametrize(
    "key", [key for key, value in GOOD.items() if isinstance(value, int | float) and key != "facts"]
)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.9"])
def test_a_missing_measurement_fails_its_check(key, value):
    assert not judge(GOOD | {key: value}, Gate()).passed


@given(st.floats(0, 1), st.floats(0, 1))
def test_closing_more_of_the_gap_never_changes_a_pass_into_a_failure(one, other):
    low, high = sorted((one, other))
    passed = [judge(GOOD | {"gap_closed": value}, Gate()).passed for value in (low, high)]
    assert passed == sorted(passed)


@given(total=st.integers(1, 400), lost=st.integers(0, 400), margin=st.floats(0.05, 0.5))
def test_few_lost_answers_pass_and_more_answers_allow_a_smaller_share_of_losses_only_with_evidence(
    total, lost, margin
):
    check = NonInferiorityCheck("lost", min(lost, total), total, margin)

    if check.passed and lost:
        assert min(lost, total) < margin * total
        # With twice the answers and the same share of losses there is more evidence.
        assert NonInferiorityCheck("lost", 2 * min(lost, total), 2 * total, margin).passed
    assert NonInferiorityCheck("lost", 0, total, margin).passed


def test_thirteen_answers_cannot_show_that_the_loss_of_one_is_below_the_margin():
    assert not NonInferiorityCheck("lost", 1, 13, 0.2).passed
    assert NonInferiorityCheck("lost", 1, 30, 0.2).passed
