import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rollout.gate import judge
from config.settings import Gate
from distill.evaluate import Evaluation

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
}


def test_the_gate_judges_numbers_that_the_trainer_measures():
    assert set(GOOD) <= {field.name for field in fields(Evaluation)}


def test_a_candidate_that_closes_the_gap_and_harms_nothing_passes():
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
    ],
)
def test_one_failed_check_rejects_and_is_the_only_one_named(worse, named):
    verdict = judge(GOOD | worse, Gate())
    failed = [reason for reason in verdict.reasons if reason.startswith("FAILED")]
    assert not verdict.passed
    assert len(failed) == 1
    assert named in failed[0]


def test_a_context_without_facts_is_not_asked_for_any():
    assert judge(GOOD | {"facts": 3, "facts_learned": 0.0}, Gate()).passed


@pytest.mark.parametrize("key", [key for key in GOOD if key not in ("anchors", "facts")])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.9"])
def test_a_number_that_is_missing_fails(key, value):
    assert not judge(GOOD | {key: value}, Gate()).passed


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_candidate_that_closes_more_of_the_gap_is_never_judged_worse(one, other):
    low, high = sorted((one, other))
    passed = [judge(GOOD | {"gap_closed": value}, Gate()).passed for value in (low, high)]
    assert passed == sorted(passed)
