"""Trajectories: completions with the teacher's hidden states at every token.

On-policy trajectories are sampled from the student. Teacher-sampled ones are sampled from the
teacher with its context: reverse KL on the student's own completions has no gradient for tokens
that it never samples, so facts need them (EDGE-OPD, arXiv 2605.23493). Their prompt, completion and
teacher states are constant in a run, so each is computed once and drawn repeatedly; a step
on them needs neither sampling nor a teacher forward pass.
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
from distill.model.teacher import Teacher, group_by_prefix


@dataclass(frozen=True)
class Trajectory:
    """A completion of a prompt, scored by the teacher."""

    prompt: Prompt
    completion: TokenIds
    """The tokens after the prompt, stop token included; the same for student and teacher."""
    teacher_states: Tensor
    """Float[C, D], the teacher's hidden states that predict the C completion tokens."""


def sample_on_policy(
    teacher: Teacher,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    temperature: float,
    seeds: Sequence[int],
) -> list[Trajectory]:
    """Sample one completion per prompt from the student, without context, and score it."""
    completions = sampler.sample([prompt.student_ids for prompt in prompts], temperature, seeds)
    return score(teacher, prompts, completions)


def sample_from_teacher(
    teacher: Teacher, sampler: LocalSampler, prompts: Sequence[Prompt], temperature: float
) -> list[Trajectory]:
    """Sample one completion per prompt from the teacher, with its context, and score it."""
    return score(teacher, prompts, teacher_completions(teacher, sampler, prompts, temperature))


def teacher_completions(
    teacher: Teacher, sampler: LocalSampler, prompts: Sequence[Prompt], temperature: float
) -> list[TokenIds]:
    """Sample one completion per prompt from the teacher; its context is prefilled once per run."""
    completions: dict[int, TokenIds] = {}
    with teacher.student.adapter_disabled():
        for prefix, indices in group_by_prefix(prompts).items():
            shared = SharedPrefix.from_cache(prefix, teacher.cache(prefix))
            ids = [prompts[index].teacher_ids for index in indices]
            sampled = sampler.sample(ids, temperature, prefix=shared)
            completions |= zip(indices, sampled, strict=True)
    return [completions[index] for index in range(len(prompts))]


def score(
    teacher: Teacher,
    prompts: Sequence[Prompt],
    completions: Sequence[TokenIds],
    is_complete: bool = False,
) -> list[Trajectory]:
    """Score completions of any sampling policy, truncated where the model writes a user turn.

    Args:
        teacher: Scores them.
        prompts: One per completion.
        completions: Token ids.
        is_complete: Whether every completion is a whole answer, even if the teacher would continue.
    """
    truncator = teacher.truncator
    truncate = truncator.truncate if truncator and not is_complete else tuple
    truncated = [truncate(completion) for completion in completions]
    pairs = list(zip(prompts, truncated, strict=True))
    scored = [
        Trajectory(prompt, completion, states)
        for (prompt, completion), states in zip(pairs, teacher.states(pairs), strict=True)
    ]
    if not truncator:
        return scored
    return [
        _settle_end(trajectory, teacher, is_complete or trajectory.completion != completion)
        for trajectory, completion in zip(scored, completions, strict=True)
    ]


def _settle_end(trajectory: Trajectory, teacher: Teacher, is_complete: bool) -> Trajectory:
    """Correct the target of the end token where the teacher would continue with another turn.

    A complete answer gets the reference end state; in any other the end token is dropped.
    """
    *answer, last = trajectory.completion
    truncator = teacher.truncator
    if not answer or not truncator or not truncator.is_eos(last):
        return trajectory
    likeliest = int(logits(trajectory.teacher_states[-1:], teacher.student.head).argmax())
    if truncator.is_eos(likeliest):
        return trajectory
    if is_complete and truncator.eos_state is not None:
        states = truncator.with_eos_state(trajectory.teacher_states)
        return replace(trajectory, teacher_states=states)
    states = trajectory.teacher_states[:-1]
    return replace(trajectory, completion=tuple(answer), teacher_states=states)


def stack_teacher_states(trajectories: Sequence[Trajectory]) -> Tensor:
    """Return Float[N, D], the teacher's states of all trajectories, concatenated."""
    return torch.cat([trajectory.teacher_states for trajectory in trajectories])
