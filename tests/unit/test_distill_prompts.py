"""System prompts in many styles: what they state, and what is left when parts are cut out.

`prompts/statements.json` has the statements of each, in order, and what answers questions about
them; `prompts/residuals/` what is left of it when one statement in three is kept.
"""

import json
import tomllib
from pathlib import Path

import pytest

from distill.context.sourced import sourced_statements
from distill.context.statements import split_statements
from distill.data.collect import statement_answers
from store.contexts import Context
from tests.support.cut_prompt import cut

FOLDER = Path(__file__).parent / "prompts"
CONTEXTS = Path(__file__).parents[1] / "bench" / "contexts"
STATEMENTS = json.loads((FOLDER / "statements.json").read_text())
KEPT_OF = 3


def prompt_of(name: str) -> str:
    if (FOLDER / name).exists():
        return (FOLDER / name).read_text()
    return tomllib.loads((CONTEXTS / name).read_text())["context"]


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_prompt_states_what_it_is_known_to_state(name):
    context = Context(system_prompt=prompt_of(name))

    assert split_statements(context) == STATEMENTS[name]["statements"]
    assert statement_answers(context) == STATEMENTS[name]["answers"]


@pytest.mark.parametrize(
    "path", sorted((FOLDER / "residuals").iterdir()), ids=lambda path: path.name
)
def test_a_prompt_that_is_cut_keeps_its_words_order_and_headings(path):
    prompt = prompt_of(path.name)
    statements = sourced_statements(Context(system_prompt=prompt))

    assert cut(prompt, statements[1::KEPT_OF]) == path.read_text().rstrip("\n")


@pytest.mark.parametrize("name", STATEMENTS)
def test_of_a_prompt_that_is_learned_nothing_is_left_but_code(name):
    prompt = prompt_of(name)
    statements = sourced_statements(Context(system_prompt=prompt))
    left = [each for each in statements if not each.is_askable and not each.is_format]
    code = "### Build\nRun this before every push:\n\n```bash\nmake lint\nmake checks\n```"

    assert cut(prompt, left) == (code if name == "coding_assistant.md" else "")
