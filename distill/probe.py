"""Probes: what the trained student and the base say of a few tokens, to tell them apart.

An engine may serve the base while it claims to serve the adapter. A completion whose
log-probabilities are known for both tells the two apart.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data import Prompt
from distill.loss import token_logprobs
from distill.publish import Probe
from distill.sampler import LocalSampler
from distill.teacher import Teacher


def make_probes(
    teacher: Teacher, sampler: LocalSampler, prompts: Sequence[Prompt], count: int
) -> list[Probe]:
    """Probe the student's greedy answers, under the student and under the base.

    Args:
        teacher: Holds the student.
        sampler: Of the student's weights.
        prompts: Asked without context.
        count: So many probes are kept: those on which the two differ most.
    """
    student = teacher.student
    completions = sampler.sample([prompt.student_ids for prompt in prompts], temperature=0)
    probes = []
    for prompt, completion in zip(prompts, completions, strict=True):
        pair = [(prompt.student_ids, completion)]
        with torch.no_grad():
            trained = _rounded(token_logprobs(student.states(pair), student.head, completion))
        with student.adapter_off():
            base = _rounded(token_logprobs(student.states(pair), student.head, completion))
        probes.append(Probe(list(prompt.student_ids), list(completion), trained, base))
    return sorted(probes, key=lambda probe: -_apart(probe))[:count]


def _apart(probe: Probe) -> float:
    """Sum of the differences, in nats."""
    return sum(abs(a - b) for a, b in zip(probe.student, probe.base, strict=True))


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 5) for value in values]
