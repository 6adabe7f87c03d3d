"""The benchmark's questions are not among the prompts that a run trains or measures on."""

import tomllib
from pathlib import Path

import pytest

from distill.data.collect import GREETINGS
from distill.evaluate.general_prompts import HELD_OUT, PROMPTS
from store.text import similarity

CONTEXTS = sorted((Path(__file__).parents[1] / "bench" / "contexts").glob("*.toml"))


@pytest.mark.parametrize("path", CONTEXTS, ids=lambda path: path.stem)
def test_the_benchmarks_questions_are_not_general_prompts(path: Path) -> None:
    asked = [text for check in tomllib.loads(path.read_text())["check"] for text in check["ask"]]
    known = (*PROMPTS, *HELD_OUT, *GREETINGS)

    assert len(asked) >= 40
    assert [text for text in asked if similarity.is_near_duplicate(text, known)] == []
