"""Which questions are near-duplicates."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.evaluate import general_prompts
from store.text import similarity


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("When do you open?", True),
        ("when do you open", True),
        ("When do you open up?", True),
        ("Why do you open?", False),
        ("When do you open on Sundays?", False),
        ("How much is a tune-up?", False),
        ("Can I ask when your shop opens?", False),
        ("When will you be open?", True),
    ],
)
def test_near_duplicates_are_recognised(text, near):
    assert similarity.is_near_duplicate(text, ["What is your name?", "When do you open?"]) is near


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the return period for your shop?", "What's the return period of the shop?"),
        ("How can I return a lamp?", "How do I return lamps?"),
        ("Do you ship to Norway?", "Can you ship to Norway"),
    ],
)
def test_function_words_do_not_make_another_question(one, other):
    assert similarity.is_near_duplicate(one, [other])


def test_the_first_of_near_duplicates_is_kept_unless_it_is_to_be_avoided():
    texts = ["When do you open?", "when do you OPEN", "Where are you?", "What does it cost?"]

    assert similarity.without_near_duplicates(texts, avoid=["what does it cost"]) == [
        "When do you open?",
        "Where are you?",
    ]


def test_no_general_prompt_nearly_repeats_another_or_one_that_is_measured_on():
    contexts = Path(__file__).parents[1] / "bench" / "contexts"
    checks = tomllib.loads((contexts / "retention.toml").read_text())["check"]
    measured = [*general_prompts.HELD_OUT, *(asked for check in checks for asked in check["ask"])]

    assert similarity.without_near_duplicates(general_prompts.PROMPTS, measured) == list(
        general_prompts.PROMPTS
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What does plan A cost?", "What does plan B cost?"),
        ("When does the north depot open?", "When does the south depot open?"),
        ("What are your hours on Saturday?", "What are your hours on Sunday?"),
        ("What does error E41 mean on the display?", "What does error E42 mean on the display?"),
        ("How much is the shirt in size M?", "How much is the shirt in size L?"),
        ("What does zone D cost?", "What does zone S cost?"),
        ("How long does delivery take to Norway?", "How long does delivery take to Sweden?"),
        ("A套餐一个月多少钱?", "B套餐一个月多少钱?"),
        ("Translate this sentence: the cat sat.", "Translate this sentence: the dog sat."),
    ],
)
def test_one_different_content_word_makes_another_question(one, other):
    assert not similarity.is_near_duplicate(one, [other])
    assert not similarity.is_near_duplicate(other, [one])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "Where is my pacakge, it was due on Monday?",
            "Where is my package? It was due on Monday!",
        ),
        ("套餐一个月多少钱?", "一个月套餐多少钱?"),
        ("दुकान कितने बजे खुलती है?", "दुकान कितने बजे खुलतीं है?"),
        ("Do you repair bicycles on Saturdays?", "Do you repair a bicycle on Saturday?"),
    ],
)
def test_a_misspelling_or_another_word_order_does_not_make_another_question(one, other):
    assert similarity.is_near_duplicate(one, [other])
    assert similarity.is_near_duplicate(other, [one])


WORDS = st.sampled_from(
    ["when", "what", "plan", "a", "b", "open", "3", "4", "norway", "norwya", "shops", "shop"]
)


@given(one=st.lists(WORDS, max_size=8), other=st.lists(WORDS, max_size=8))
def test_near_duplication_is_symmetric_and_reflexive(one, other):
    left, right = " ".join(one), " ".join(other)

    assert similarity.is_near_duplicate(left, [right]) == similarity.is_near_duplicate(
        right, [left]
    )
    assert similarity.is_near_duplicate(left, [left])
