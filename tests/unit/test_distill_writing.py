"""Questions as a model writes them: of its drafts, the good ones are kept, and no others."""

import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from distill.context.statements import distinguishing_keys
from distill.data import questions
from distill.model.student import Student
from store.text import similarity
from tests.support.tiny import tiny_model, tiny_tokenizer

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


TOPICS = {REFUNDS: " refunds", OPENING: " the 7 o'clock opening"}


class Scripted:
    """Writes topics and drafts as it is told to, whatever the model says."""

    def __init__(self, topic: Callable[[str], str], draft: Callable[[str, int], str]) -> None:
        self.tokenizer = tiny_tokenizer()
        self.topic, self.draft = topic, draft
        self.asked: Counter[str] = Counter()

    def for_stage(self, _stage):
        return self

    def sample(self, prompts, _temperature):
        return [self.tokenizer(self.line(ids))["input_ids"] for ids in prompts]

    def progress(self, _stage, done, total) -> None:
        assert done < total

    def line(self, ids) -> str:
        statement, asked_for = self.tokenizer.decode(ids).rsplit("Statement: ", 1)[1].split("\n", 1)
        if asked_for == "Topic:":
            return self.topic(statement)
        self.asked[statement] += 1
        return self.draft(statement, self.asked[statement])


def drafted(statement: str, number: int) -> str:
    return DRAFTS[statement][number % len(DRAFTS[statement])]


@pytest.fixture
def student(monkeypatch) -> Student:
    monkeypatch.setattr(questions, "OPENINGS", ("",) * 7)
    # What a model of random weights finds likely says nothing.
    monkeypatch.setattr(questions, "MIN_GAIN", -math.inf)
    return Student(tiny_model(), rank=4, alpha=8, seed=0)


def write(student: Student, per_statement: int, avoid: tuple[str, ...] = ()) -> questions.Written:
    writer = Scripted(TOPICS.__getitem__, drafted)
    statements = [REFUNDS, OPENING]
    counts = dict.fromkeys(statements, per_statement)
    return questions.write_questions(student, writer, writer.tokenizer, statements, counts, avoid)


def test_of_the_drafts_the_new_questions_are_kept_then_a_plain_request_beside_their_statement(
    student,
):
    assert write(student, 3).training == {
        "How long do refunds take?": REFUNDS,
        "May I ask for refunds?": REFUNDS,
        "What should I know about refunds?": REFUNDS,
        "At what hour is the shop open?": OPENING,
        "Is the shop open early?": OPENING,
        "What should I know about shop opens morning?": OPENING,
    }


def test_each_statement_gets_at_most_its_own_number_of_questions(student):
    writer = Scripted(TOPICS.__getitem__, drafted)
    counts = {REFUNDS: 1, OPENING: 3}
    written = questions.write_questions(student, writer, writer.tokenizer, list(counts), counts, ())
    assert Counter(written.training.values()) == counts


def test_a_statement_without_a_draft_that_makes_it_likelier_is_asked_for_by_its_topic(
    student, monkeypatch
):
    monkeypatch.setattr(questions, "MIN_GAIN", math.inf)

    assert write(student, 2).training == {
        "What should I know about refunds?": REFUNDS,
        "Can you tell me about refunds?": REFUNDS,
        "What should I know about shop opens morning?": OPENING,
        "Can you tell me about shop opens morning?": OPENING,
    }


def test_none_is_kept_that_is_to_be_avoided(student):
    kept = write(student, 2, avoid=("how long do refunds take", "Is the shop open early?"))

    assert [*kept.training][:1] == ["May I ask for refunds?"]
    written = {*kept.training, *kept.measuring}
    assert not {"How long do refunds take?", "Is the shop open early?"} & written


def test_no_question_to_train_on_is_written_if_none_is_wanted(student):
    assert write(student, 0).training == {}


@pytest.mark.parametrize("per_statement", [0, 1, 2, 5])
def test_each_statement_has_questions_to_measure_with_that_no_training_question_nearly_repeats(
    student, per_statement
):
    written = write(student, per_statement)

    for statement in (REFUNDS, OPENING):
        count = list(written.measuring.values()).count(statement)
        assert questions.MIN_MEASURING <= count <= questions.MAX_MEASURING
    distinct = similarity.without_near_duplicates([*written.training, *written.measuring])
    assert distinct == [*written.training, *written.measuring]


def test_drafts_beyond_those_to_train_on_are_measured_with_before_plain_requests(student):
    written = write(student, 2)

    for statement, drafts in DRAFTS.items():
        first, second = (text for text, about in written.measuring.items() if about == statement)
        assert f" {first}" in drafts
        assert second.startswith("Can you tell me about")


