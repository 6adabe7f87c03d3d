"""System prompts in many styles, and what they state.

`prompts/statements.json` has the statements of each, in order, and what answers questions about
them.
"""

import json
import tomllib
from pathlib import Path

import pytest

from distill.context.statements import split_statements
from distill.data.collect import statement_answers
from store.contexts import Context

FOLDER = Path(__file__).parent / "prompts"
CONTEXTS = Path(__file__).parents[1] / "bench" / "contexts"
STATEMENTS = json.loads((FOLDER / "statements.json").read_text())


def prompt_of(name: str) -> str:
    if (FOLDER / name).exists():
        return (FOLDER / name).read_text()
    return tomllib.loads((CONTEXTS / name).read_text())["context"]


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_prompt_states_what_it_is_known_to_state(name):
    context = Context(system_prompt=prompt_of(name))

    assert split_statements(context) == STATEMENTS[name]["statements"]
    assert statement_answers(context) == STATEMENTS[name]["answers"]
