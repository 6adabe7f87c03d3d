"""An answer ends where the model begins to speak for somebody else."""

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
def test_an_answer_ends_before_a_line_with_a_speakers_name(said, answered):
    tokenizer = tiny_tokenizer()
    ids = tuple(tokenizer(said)["input_ids"])
    end = () if said == answered else (tokenizer.eos_token_id,)

    assert AnswerTruncator(tokenizer, examples.find_prompt_label(SHOWN)).truncate(ids) == (
        *tokenizer(answered)["input_ids"],
        *end,
    )


@pytest.mark.parametrize("scale", [0.0, 50.0])
def test_a_base_is_asked_for_its_end_only_where_it_is_sure_of_one(scale):
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


def test_without_examples_nobody_else_speaks():
    assert examples.find_prompt_label("User: a name\nPassword: a word\nWe open at seven.") is None


def test_the_names_in_an_answer_end_it_nowhere():
    shown = "Input: My lamp broke.\nOutput: broken\nText: We are sorry.\n\n" * 2
    assert examples.find_prompt_label(shown) == "input"
