import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.learning.corrections import Correction, find_corrections
from agent.learning.grounding import flips_meaning, preserves, ungrounded
from store import interactions
from store.schema import Trust
from store.text.words import content_words
from tests.support.factories import NOW, add_feedback, assistant, record, user

WORDS = st.text(alphabet="abcdefghij 0123456789.'’-äß", max_size=60)


@pytest.mark.parametrize(
    ("lesson", "sources", "missing"),
    [
        ("Returns are accepted within 45 days.", ["You can return it, 45 days accepted"], set()),
        ("Returns are accepted within 30 days.", ["You can return it, 45 days accepted"], {"30"}),
        ("The falcon wears a glove.", ["Do you sell lamps?", "Only at Easter"], {"falcon"}),
    ],
)
def test_a_lesson_is_grounded_if_its_words_and_numbers_are_in_the_conversation(
    lesson, sources, missing
):
    assert missing <= ungrounded(lesson, sources)
    assert bool(missing) == bool(ungrounded(lesson, sources))


@given(WORDS)
def test_every_text_is_grounded_in_itself(text):
    assert ungrounded(text, [text]) == set()
    assert preserves(text, text)


@given(WORDS, WORDS)
def test_more_sources_never_unground_a_lesson(lesson, source):
    assert ungrounded(lesson, [source, "more"]) <= ungrounded(lesson, [source])


@pytest.mark.parametrize("form", ["Return", "returns", "returned", "returning", "Return's"])
def test_inflected_forms_of_a_word_are_the_same_word(form):
    assert content_words(form) == content_words("return")


@pytest.mark.parametrize(
    ("lesson", "correction", "opposite"),
    [
        ("Gift cards are refundable.", "Gift cards are not refundable.", True),
        ("Opened items are not returned.", "Opened items can be returned.", True),
        ("Delivery is with extra charge.", "Delivery is without extra charge.", True),
        ("Adults pay 3 and children 12.", "Adults pay 12 and children 3.", True),
        ("We don't ship to Norway.", "We do not ship to Norway.", False),
        ("The fee is 9 euros.", "No, the fee is 9 euros.", False),
        ("Returns take 45 days.", "It is not 30 days, returns take 45 days.", False),
    ],
)
def test_a_lesson_that_may_say_the_opposite_is_detected(lesson, correction, opposite):
    assert flips_meaning(lesson, correction) is opposite


@given(st.text())
def test_no_text_is_the_opposite_of_itself(text):
    assert not flips_meaning(text, text)


def test_a_lesson_without_a_number_of_its_correction_is_rejected():
    assert not preserves("The phone is answered from 7.", "The phone is answered from 7 to 11.")
    assert preserves("The phone is answered 7 to 11.", "The phone is answered from 7 to 11.")


def corrections_of(session, conversation: str) -> list[Correction]:
    return find_corrections(interactions.turns(session, conversation))


@pytest.fixture
def shop(db):
    from store import namespaces

    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        yield session


def test_demonstrations_and_comments_are_corrections_and_a_thumbs_down_is_not(shop):
    interaction = record(shop, conversation="c")
    add_feedback(shop, interaction.id, name="thumbs", value={"value": False})
    add_feedback(shop, interaction.id, name="comment", comment="wrong, only to Norway")
    add_feedback(shop, interaction.id, name="demonstration", demonstration="We ship to Norway.")
    conversation = interactions.get(shop, interaction.id).conversation
    found = corrections_of(shop, conversation)
    assert [(correction.text, correction.is_demonstration) for correction in found] == [
        ("wrong, only to Norway", False),
        ("We ship to Norway.", True),
    ]
    assert found[0].question == "Do you ship abroad?"


