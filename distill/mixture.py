"""The mixture of a batch: how many trajectories of each kind a step draws, and which ones.

Every choice is a function of (seed, step), so a resumed run needs no random state.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal, TypeVar

from distill.settings import TrainerSettings

# Multiples of the golden ratio modulo one are evenly spread (a low-discrepancy sequence).
GOLDEN = (math.sqrt(5) - 1) / 2

Kind = Literal["teacher_sampled", "on_policy", "teacher_sampled_replay", "on_policy_replay"]
# Each kind's part of the shuffle seed. A changed string would reorder the draws of every run.
SHUFFLE_SEEDS: dict[Kind, str] = {
    "teacher_sampled": "guided",
    "on_policy": "on_policy",
    "teacher_sampled_replay": "guided_replay",
    "on_policy_replay": "on_policy_replay",
}
T = TypeVar("T")


@dataclass(frozen=True)
class BatchMix:
    """Number of trajectories of each kind in a step; they add up to the batch size."""

    teacher_sampled: int
    on_policy: int
    teacher_sampled_replay: int
    on_policy_replay: int

    def __add__(self, other: "BatchMix") -> "BatchMix":
        return BatchMix(*map(sum, zip(astuple(self), astuple(other), strict=True)))


def batch_mix(step: int, settings: TrainerSettings) -> BatchMix:
    """Return the mixture of step `step`, counted from 0.

    The teacher-sampled share is constant, then decays linearly to zero, so that the last
    `on_policy_tail` of the run is purely on-policy. Shares hold over steps, not within each: a
    batch of four with an eighth of replay has one replay trajectory every other step.
    """
    replay = _count_due(step, settings.batch_size * settings.replay_share)
    fresh = settings.batch_size - replay
    share = settings.teacher_share * _teacher_decay(step, settings)
    # Dithering: counts are rounded up as often as the share requires, spread evenly over steps.
    dither = (step + 1) * GOLDEN % 1
    teacher_sampled = math.floor(fresh * share + dither)
    teacher_sampled_replay = math.floor(replay * share + dither)
    return BatchMix(
        teacher_sampled,
        fresh - teacher_sampled,
        teacher_sampled_replay,
        replay - teacher_sampled_replay,
    )


def draw_items(settings: TrainerSettings, kind: Kind, source: Sequence[T], step: int) -> list[T]:
    """Draw the items of one kind for a step; every item is drawn once before any repeats."""
    count = getattr(batch_mix(step, settings), kind)
    already = getattr(_drawn_before(settings)[step], kind)
    seed = f"{settings.seed}/{SHUFFLE_SEEDS[kind]}"
    return [source[index] for index in draw_indices(count, already, len(source), seed)]


def draw_indices(count: int, already: int, size: int, seed: str) -> list[int]:
    """Return the next `count` indices after `already`; each epoch is a new shuffle of `size`."""
    places = [divmod(place, size) for place in range(already, already + count)]
    return [_shuffled(size, f"{seed}/{epoch}")[offset] for epoch, offset in places]


@lru_cache(maxsize=2)
def _drawn_before(settings: TrainerSettings) -> tuple[BatchMix, ...]:
    """Return, for each step, the sum of the mixtures of all steps before it."""
    mixes = (batch_mix(step, settings) for step in range(settings.steps))
    return tuple(accumulate(mixes, initial=BatchMix(0, 0, 0, 0)))


@lru_cache(maxsize=16)
def _shuffled(size: int, seed: str) -> list[int]:
    indices = list(range(size))
    random.Random(seed).shuffle(indices)  # noqa: S311 - reproducible, not secret
    return indices


def _count_due(step: int, per_step: float) -> int:
    """Return the integer count of a step whose counts average `per_step`."""
    return math.floor((step + 1) * per_step) - math.floor(step * per_step)


def _teacher_decay(step: int, settings: TrainerSettings) -> float:
    """Return the factor on the teacher-sampled share: 1, then a linear decay to 0."""
    tail = settings.steps * settings.on_policy_tail
    # With any tail, at least the last step of a short run is purely on-policy.
    end = settings.steps - (max(tail, 1.0) if tail else 0.0)
    start = end - tail
    return 1.0 if step < start else max(0.0, (end - step) / max(end - start, 1.0))
