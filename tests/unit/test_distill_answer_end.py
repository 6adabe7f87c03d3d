"""Completions are cut where the model starts to write the user's next turn."""

import pytest

from distill.context import examples
from distill.model import answer_end
from distill.model.answer_end import AnswerTruncator
from distill.model.encoder import Encoder, user
from distill.model.logits import logits
from distill.model.student import Student
from store.contexts import Context
from tests.support.tiny import tiny_model, tiny_tokenizer

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
def test_an_answer_is_cut_before_a_line_that_starts_with_the_users_label(said, answered):
    tokenizer = tiny_tokenizer()
    ids = tuple(tokenizer(said)["input_ids"])
    end = () if said == answered else (tokenizer.eos_token_id,)

    assert AnswerTruncator(tokenizer, examples.find_prompt_label(SHOWN)).truncate(ids) == (
        *tokenizer(answered)["input_ids"],
        *end,
    )


@pytest.mark.parametrize("scale", [0.0, 50.0])
def test_a_reference_end_state_needs_a_confident_base(scale):
    student = Student(tiny_model(), rank=4, alpha=8, seed=0)
    encoder = Encoder(tiny_tokenizer(), Context(), max_prompt_tokens=500)
    end = encoder.tokenizer.eos_token_id
    student.head.data[end] = 0
    asked, said = answer_end.COMPLETE_ANSWERS[1]
    [*_, state] = student.states([(encoder.ids(user(asked), Context()), encoder.answer_ids(said))])
    student.head.data[end] = scale * state

    found = answer_end.reference_eos_state(student, encoder)

    assert (found is None) == (scale == 0)
    if found is not None:
        assert (
            logits(found[None], student.head).softmax(-1)[0, end] >= answer_end.MIN_EOS_PROBABILITY
        )


def test_without_examples_there_is_no_user_label():
    assert examples.find_prompt_label("User: a name\nPassword: a word\nWe open at seven.") is None


def test_labels_inside_an_answer_are_not_user_labels():
    shown = "Input: My lamp broke.\nOutput: broken\nText: We are sorry.\n\n" * 2
    assert examples.find_prompt_label(shown) == "input"
