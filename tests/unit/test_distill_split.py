"""Training, validation and held-out questions: none is lost, and none is in two splits."""

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from distill.data import split
from distill.data.collect import Collected, Question
from distill.model.encoder import user
from store.contexts import Messages


@given(st.integers(0, 60), st.integers(-3, 40), st.randoms())
def test_holding_back_takes_at_most_a_third_and_loses_nothing(count, most, chance):
    conversations = [Question(user(f"question {number}")) for number in range(count)]

    kept, held = split.hold_back(conversations, most, chance)

    assert sorted([*kept, *held], key=str) == sorted(conversations, key=str)
    assert len(held) <= min(max(most, 0), -(-count // 3))


@given(st.integers(0, 9))
def test_held_back_questions_cover_every_part_of_the_context_and_several_sorts_of_question(seed):
    numbers = range(500)  # five questions about each of a hundred statements
    conversations = [Question(user(f"{number}")) for number in numbers]

    _, held = split.hold_back(conversations, 32, random.Random(seed))

    places = [int(each.messages[0]["content"]) for each in held]
    assert all(place // 16 in range(at - 1, at + 2) for at, place in enumerate(places))
    assert len({place % 5 for place in places}) > 2


@given(
    counts=st.lists(st.integers(1, 6), max_size=12),
    needed=st.integers(0, 8),
    held_out=st.integers(0, 12),
    seed=st.integers(0, 99),
    turns_each=st.integers(1, 2),
)
def test_each_statement_keeps_two_questions_and_required_questions_are_trained_on(
    counts, needed, held_out, seed, turns_each
):
    about = [f"statement {at}" for at, count in enumerate(counts) for _ in range(count)]
    # Of a conversation, each turn is a question, and all are on one side.
    asked = [
        Question(turns(f"{at // turns_each}", at % turns_each + 1)[-1], answer)
        for at, answer in enumerate(about)
    ]
    once = [Question(user(f"once {at}"), "shown", required=True) for at in range(needed)]
    apart = [user(f"apart {at}") for at in range(held_out)]
    collected = Collected([*asked, *once], [], [], affects_general=False, statements=len(counts))

    trained = split.split(collected, apart, 1000, seed).training

    assert all(question in trained for question in once)
    most = max(counts, default=0)
    for answer in set(about):
        kept = sum(question.answer == answer for question in trained)
        assert kept >= min(
            split.MIN_TRAINING if most > split.MIN_TRAINING else 1, about.count(answer)
        )


def test_with_two_questions_a_statement_some_are_held_out_and_each_statement_is_trained_on():
    asked = [Question(user(f"{at}?"), f"statement {at // 2}") for at in range(40)]
    collected = Collected(asked, [], [], affects_general=False, statements=20)

    trained, _, held_out = split.split(collected, [], 1000, seed=0)

    assert len(held_out) >= 4
    assert {question.answer for question in trained} == {f"statement {at}" for at in range(20)}


@given(st.integers(0, 40), st.integers(0, 40), st.randoms())
def test_validation_takes_at_most_a_quarter_of_each_sort_of_question(general, own, chance):
    conversations = [Question(user(f"question {number}")) for number in range(general + own)]
    sorts = conversations[:general], conversations[general:]

    *kept, aside = split.hold_back_validation(sorts[1], sorts[0], chance)

    assert sorted([*kept[0], *kept[1], *aside], key=str) == sorted(conversations, key=str)
    assert len(aside) <= split.MAX_VALIDATION
    assert all(4 * sum(each in aside for each in sort) <= len(sort) for sort in sorts)


def turns(name: str, count: int) -> list[Messages]:
    """A conversation as it is logged: each turn with all that was said before it."""
    said: Messages = ()
    logged = []
    for number in range(count):
        said = (*said, *user(f"{name} asks {number}"))
        logged.append(said)
        said = (*said, {"role": "assistant", "content": f"{name} hears {number}"})
    return logged


def names(questions: Sequence[Messages]) -> set[str]:
    return {messages[0]["content"].split()[0] for messages in questions}


@given(
    lengths=st.lists(st.integers(1, 5), min_size=3, max_size=12),
    held_out=st.integers(0, 12),
    seed=st.integers(0, 99),
    shuffled=st.randoms(),
)
def test_all_turns_of_a_conversation_are_in_the_same_split(lengths, held_out, seed, shuffled):
    logged = [turn for number, count in enumerate(lengths) for turn in turns(f"n{number}", count)]
    shuffled.shuffle(logged)
    apart = [turn for number in range(held_out) for turn in turns(f"apart{number}", 1)]
    collected = Collected(
        [Question(turn) for turn in logged], [], [], affects_general=False, statements=1
    )

    divided = split.split(collected, apart, 1000, seed)

    trained, validated = (
        names([question.messages for question in side])
        for side in (divided.training, divided.validation)
    )
    measured = names(divided.held_out)
    assert not trained & validated
    assert not (trained | validated) & measured


@given(
    parents=st.lists(st.integers(0, 11), min_size=8, max_size=40),
    seed=st.integers(0, 99),
)
def test_no_training_conversation_continues_a_held_out_or_validation_prompt(parents, seed):
    # Each goes on from an earlier one, or begins anew: people who greet alike, and turns again.
    logged: list[Messages] = []
    for number, parent in enumerate(parents):
        before = logged[parent] if parent < len(logged) else ()
        said = (*before, {"role": "assistant", "content": f"Hi {number}"}) if before else ()
        logged.append((*said, *user(f"{number}?")))
    collected = Collected(
        [Question(each) for each in logged], [], [], affects_general=False, statements=1
    )

    divided = split.split(collected, [], 1000, seed)

    validated = [question.messages for question in divided.validation]
    for asked in [*divided.held_out, *validated]:
        assert not any(each.messages[: len(asked)] == asked for each in divided.training)


def test_conversations_with_the_same_greeting_are_separate():
    hello = user("Hello")
    one, other = (
        (*hello, {"role": "assistant", "content": "Hi!"}, *user(text))
        for text in ("Price?", "Hours?")
    )

    grouped = split.by_conversation([Question(each) for each in (hello, one, other)])

    assert sorted(len(each) for each in grouped) == [1, 2]