def test_a_topic_that_gives_a_number_away_or_is_another_one_is_replaced_by_the_statement_s_words():
    usable = questions.usable_topic

    assert usable("refunds", REFUNDS) == "refunds"
    assert usable("refunds of 3 days", REFUNDS) == "Refunds take days"
    assert usable("the capital of Spain", REFUNDS) == "Refunds take days"
    assert questions.own_words("The desk closes at 7:15 on Mondays.") == "desk closes"


def test_a_topic_that_repeats_itself_is_replaced():
    statement = "You answer each question with one JSON object."
    topic = 'answer to the question "What is the answer to the question "What is the answer'

    assert questions.usable_topic(topic, statement) == questions.own_words(statement)


def test_a_topic_or_question_that_contains_the_whole_answer_is_rejected():
    owner = "The owner of the shop is Mirel Sandu."

    assert questions.usable_topic("owner Mirel Sandu", owner) == "owner shop"
    drafts = ["Is Mirel Sandu the owner of the shop?", "Is Mirel the owner of the shop?"]
    assert questions.acceptable(drafts, owner) == drafts[1:]


def test_acceptable_drafts_are_distinct_questions_about_the_statement():
    drafts = [
        "What do I pay for a tune-up?",
        "What will I pay for a tune up?",
        "A tune-up costs 48 euros.",
        "What is a prime number?",
        "Is a tune-up 48 euros?",
        "How much is a tune-up?",
    ]

    kept = questions.acceptable(drafts, "A tune-up costs 48 euros.")

    assert kept == ["What do I pay for a tune-up?", "How much is a tune-up?"]


ERRORS = [
    f"Error {code} means that the {part} is broken."
    for code, part in ((41, "pump"), (42, "fan"), (43, "lamp"), (44, "door"), (45, "belt"))
]
ZONES = [f"A permit for zone {zone} costs {20 + 5 * n} euros." for n, zone in enumerate("ABCDEF")]


WAYS = (" What about {}?", " How is it with {}?", " Why {}?", " Is {} good?")


@pytest.mark.parametrize(
    ("statements", "name"), [(ERRORS, r"Error \d+"), (ZONES, "zone [A-F]")], ids=["errors", "zones"]
)
def test_questions_about_similar_facts_contain_what_distinguishes_them(student, statements, name):
    def named(statement: str, number: int = 0, ways: tuple[str, ...] = (" {}",)) -> str:
        return ways[number % len(ways)].format(re.search(name, statement)[0])

    writer = Scripted(named, partial(named, ways=WAYS))

    counts = dict.fromkeys(statements, 5)
    written = questions.write_questions(
        student, writer, writer.tokenizer, statements, counts, ()
    ).training

    assert Counter(written.values()) == dict.fromkeys(statements, 5)
    assert all(re.search(name, statement)[0] in asked for asked, statement in written.items())


def test_a_statement_with_the_topic_of_another_gets_requests_with_its_own_words(
    student, monkeypatch
):
    monkeypatch.setitem(TOPICS, OPENING, " the shop")
    monkeypatch.setitem(TOPICS, REFUNDS, " the shop refunds")
    monkeypatch.setattr(questions, "MIN_GAIN", math.inf)
    taken = questions.plain_requests("the shop")

    written = write(student, 2, avoid=tuple(taken)).training

    assert [asked for asked, statement in written.items() if statement == OPENING] == [
        "What should I know about shop opens morning?",
        "Can you tell me about shop opens morning?",
    ]


@pytest.mark.parametrize(
    ("statement", "key"),
    [
        ("Error 41 means that the battery is low.", "Error 41"),
        ("The error 43 means that the fuse is blown.", ""),
        ("In room 12 there is a printer.", "room 12"),
        ("On Sundays we are closed.", "Sundays"),
        ("Delivery costs 12 euros within the city.", ""),
        ("Refunds take 3 days after they are asked for.", ""),
    ],
)
def test_a_key_distinguishes_one_of_several_similar_statements(statement, key):
    others = [
        "Error 42 means that the door is open.",
        "In room 14 there is a scanner.",
        "On Saturdays we close at 4.",
        "Delivery costs 20 euros to the islands.",
        "Refunds take 9 days in December.",
    ]

    assert distinguishing_keys([statement, *others]).get(statement, "") == key


def test_a_draft_with_a_word_of_the_few_shot_examples_needs_it_in_its_statement():
    draft = "Is the museum open early?"

    assert questions.acceptable([draft], OPENING) == []
    assert questions.acceptable([draft], "The museum opens at 7.") == [draft]
