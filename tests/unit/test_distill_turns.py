"""An answer ends where the model begins to speak for somebody else."""

import pytest

from distill import examples
from distill.turns import Turns
from tests.tiny import tiny_tokenizer

SHOWN = """Say which desk a mail goes to.

User: Thank you!
Assistant: The feedback desk.

User: The wifi is slow.
Assistant: The network desk.
"""


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ("The money desk.\n\nUser: Thank you!\nAssistant: The", "The money desk."),
        ("The money desk.\n**User:** Thank you!", "The money desk."),
        ("The money desk.", "The money desk."),
        ("Ask a user: they know.", "Ask a user: they know."),
        ("\nUser: Thank you!", "\nUser: Thank you!"),
        ("The desk.\nPrice: 3 euros", "The desk.\nPrice: 3 euros"),
    ],
)
def test_an_answer_ends_before_a_line_with_a_speakers_name(said, answered):
    tokenizer = tiny_tokenizer()
    turns = Turns(tokenizer, examples.asker(SHOWN))
    ids = tuple(tokenizer(said)["input_ids"])

    first = turns.first(ids)

    assert tokenizer.decode(first) == answered
    assert first == ids[: len(first)]


def test_without_examples_nobody_else_speaks():
    assert examples.asker("User: a name\nPassword: a word\nWe open at seven.") is None


def test_the_names_in_an_answer_end_it_nowhere():
    shown = "Input: My lamp broke.\nOutput: broken\nText: We are sorry.\n\n" * 2
    assert examples.asker(shown) == "input"
