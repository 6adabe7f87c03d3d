"""Probes: what the trained student and the base say of a few tokens, to tell them apart.

An engine may serve the base while it claims to serve the adapter. A completion whose
log-probabilities are known for both tells the two apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.loss import token_logprobs
from distill.model import packing
from distill.model.encoder import Prompt
from distill.model.packing import TokenIds
from distill.model.student import Student
from distill.model.teacher import Teacher


@dataclass(frozen=True)
class Probe:
    """One completion, and how the trained student and the base judge its tokens."""

    prompt_ids: list[int]
    completion_ids: list[int]
    student: list[float]
    base: list[float]


def make_probes(
    teacher: Teacher, prompts: Sequence[Prompt], completions: Sequence[TokenIds], count: int
) -> list[Probe]:
    """Probe the student's greedy answers, under the student and under the base.

    Args:
        teacher: Holds the student.
        prompts: Asked without context.
        completions: The student's answer to each.
        count: So many probes are kept: those on which the two differ most.
    """
    student = teacher.student
    pairs = [(prompt.student_ids, ids) for prompt, ids in zip(prompts, completions, strict=True)]
    trained = _logprobs(student, pairs)
    with student.adapter_disabled():
        base = _logprobs(student, pairs)
    probes = [
        Probe(list(prompt), list(completion), *values)
        for (prompt, completion), *values in zip(pairs, trained, base, strict=True)
    ]
    return sorted(probes, key=lambda probe: -_apart(probe))[:count]


@torch.no_grad()  # type: ignore[untyped-decorator]
def _logprobs(student: Student, pairs: list[tuple[TokenIds, TokenIds]]) -> list[list[float]]:
    """The log-probability of each token of each completion, in nats."""
    found = []
    for run in packing.microbatches(pairs, 0, student.model.device):
        lengths = [len(completion) for _, completion in pairs[run]]
        states = student.states(pairs[run]).split(lengths)
        found += [
            _rounded(token_logprobs(own, student.head, completion))
            for own, (_, completion) in zip(states, pairs[run], strict=True)
        ]
    return found


def _apart(probe: Probe) -> float:
    """Sum of the differences, in nats."""
    return sum(abs(a - b) for a, b in zip(probe.student, probe.base, strict=True))


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 5) for value in values]
