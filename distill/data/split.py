"""Divides a run's questions into training, validation and held-out prompts.

A conversation is never divided, because its later turns contain the answers to earlier ones. If
several conversations have the same start, that start is trained on, so that no training prompt
contains the answer to a held-out one.
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
# With fewer held-out prompts, a verdict would depend on chance.
MIN_HELD_OUT, MAX_HELD_OUT = 10, 32
MAX_VALIDATION = 6
# Questions about each statement to train on before any is held back; one if none has more.
MIN_TRAINING = 2


class Split(NamedTuple):
    """All collected questions, each in one part."""

    training: list[Question]
    validation: list[Question]
    """Select the best step."""
    held_out: list[Messages]
    """Measured by the gate."""


def split(
    collected: Collected,
    held_out: Sequence[Messages],
    max_training: int,
    seed: int,
    measuring: int = 0,
) -> Split:
    """Divide the collected questions.

    Args:
        collected: All questions of the run.
        held_out: Conversations that were held out when they were logged.
        max_training: The maximum number of questions to train on; steps draw no more.
        seed: The seed of every random choice.
        measuring: How many further questions are measured.
    """
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    max_questions = max(_answers(collected.own).values(), default=0)
    min_left = MIN_TRAINING if max_questions > MIN_TRAINING else 1
    missing = MIN_HELD_OUT - len(held_out) if held_out else MAX_HELD_OUT
    missing -= measuring
    own, held_back = hold_back(collected.own, missing, rng, min_left)
    if not collected.affects_general:
        missing = MIN_HELD_OUT - len(held_out) - len(held_back) - measuring
    general, general_held_back = hold_back(collected.general, missing, rng)
    own, general, validation = hold_back_validation(own, general, rng, min_left)
    own = _sample(own, max_training, rng)
    general = _sample(general, max_training - len(own), rng)
    measured = [
        *held_out,
        *(question.messages for question in [*held_back, *general_held_back]),
    ]
    return Split([*general, *own], validation, measured[:MAX_HELD_OUT])


def hold_back(
    questions: Sequence[Question],
    max_count: int,
    rng: random.Random,
    min_left: int = MIN_TRAINING,
) -> tuple[list[Question], list[Question]]:
    """Split off a fifth of the conversations (a third of few), but at most `max_count`.

    One is drawn from each stretch of the list, since conversations about the same statement are
    adjacent, and written questions have the same order for each statement. None is drawn from a
    stretch in which all are required.
    """
    conversations = by_conversation(questions)
    size = len(conversations)
    divisor = min(HOLD_BACK, max(3, size // MIN_HELD_OUT))
    count = max(min(max_count, math.ceil(size / divisor)), 0)
    edges = [size * number // max(count, 1) for number in range(count + 1)]
    left = _answers(questions)
    shared = _shared_starts(conversations)
    held: list[Question] = []
    for stretch in pairwise(edges):
        own = [conversations[index] for index in range(*stretch) if index not in shared]
        candidates = [questions for questions in own if _can_spare(questions, left, min_left)]
        if candidates:
            drawn = rng.choice(candidates)
            held += drawn
            left -= _answers(drawn)
    return [question for question in questions if question not in held], held


def _can_spare(conversation: Sequence[Question], left: Counter[str], min_left: int) -> bool:
    """Whether enough other questions have the answers of a conversation."""
    if any(question.required for question in conversation):
        return False
    taken = _answers(conversation)
    return all(left[answer] - count >= min_left for answer, count in taken.items())


def _answers(questions: Sequence[Question]) -> Counter[str]:
    """The number of questions with each context-verbatim answer."""
    return Counter(question.answer for question in questions if question.answer)


def by_conversation(questions: Sequence[Question]) -> list[list[Question]]:
    """The questions grouped by conversation.

    A later turn of a conversation starts with all messages of an earlier one.
    """
    latest: dict[str, int] = {}
    longest_last = sorted(range(len(questions)), key=lambda index: len(questions[index].messages))
    for number in longest_last:
        messages = questions[number].messages
        latest |= {_key(messages[:end]): number for end in range(1, len(messages) + 1)}
    groups: dict[int, list[Question]] = defaultdict(list)
    for question in questions:
        groups[latest[_key(question.messages)]].append(question)
    return list(groups.values())


def _shared_starts(conversations: Sequence[Sequence[Question]]) -> set[int]:
    """Indices of the conversations that another one continues."""
    keys = [{_key(turn.messages) for turn in conversation} for conversation in conversations]
    starts = [
        {_key(turn.messages[:end]) for turn in conversation for end in range(1, len(turn.messages))}
        for conversation in conversations
    ]
    counts = Counter(key for conversation_starts in starts for key in conversation_starts)
    return {
        index
        for index, (own, own_starts) in enumerate(zip(keys, starts, strict=True))
        if any(counts[key] > (key in own_starts) for key in own)
    }


def _key(messages: Messages) -> str:
    return json.dumps(messages, sort_keys=True)


def hold_back_validation(
    own: Sequence[Question],
    general: Sequence[Question],
    rng: random.Random,
    min_left: int = MIN_TRAINING,
) -> tuple[list[Question], list[Question], list[Question]]:
    """Split off the validation questions: at most a quarter of each kind, `MAX_VALIDATION` in all.

    Returns:
        The rest of `own`, the rest of `general`, and the validation questions.
    """
    own_left, validation = hold_back(own, min(MAX_VALIDATION, len(own) // 4), rng, min_left)
    max_count = min(MAX_VALIDATION - len(validation), len(general) // 4)
    general_left, general_validation = hold_back(general, max_count, rng)
    return own_left, general_left, [*validation, *general_validation]


def _sample(questions: Sequence[Question], max_count: int, rng: random.Random) -> list[Question]:
    """A random sample of at most `max_count` questions, in their order."""
    count = min(len(questions), max_count)
    indices = sorted(rng.sample(range(len(questions)), count))
    return [questions[index] for index in indices]
