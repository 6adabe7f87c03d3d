"""Which tokens of an answer state a fact of the context."""

import pytest

from distill.context import statements
from distill.evaluate import facts
from store.contexts import Context
from tests.support.tiny import tiny_tokenizer

CONTEXT = "The workshop opens at 7:30 in May and is run by Henrik. Ask Ilse Brandt about tyres."


def told(question: str, answer: str) -> str:
    """The characters of the answer that tell facts; the tiny tokenizer has one a token."""
    tokenizer = tiny_tokenizer()
    ids = tuple(tokenizer(answer, add_special_tokens=False)["input_ids"])
    return "".join(answer[at] for at in facts.fact_positions(tokenizer, CONTEXT, question, ids))


@pytest.mark.parametrize(
    ("question", "answer", "facts"),
    [
        ("When do you open?", "We open at 7:30, friend.", "730"),
        ("Who runs it?", "It is run by Henrik, and Henrik alone.", "HenrikHenrik"),
        ("Who is Henrik?", "Henrik runs it with Ilse.", "Ilse"),
        ("When do you open?", "We open at 8 in the workshop.", ""),
        ("When do you open?", "You may ask at 7.", "7"),
        ("When do you open?", "", ""),
    ],
)
def test_facts_are_numbers_and_names_of_the_context_that_are_not_in_the_question(
    question, answer, facts
):
    assert told(question, answer) == facts


def test_the_first_word_of_a_sentence_is_not_a_name():
    assert not {"The", "Ask"} & statements.facts(CONTEXT)


def test_the_first_word_of_a_list_item_is_not_a_name():
    context = Context(system_prompt="- The shop is run by Ilse.\n1. Never lend tools.")

    assert statements.facts("\n".join(statements.split_statements(context))) == {"Ilse"}
