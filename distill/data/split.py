"""What of a run's questions is trained on, what chooses a step, and what the gate measures.

A conversation is on one side alone: a later turn of it holds what was answered to an earlier one.
What several begin with is trained on, so that none of them tells the answer to what is measured.
"""

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from distill.data.collect import Collected, Question
from store.contexts import Messages

HOLD_BACK = 5
# A verdict on fewer held-out prompts than this would be a matter of luck.
MIN_HELD_OUT, MAX_HELD_OUT = 10, 32
MAX_VALIDATION = 6
# Questions that are trained on of each statement before any is held back; one where none has more.
MIN_TRAINED = 2


class Split(NamedTuple):
    """All that was collected, each on one side."""

    trained: list[Question]
    validated: list[Question]
    """By these a step is chosen."""
    held_out: list[Messages]
    """On these the gate measures."""


def split(collected: Collected, held_out: Sequence[Messages], most: int, seed: int) -> Split:
    """Divide what was collected.

    Args:
        collected: Questions that nothing is held out of yet.
        held_out: Conversations that were held out when they were logged.
        most: Questions to train on at most: more than the steps draw are answered in vain.
        seed: Of every choice.
    """
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    often = max(_answers(collected.own).values(), default=0)
    keeps = MIN_TRAINED if often > MIN_TRAINED else 1
    missing = MIN_HELD_OUT - len(held_out) if held_out else MAX_HELD_OUT
    own, held_back = hold_back(collected.own, missing, chance, keeps)
    if not collected.everything:
        missing = MIN_HELD_OUT - len(held_out) - len(held_back)
    general, more = hold_back(collected.general, missing, chance)
    own, general, validated = set_aside(own, general, chance, keeps)
    own = _some(own, most, chance)
    general = _some(general, most - len(own), chance)
    measured = [*held_out, *(question.messages for question in [*held_back, *more])]
    return Split([*general, *own], validated, measured[:MAX_HELD_OUT])


def hold_back(
    questions: Sequence[Question], most: int, chance: random.Random, keeps: int = MIN_TRAINED
) -> tuple[list[Question], list[Question]]:
    """Split off a fifth of the conversations, of few a third, but at most `most`.

    One is drawn of each stretch, since conversations about the same stand side by side, and written
    ones in the same order for each statement; none of a stretch in which all are needed.
    """
    conversations = by_conversation(questions)
    size = len(conversations)
    apart = min(HOLD_BACK, max(3, size // MIN_HELD_OUT))
    count = max(min(most, math.ceil(size / apart)), 0)
    edges = [size * number // max(count, 1) for number in range(count + 1)]
    left = _answers(questions)
    begun = _begun_elsewhere(conversations)
    held: list[Question] = []
    for stretch in pairwise(edges):
        alone = [conversations[place] for place in range(*stretch) if place not in begun]
        spared = [each for each in alone if _can_spare(each, left, keeps)]
        if spared:
            drawn = chance.choice(spared)
            held += drawn
            left -= _answers(drawn)
    return [question for question in questions if question not in held], held


def _can_spare(conversation: Sequence[Question], left: Counter[str], keeps: int) -> bool:
    """Whether what is asked for in a conversation is asked for elsewhere too, and often enough."""
    if any(question.needed for question in conversation):
        return False
    taken = _answers(conversation)
    return all(left[answer] - count >= keeps for answer, count in taken.items())


def _answers(questions: Sequence[Question]) -> Counter[str]:
    """How often each statement is asked for."""
    return Counter(question.answer for question in questions if question.answer)


def by_conversation(questions: Sequence[Question]) -> list[list[Question]]:
    """The questions, those of one conversation together.

    A later turn of a conversation begins with an earlier one, word for word.
    """
    latest: dict[str, int] = {}
    longer_last = sorted(range(len(questions)), key=lambda each: len(questions[each].messages))
    for number in longer_last:
        messages = questions[number].messages
        latest |= {_key(messages[:end]): number for end in range(1, len(messages) + 1)}
    together: dict[int, list[Question]] = defaultdict(list)
    for question in questions:
        together[latest[_key(question.messages)]].append(question)
    return list(together.values())


def _begun_elsewhere(conversations: Sequence[Sequence[Question]]) -> set[int]:
    """Places of the conversations that ask what another one goes on from."""
    asked = [{_key(each.messages) for each in conversation} for conversation in conversations]
    before = [
        {_key(each.messages[:end]) for each in conversation for end in range(1, len(each.messages))}
        for conversation in conversations
    ]
    often = Counter(key for keys in before for key in keys)
    return {
        place
        for place, (own, said) in enumerate(zip(asked, before, strict=True))
        if any(often[key] > (key in said) for key in own)
    }


def _key(messages: Messages) -> str:
    return json.dumps(messages, sort_keys=True)


def set_aside(
    own: Sequence[Question],
    general: Sequence[Question],
    chance: random.Random,
    keeps: int = MIN_TRAINED,
) -> tuple[list[Question], list[Question], list[Question]]:
    """Split off what a step is chosen by: a quarter of each sort at most, a few in all."""
    kept, aside = hold_back(own, min(MAX_VALIDATION, len(own) // 4), chance, keeps)
    most = min(MAX_VALIDATION - len(aside), len(general) // 4)
    plain, more = hold_back(general, most, chance)
    return kept, plain, [*aside, *more]


def _some(questions: Sequence[Question], most: int, chance: random.Random) -> list[Question]:
    """At most so many of the questions, from all over them."""
    count = min(len(questions), most)
    places = sorted(chance.sample(range(len(questions)), count))
    return [questions[place] for place in places]
