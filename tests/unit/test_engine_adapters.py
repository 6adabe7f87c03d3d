"""Whether log-probabilities of a probe are the trained student's."""

import json
import math
import random
from pathlib import Path

import pytest

from agent.engine.adapters import PROBE_TOKENS, AdapterMismatch, find_mismatch, read_probes

BASE = [-2.0, -0.5, -7.0, -1.0, -3.5]
STUDENT = [-0.1, -0.4, -0.3, -0.2, -1.5]


def rounded(values: list[float], by: float = 0.03) -> list[float]:
    generator = random.Random(0)
    return [value + generator.uniform(-by, by) for value in values]


def test_the_students_own_log_probabilities_pass_up_to_rounding() -> None:
    assert find_mismatch(rounded(STUDENT), STUDENT, BASE) is None


def test_the_bases_log_probabilities_fail() -> None:
    reason = find_mismatch(rounded(BASE), STUDENT, BASE)

    assert reason
    assert "does not answer like the trained student" in reason


def test_log_probabilities_halfway_between_student_and_base_fail() -> None:
    halfway = [(a + b) / 2 for a, b in zip(STUDENT, BASE, strict=True)]

    assert find_mismatch(halfway, STUDENT, BASE)


def test_log_probabilities_of_another_student_fail() -> None:
    other = [value - 1.0 for value in STUDENT]

    assert find_mismatch(other, STUDENT, BASE)


def test_log_probabilities_that_only_roughly_match_a_distant_student_fail() -> None:
    base = [value - 10.0 for value in STUDENT]
    nearly = [value - 1.0 for value in STUDENT]

    reason = find_mismatch(nearly, STUDENT, base)

    assert reason
    assert "only roughly" in reason


def test_a_student_that_equals_the_base_fails() -> None:
    reason = find_mismatch(BASE, BASE, BASE)

    assert reason
    assert "hardly differs" in reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_log_probabilities_that_are_not_finite_fail(value: float) -> None:
    assert find_mismatch([value, *STUDENT[1:]], STUDENT, BASE)


@pytest.mark.parametrize("sentences", [0, 1])
def test_a_manifest_without_probes_is_rejected(tmp_path: Path, sentences: int) -> None:
    empty = {"prompt_ids": [1], "completion_ids": [], "student": [], "base": []}
    (tmp_path / "manifest.json").write_text(json.dumps({"probe": [empty] * sentences}))

    with pytest.raises(AdapterMismatch, match="no probes"):
        read_probes(tmp_path)


def test_probes_are_the_tokens_with_the_largest_student_base_gap(tmp_path: Path) -> None:
    sentence = {
        "prompt_ids": [1, 2],
        "completion_ids": list(range(100, 140)),
        "student": [-1.0] * 40,
        "base": [-1.0 - position / 10 for position in range(40)],
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"probe": [sentence]}))

    probes = read_probes(tmp_path)

    assert [probe.token for probe in probes] == list(range(139, 139 - PROBE_TOKENS, -1))
    assert probes[0].prompt_ids == [1, 2, *range(100, 139)]
