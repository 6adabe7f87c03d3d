"""Batches: how many trajectories of each kind a step has, and which of them.

Every choice follows from the seed and the step alone, so a resumed run needs no random state.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal, TypeVar

from config.sections import Distill

# Multiples of it, taken modulo one, lie evenly everywhere.
GOLDEN = (math.sqrt(5) - 1) / 2

Kind = Literal["teacher_sampled", "on_policy", "teacher_sampled_replay", "on_policy_replay"]
# Changing one reorders the draws of every run.
SHUFFLE_SEEDS: dict[Kind, str] = {
    "teacher_sampled": "guided",
    "on_policy": "on_policy",
    "teacher_sampled_replay": "guided_replay",
    "on_policy_replay": "on_policy_replay",
}
T = TypeVar("T")


@dataclass(frozen=True)
class BatchMix:
    """How many trajectories of a step are of each kind; they add up to the batch size."""

    teacher_sampled: int
    on_policy: int
    teacher_sampled_replay: int
    on_policy_replay: int

    def __add__(self, other: "BatchMix") -> "BatchMix":
        return BatchMix(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def batch_mix(step: int, settings: Distill) -> BatchMix:
    """What step `step` (from 0) is made of.

    Guided trajectories hold their share, then fall linearly to zero, so that the last part of the
    run, `on_policy_tail`, is purely on-policy. Shares are kept over steps, not in each: a batch of
    four with an eighth of replay has one replay trajectory every other step.
    """
    replay = _due(step, settings.batch_size * settings.replay_share)
    fresh = settings.batch_size - replay
    share = settings.teacher_share * _guidance_left(step, settings)
    # Rounded up as often as a share of its kind asks for, and not always in the same steps.
    up = (step + 1) * GOLDEN % 1
    guided, teacher_sampled_replay = math.floor(fresh * share + up), math.floor(replay * share + up)
    return BatchMix(guided, fresh - guided, teacher_sampled_replay, replay - teacher_sampled_replay)


def draw_items(settings: Distill, kind: Kind, source: Sequence[T], step: int) -> list[T]:
    """What step `step` draws of one kind: everything once before anything again."""
    count = getattr(batch_mix(step, settings), kind)
    already = getattr(_before(settings)[step], kind)
    seed = f"{settings.seed}/{SHUFFLE_SEEDS[kind]}"
    return [source[index] for index in draw_indices(count, already, len(source), seed)]


def draw_indices(count: int, already: int, size: int, seed: str) -> list[int]:
    """The next `count` indices after `already` drawn: every epoch a new order of all `size`."""
    places = [divmod(place, size) for place in range(already, already + count)]
    return [_order(size, f"{seed}/{epoch}")[offset] for epoch, offset in places]


@lru_cache(maxsize=2)
def _before(settings: Distill) -> tuple[BatchMix, ...]:
    """What all steps before each took together."""
    each = (batch_mix(step, settings) for step in range(settings.steps))
    return tuple(accumulate(each, initial=BatchMix(0, 0, 0, 0)))


@lru_cache(maxsize=16)
def _order(size: int, seed: str) -> list[int]:
    order = list(range(size))
    random.Random(seed).shuffle(order)  # noqa: S311 - reproducible, not secret
    return order


def _due(step: int, each: float) -> int:
    return math.floor((step + 1) * each) - math.floor(step * each)


def _guidance_left(step: int, settings: Distill) -> float:
    alone = settings.steps * settings.on_policy_tail
    # Of a short run too, the last step is the student's own.
    end = settings.steps - (max(alone, 1.0) if alone else 0.0)
    start = end - alone
    return 1.0 if step < start else max(0.0, (end - step) / max(end - start, 1.0))
