"""Tokens, sentences, content words, negations and numbers in any script."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.text import words
from store.text.similarity import is_near_duplicate, statement_similarity


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("£9.50 or 5%", ["£", "9.50", "or", "5", "%"]),
        ("7:30-11, E41", ["7:30", "11", "E41"]),
        ("9am", ["9", "am"]),
        ("What's Ilse’s?", ["What", "'s", "Ilse", "’s"]),
        ("I don't", ["I", "don't"]),
        ("退货期为30天", ["退货期为", "30", "天"]),
        ("A套餐", ["A", "套餐"]),
        ("दुकान खुलती", ["दुकान", "खुलती"]),
        ("می\u200cروم", ["می\u200cروم"]),
        ("snake_case", ["snake", "case"]),
    ],
)
def test_tokens_are_words_numbers_and_signs_in_any_script(text, tokens):
    assert words.tokens(text) == tokens


@given(st.text())
def test_every_number_and_every_letter_is_in_a_token(text):
    joined = "".join(words.tokens(text))
    assert [each for each in text if each.isalpha()] == [each for each in joined if each.isalpha()]
    assert words.digit_runs(text) == words.digit_runs(" ".join(words.tokens(text)))
    assert set(words.numbers(text)) <= set(words.numbers(" ".join(words.tokens(text)))) | {
        each for token in words.tokens(text) for each in words.numbers(token)
    }


@given(st.text(max_size=300))
def test_sentences_keep_all_tokens_in_order(text):
    parts = words.sentences(text)
    assert [each for part in parts for each in words.tokens(part)] == words.tokens(text)
    assert all("\n" not in part for part in parts)


@pytest.mark.parametrize(
    "sentences",
    [
        ["Ask Mr. Smith.", "He knows."],
        ["It takes approx. 5 days.", "Then call."],
        ["We open at 8 a.m. on Mondays.", "We close at 6 p.m.", "Parking is free."],
        ["The desk opens at 9 a.m. GMT.", "It is upstairs."],
        ["Call (see the desk. It is open) first.", "Thanks."],
        ["No.", "it is 45 days.", "5 for lamps."],
        ["Wait…", "Go."],
        ["هل المتجر مفتوح؟", "نعم."],
        ["ሱቁ ክፍት ነው።", "አዎ።"],
    ],
)
def test_sentences_end_by_the_rules_of_their_script_and_not_after_abbreviations(sentences):
    assert words.sentences(" ".join(sentences)) == sentences


def test_a_closing_quote_belongs_to_the_sentence_before_it():
    assert words.sentences("他说：「你好。」我们开门。") == [  # noqa: RUF001
        "他说：「你好。」",  # noqa: RUF001
        "我们开门。",
    ]


@pytest.mark.parametrize(
    ("sentence", "refers"),
    [
        ("They cost 9 euros.", True),
        ('"It\'s free."', True),
        ("Then it is free.", True),
        ("Lamps and their shades cost 9 euros.", False),
        ("Sie kosten 9 Euro.", False),
        ("", False),
    ],
)
def test_a_sentence_refers_back_by_its_first_word(sentence, refers):
    assert words.refers_back(sentence) is refers


def test_content_words_without_spaces_match_by_their_characters():
    assert words.content_words("退货期") <= words.content_words("我们的退货期为30天")


@pytest.mark.parametrize("text", ["CAN'T", "don’t", "cannot", "Neither", "no", "without"])
def test_negations_are_counted_in_every_spelling(text):
    assert words.negations(f"We {text} x.") == 1


def test_every_function_word_is_of_one_kind_and_in_lower_case():
    listed = [word for kind in words.FUNCTION_WORDS.values() for word in kind]
    assert len(listed) == len(set(listed))
    assert all(word == words.fold(word) for word in listed)


def test_am_and_pm_are_different_times():
    assert words.content_words("Open at 9am.") != words.content_words("Open at 9pm.")
    assert not is_near_duplicate("Are you open at 9am?", ["Are you open at 9pm?"])
    assert statement_similarity("We open at 9 am.", "We open at 9 pm.") == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Do you open at 7:30 or at 8?", "Do you open at 8:30 or at 7?"),
        ("Is the deposit for the bicycle $50?", "Is the deposit for the bicycle €50?"),
    ],
)
def test_another_time_or_currency_makes_another_question(left, right):
    assert not is_near_duplicate(left, [right])
    assert not is_near_duplicate(right, [left])


def test_spellings_of_a_negation_are_near_duplicates():
    assert is_near_duplicate("Why can't I return it?", ["Why can I not return it?"])
    assert not is_near_duplicate("Why can't I return it?", ["When can I return it?"])


def test_a_range_with_a_hyphen_equals_one_in_words():
    assert statement_similarity("We open 7-11 daily.", "We open 7 to 11 daily.") > 0
    assert words.numbers("7-11") == words.numbers("7 to 11")


@given(st.lists(st.sampled_from(["Plan", "B", "costs", "not", "7:30", "退货", "£", "l'hôtel"])))
def test_every_text_is_similar_to_itself(parts):
    text = " ".join(parts)
    assert is_near_duplicate(text, [text])
    assert statement_similarity(text, text) == 1 or not words.tokens(text)


@given(st.lists(st.sampled_from(["plan", "b", "cost", "7:30", "退货", "£", "open"]), min_size=1))
def test_questions_with_reversed_words_are_near_duplicates(parts):
    assert is_near_duplicate(" ".join(parts), [" ".join(reversed(parts))])