def test_only_a_next_turn_that_contradicts_the_answer_is_a_correction(shop):
    first = [user("When do you open?")]
    second = [*first, assistant("At 9."), user("No, you open at 10 on Mondays.")]
    third = [*second, assistant("Thanks."), user("And what does a lamp cost?")]
    record(shop, conversation="c", messages=first, response="At 9.")
    record(shop, conversation="c", messages=second, response="Thanks.")
    last = record(shop, conversation="c", messages=third, response="15 euros.")
    found = corrections_of(shop, interactions.get(shop, last.id).conversation)
    assert [(correction.question, correction.text) for correction in found] == [
        ("When do you open?", "No, you open at 10 on Mondays.")
    ]


def test_an_interaction_that_opted_out_has_no_corrections(shop):
    interaction = record(shop, conversation="c", learn=False)
    add_feedback(shop, interaction.id, name="demonstration", demonstration="We ship to Norway.")
    assert corrections_of(shop, interactions.get(shop, interaction.id).conversation) == []


PRAISE = [
    ("thumbs", True),
    ("thumbs", "up"),
    ("resolved", 1),
    ("rating", 5),
    ("rating", 0.9),
    ("rating", True),
]
BLAME = [
    ("thumbs", False),
    ("thumbs", "down"),
    ("resolved", 0),
    ("rating", 1),
    ("rating", 0.2),
    ("thumbs", None),
    ("comment", True),
]


@pytest.mark.parametrize(
    ("name", "value", "corrects"),
    [(*mark, False) for mark in PRAISE] + [(*mark, True) for mark in BLAME],
)
def test_a_comment_is_a_correction_unless_its_rating_is_praise(shop, name, value, corrects):
    interaction = record(shop, conversation="c")
    add_feedback(
        shop,
        interaction.id,
        name=name,
        value={"value": value},
        comment="Just what I wanted to know.",
    )
    found = corrections_of(shop, interactions.get(shop, interaction.id).conversation)
    assert bool(found) is corrects


def test_a_demonstration_with_praise_is_a_correction(shop):
    interaction = record(shop, conversation="c")
    add_feedback(
        shop,
        interaction.id,
        name="thumbs",
        value={"value": True},
        demonstration="We ship to Norway.",
    )
    assert corrections_of(shop, interactions.get(shop, interaction.id).conversation)


@pytest.mark.parametrize(
    ("reply", "contradicts"),
    [
        ("No, thanks", False),
        ("no problem!", False),
        ("No more questions, thank you.", False),
        ("Actually, my address is Main Street 5.", False),
        ("Actually, can I pay later?", False),
        ("No, that's all.", False),
        ("No, that's not right, it is 45.", True),
        ("No problems are covered, only faults.", True),
        ("Actually, you open at 10.", True),
        ("That's wrong, it is 45 days", True),
        ("No. 45 days.", True),
        ("It's actually 45 days.", True),
        ("Hmm, no, it is 45 days.", True),
        ("You said 30 days but it's 45.", True),
        ("But your website says 45 days.", True),
        ("I think that's wrong, it's 45.", True),
        ("Sorry, no thanks.", False),
        ("Well, what about Sundays?", False),
        ("You said at 9. Thank you!", False),
    ],
)
def test_a_polite_no_is_not_a_contradiction(shop, reply, contradicts):
    first = [user("When do you open?")]
    record(shop, conversation="c", messages=first, response="At 9.")
    last = record(shop, conversation="c", messages=[*first, assistant("At 9."), user(reply)])
    found = corrections_of(shop, interactions.get(shop, last.id).conversation)
    assert bool(found) is contradicts


@pytest.mark.parametrize(("trust_turns", "trust"), [(False, Trust.USER), (True, Trust.OPERATOR)])
def test_a_turn_has_user_trust_unless_turns_are_trusted(shop, trust_turns, trust):
    first = [user("When do you open?")]
    record(shop, conversation="c", messages=first, response="At 9.")
    messages = [*first, assistant("At 9."), user("No, at 10.")]
    last = record(shop, conversation="c", messages=messages)
    turns = interactions.turns(shop, interactions.get(shop, last.id).conversation)
    [found] = find_corrections(turns, trust_turns)
    assert found.support.trust is trust
