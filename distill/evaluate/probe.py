"""Makes probes: completions whose log-probabilities tell the trained student from the base.

An engine may serve the base while it claims to serve the adapter. Log-probabilities that are known
for both reveal this.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from distill.evaluate import measure
from distill.model.encoder import Prompt
from distill.model.packing import TokenIds
from distill.model.student import Student
from distill.model.teacher import Teacher


@dataclass(frozen=True)
class Probe:
    """One completion, with the log-probabilities of its tokens under student and base, in nats."""

    prompt_ids: list[int]
    completion_ids: list[int]
    student: list[float]
    base: list[float]


def make_probes(
    teacher: Teacher, prompts: Sequence[Prompt], completions: Sequence[TokenIds], count: int
) -> list[Probe]:
    """The probes on which student and base differ most.

    Args:
        teacher: The teacher, with the student.
        prompts: Prompts, used without the context.
        completions: The student's greedy answer to each.
        count: The maximum number of probes.
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
    return sorted(probes, key=lambda probe: -_difference(probe))[:count]


def _logprobs(student: Student, pairs: list[tuple[TokenIds, TokenIds]]) -> list[list[float]]:
    """The log-probability of each token of each completion, in nats."""
    return [_rounded(values) for values in measure.completion_logprobs(student, pairs)]


def _difference(probe: Probe) -> float:
    """The sum of the absolute differences of log-probabilities, in nats."""
    pairs = zip(probe.student, probe.base, strict=True)
    return sum(abs(student - base) for student, base in pairs)


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 5) for value in values]
