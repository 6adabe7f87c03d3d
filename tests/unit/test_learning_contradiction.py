"""How contradictions are recognised, and which facts become lessons without the model."""

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
    return Correction(question, "I do not know.", text, False, SUPPORT, "int_0")


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
def test_strip_verdict_removes_the_opening_verdict(text, left):
    assert strip_verdict(text) == left


@given(st.text(max_size=60))
def test_strip_verdict_returns_a_nonempty_suffix(text):
    assert text.endswith(strip_verdict(text))
    assert bool(strip_verdict(text).strip()) == bool(text.strip())


def test_a_long_row_of_verdicts_is_stripped_in_linear_time():
    assert strip_verdict("no, " * 300_000 + "it is 45 days") == "it is 45 days"


@pytest.mark.parametrize(
    ("question", "text", "when", "do"),
    [
        ("Are dogs allowed?", "No, dogs are not allowed here.", None, "dogs are not allowed here."),
        ("When do you close?", "Wrong, at 8 pm.", 'asked "When do you close?"', "at 8 pm."),
        ("How long is it?", "No, it's 3 years.", 'asked "How long is it?"', "it's 3 years."),
    ],
)
def test_a_fact_after_a_verdict_becomes_a_lesson_without_the_model(question, text, when, do):
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
def test_a_remark_about_this_conversation_alone_is_not_a_lesson(text):
    assert fact_from_comment(turn("Tell me about dogs", text)) == []


def test_a_statement_without_information_is_not_an_acceptable_lesson():
    asked = turn("What is 3 and 4?", "Wrong, try again")

    assert not is_acceptable(ProposedLesson(LessonKind.FACT, "Try again."), asked)
    assert is_acceptable(
        ProposedLesson(LessonKind.FACT, "The sum is 7."), turn("Sum?", "No, the sum is 7.")
    )
