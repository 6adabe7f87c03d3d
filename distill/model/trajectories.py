"""Guided trajectories: answers sampled with the context, scored once, and learned from repeatedly.

Reverse KL on the student's own answers has no gradient for what the student never says, so facts
need guidance (EDGE-OPD, arXiv 2605.23493). Prompt, answer and frozen teacher are constant in a
run: the pool keeps the teacher's hidden states, and a guided step needs neither sampling nor a
teacher's forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.model.decoding import SharedPrefix
from distill.model.encoder import Prompt
from distill.model.logits import logits
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler, Sampler
from distill.model.teacher import Teacher, buckets


@dataclass(frozen=True)
class Trajectory:
    """A completion of a prompt, and how the teacher judges it."""

    prompt: Prompt
    completion: TokenIds
    """The tokens after the prompt, the end token included; the same for student and teacher."""
    teacher: Tensor
    """Float[len(completion), D], the teacher's hidden states that predict it."""


def score(
    teacher: Teacher,
    prompts: Sequence[Prompt],
    completions: Sequence[TokenIds],
    is_complete: bool = False,
) -> list[Trajectory]:
    """Let the teacher judge completions, whoever sampled them, up to where another speaks.

    Args:
        teacher: The judge.
        prompts: What was asked.
        completions: What was answered to each.
        is_complete: Whether each completion is a whole answer, even where the teacher would go on.
    """
    cuts = teacher.truncator.first if teacher.truncator and not is_complete else tuple
    first = [cuts(completion) for completion in completions]
    pairs = list(zip(prompts, first, strict=True))
    judged = [
        Trajectory(prompt, completion, states)
        for (prompt, completion), states in zip(pairs, teacher.states(pairs), strict=True)
    ]
    if not teacher.truncator:
        return judged
    return [
        _ended(each, teacher, is_complete or each.completion != completion)
        for each, completion in zip(judged, completions, strict=True)
    ]


def _ended(judged: Trajectory, teacher: Teacher, is_complete: bool) -> Trajectory:
    """The trajectory where the teacher would go on for another, instead of ending it.

    Ended all the same if it is a whole answer; otherwise nothing is learned of its end.
    """
    *said, last = judged.completion
    if not said or not teacher.truncator or not teacher.truncator.is_end(last):
        return judged
    likeliest = int(logits(judged.teacher[-1:], teacher.student.head).argmax())
    if teacher.truncator.is_end(likeliest):
        return judged
    if is_complete and teacher.truncator.end is not None:
        return replace(judged, teacher=teacher.truncator.ended(judged.teacher))
    return replace(judged, completion=tuple(said), teacher=judged.teacher[:-1])


def answer(
    teacher: Teacher, sampler: LocalSampler, prompts: Sequence[Prompt], temperature: float
) -> list[TokenIds]:
    """What the teacher answers with its context, which it has read once in the run."""
    answered: dict[int, TokenIds] = {}
    with teacher.student.adapter_disabled():
        for prefix, members in buckets(prompts).items():
            shared = SharedPrefix.from_cache(prefix, teacher.cache(prefix))
            ids = [prompts[number].teacher_ids for number in members]
            completions = sampler.sample(ids, temperature, shared=shared)
            answered |= zip(members, completions, strict=True)
    return [answered[number] for number in range(len(prompts))]


def sample_from_teacher(
    teacher: Teacher, sampler: LocalSampler, prompts: Sequence[Prompt], temperature: float
) -> list[Trajectory]:
    """One answer of the teacher, with its context, to each prompt."""
    return score(teacher, prompts, answer(teacher, sampler, prompts, temperature))


def sample_on_policy(
    teacher: Teacher,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    temperature: float,
    seeds: Sequence[int],
) -> list[Trajectory]:
    """One answer of the student, without context, to each prompt."""
    completions = sampler.sample([prompt.student_ids for prompt in prompts], temperature, seeds)
    return score(teacher, prompts, completions)


def stack(trajectories: Sequence[Trajectory]) -> Tensor:
    """Float[N, D]: the teacher's states of several trajectories, one after the other."""
    return torch.cat([trajectory.teacher for trajectory in trajectories])
