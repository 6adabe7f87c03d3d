"""What people say when they contradict an answer, and what of it is a lesson without the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.learning.contradiction import strip_verdict
from agent.learning.corrections import Correction
from agent.learning.extractors import ProposedLesson
from agent.learning.propose import fact_from_comment, is_acceptable
from store.lessons import Support
from store.schema import LessonKind, Trust

SUPPORT = Support("int_1", None, "span", "local", Trust.USER)


def turn(question: str, text: str) -> Correction:
    return Correction(question, "I do not know.", text, is_demonstration=False, support=SUPPORT)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("No, that is wrong. The library is open from 9 to 5.", "The library is open from 9 to 5."),
        ("Wrong: parking costs 2 euros.", "parking costs 2 euros."),
        ("Sorry, but that's not quite right, it is 25.", "it is 25."),
        ("no the office is in Leeds", "the office is in Leeds"),
        ("Nope. 8 pm.", "8 pm."),
        ("You said at nine but it opens at ten.", "it opens at ten."),
        ("You said 3.5 hours. But it is 4.", "it is 4."),
        ("The answer should have been: at 6:30.", "at 6:30."),
        ("Actually the dentist is Dr. Vale.", "the dentist is Dr. Vale."),
        # What would say something else without its beginning stays whole.
        ("No, but cats are.", "No, but cats are."),
        ("No, only lamps.", "No, only lamps."),
        ("No refunds after 30 days.", "No refunds after 30 days."),
        ("Wrong way signs are red.", "Wrong way signs are red."),
        ("Nobody answers on Sundays.", "Nobody answers on Sundays."),
        ("Wrong!", "Wrong!"),
        ("The library is open from 9 to 5.", "The library is open from 9 to 5."),
    ],
)
def test_a_verdict_is_no_part_of_what_was_told(text, left):
    assert strip_verdict(text) == left


@given(st.text(max_size=60))
def test_what_was_told_is_the_end_of_the_text_and_says_something_if_it_did(text):
    assert text.endswith(strip_verdict(text))
    assert bool(strip_verdict(text).strip()) == bool(text.strip())


def test_a_long_row_of_verdicts_takes_no_longer_than_it_is():
    assert strip_verdict("no, " * 300_000 + "it is 45 days") == "it is 45 days"


@pytest.mark.parametrize(
    ("question", "text", "when", "do"),
    [
        ("Are dogs allowed?", "No, dogs are not allowed here.", None, "dogs are not allowed here."),
        ("When do you close?", "Wrong, at 8 pm.", 'asked "When do you close?"', "at 8 pm."),
        ("How long is it?", "No, it's 3 years.", 'asked "How long is it?"', "it's 3 years."),
    ],
)
def test_a_fact_after_a_verdict_is_a_lesson_where_the_model_states_none(question, text, when, do):
    assert fact_from_comment(turn(question, text)) == [ProposedLesson(LessonKind.FACT, do, when)]


@pytest.mark.parametrize(
    "text",
    [
        "wrong, try again",
        "No, I meant hot dogs.",
        "No, write 3 sentences about dogs.",
        "No, that's wrong. Are 3 dogs allowed?",
        "No, that's wrong. The reply about dogs is too long.",
        "No, the dogs are 3. The cats are 4.",
        "No, but dogs are.",
        "No dogs after 9 pm.",
        "The reply about dogs was bad.",
    ],
)
def test_what_may_be_meant_for_this_conversation_alone_is_no_lesson(text):
    assert fact_from_comment(turn("Tell me about dogs", text)) == []


def test_a_statement_that_tells_nothing_is_no_lesson_of_a_turn():
    asked = turn("What is 3 and 4?", "Wrong, try again")

    assert not is_acceptable(ProposedLesson(LessonKind.FACT, "Try again."), asked)
    assert is_acceptable(
        ProposedLesson(LessonKind.FACT, "The sum is 7."), turn("Sum?", "No, the sum is 7.")
    )
