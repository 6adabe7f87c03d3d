"""Questions as a model writes them: of its drafts, the good ones are kept, and no others."""

import pytest

from distill import questions
from distill.student import Student
from tests.tiny import tiny_model, tiny_tokenizer

REFUNDS, OPENING = "Refunds take 3 days.", "The shop opens at 7 in the morning."
DRAFTS = {
    REFUNDS: [
        " How long do refunds take?",
        " How long do refunds take?",
        " Do refunds take 3 days?",
        " Refunds are slow.",
        " Is there a discount for students?",
        " May I ask for refunds?",
        " Are refunds quick? Are they?",
    ],
    OPENING: [" At what hour is the shop open?", " Is the shop open early?"],
}


class Scripted:
    """Writes the drafts above, whatever the model says; notes what it was asked."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.asked: list[str] = []

    def sample(self, prompts, _temperature):
        return [self.tokenizer(self.draft(ids))["input_ids"] for ids in prompts]

    def draft(self, ids) -> str:
        prompt = self.tokenizer.decode(ids)
        passage = prompt.rsplit("Statement: ", 1)[1].removesuffix("\nQuestion:")
        self.asked.append(passage)
        drafts = DRAFTS[passage]
        return drafts[self.asked.count(passage) % len(drafts)]


@pytest.fixture
def student() -> Student:
    return Student(tiny_model(), rank=4, alpha=8, seed=0)


def write(student: Student, per_passage: int, avoid: tuple[str, ...] = ()) -> list[str]:
    tokenizer = tiny_tokenizer()
    return questions.write_questions(
        student, Scripted(tokenizer), tokenizer, [REFUNDS, OPENING], per_passage, avoid
    )


def test_of_the_drafts_the_new_questions_about_their_passage_are_kept(student, monkeypatch):
    monkeypatch.setattr(questions, "OPENINGS", ("",) * 7)

    assert set(write(student, 4)) == {
        "How long do refunds take?",
        "May I ask for refunds?",
        "At what hour is the shop open?",
        "Is the shop open early?",
    }


def test_no_more_are_kept_than_asked_for_and_none_that_is_to_be_avoided(student, monkeypatch):
    monkeypatch.setattr(questions, "OPENINGS", ("",) * 7)

    kept = write(student, 1, avoid=("how long do refunds take", "Is the shop open early?"))

    assert kept == ["May I ask for refunds?", "At what hour is the shop open?"]


def test_nothing_is_drafted_where_no_question_is_asked_for(student):
    assert write(student, 0) == []
