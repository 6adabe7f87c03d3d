"""Measures answers: their divergence from the teacher's, the anchors they pass, their style."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill import loss
from distill.loss import token_logprobs
from distill.model import packing
from distill.model.encoder import Encoder, Prompt
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.student import Student
from distill.model.teacher import Teacher
from distill.model.trajectories import (
    Trajectory,
    stack_teacher_states,
    teacher_completions,
)
from store.anchors import Anchor
from store.contexts import message_text

# Phrases by which an answer mentions its context.
LEAK = re.compile(
    r"\b(the|my|these|your) (notes?|instructions?|lessons?|context|system prompt|guidelines) "
    r"(above|say|state|provided|given)|as (stated|provided|mentioned|described) (above|in the)|"
    r"according to (the|my) (notes?|instructions?|lessons?|context|information provided)|"
    r"keep to the following",
    re.IGNORECASE,
)
NGRAM = 3


@dataclass(frozen=True)
class Anchored:
    """Anchors, with the answers of the models that are not trained."""

    anchors: tuple[Anchor, ...]
    base_answers: tuple[str, ...] = ()
    teacher_answers: tuple[str, ...] = ()

    @property
    def base(self) -> int:
        """How many anchors the base passes."""
        return self.passed(self.base_answers)

    @property
    def teacher(self) -> int:
        """How many anchors the teacher passes."""
        return self.passed(self.teacher_answers)

    def passed(self, answers: Sequence[str]) -> int:
        """How many anchors the answers pass."""
        pairs = zip(self.anchors, answers, strict=True)
        return sum(anchor.passes(answer) for anchor, answer in pairs)

    def counts(self, candidate: Sequence[str]) -> dict[str, int]:
        """How many anchors there are (`total`), and how many each of the three models passes."""
        return {
            "total": len(self.anchors),
            "base": self.base,
            "teacher": self.teacher,
            "candidate": self.passed(candidate),
        }

    def checks(self, candidate: Sequence[str]) -> list[dict[str, Any]]:
        """Each anchor with the three answers and the models that pass it, as plain values."""
        columns = (self.base_answers, self.teacher_answers, candidate)
        checked = []
        for anchor, *texts in zip(self.anchors, *columns, strict=True):
            answers = dict(zip(("base", "teacher", "candidate"), texts, strict=True))
            passed = [model for model, answer in answers.items() if anchor.passes(answer)]
            check = {"prompt": message_text(anchor.messages[-1]), "expect": anchor.expect}
            checked.append({**check, **answers, "passed": passed})
        return checked


def greedy(sampler: LocalSampler, prompts: Sequence[Prompt]) -> list[TokenIds]:
    """Greedy answers without context, from the model in its current adapter state.

    All prompts are one batch, because a large decode batch takes hardly longer than a small one.
    """
    ids = [prompt.student_ids for prompt in prompts]
    completions: list[TokenIds] = sampler.sample(ids, temperature=0)
    return completions


def length_ratio(candidate: float, teacher: float, base: float) -> float:
    """How far the candidate's length is outside the range from base to teacher; 1 inside it.

    Training moves the candidate from the base to the teacher, so only a length beyond both is
    drift.
    """
    low, high = sorted((max(teacher, 1), max(base, 1)))
    return candidate / min(max(candidate, low), high)


def check_anchors(
    teacher: Teacher, sampler: LocalSampler, encoder: Encoder, anchors: Sequence[Anchor]
) -> Anchored:
    """The anchors with the answers of base and teacher."""
    prompts = [encoder.prompt(anchor.messages) for anchor in anchors]
    with teacher.student.adapter_disabled():
        base = encoder.decode(greedy(sampler.for_stage("anchors, base"), prompts))
    sampler = sampler.for_stage("anchors, teacher")
    taught = encoder.decode(teacher_completions(teacher, sampler, prompts, temperature=0))
    return Anchored(tuple(anchors), tuple(base), tuple(taught))


@torch.no_grad()  # type: ignore[untyped-decorator]
def token_kls(teacher: Teacher, trajectories: Sequence[Trajectory]) -> list[Tensor]:
    """Float[len(completion)] for each trajectory: KL(teacher || student) at its tokens, nats."""
    student = teacher.student
    pairs = [(item.prompt.student_ids, item.completion) for item in trajectories]
    divergences: list[Tensor] = []
    for microbatch in packing.microbatches(pairs, 0, student.model.device):
        states = student.states(pairs[microbatch])
        ones = torch.ones(len(states), device=states.device)
        # After a resume, the teacher's states are on the CPU.
        teacher_states = stack_teacher_states(trajectories[microbatch]).to(states.device)
        _, kls, _ = loss.divergence(states, teacher_states, student.head, ones, loss.FORWARD)
        divergences += kls.split([len(completion) for _, completion in pairs[microbatch]])
    return divergences


@torch.no_grad()  # type: ignore[untyped-decorator]
def teacher_logprobs(student: Student, trajectories: Sequence[Trajectory]) -> list[Tensor]:
    """Float[C] for each trajectory: the teacher's log-probabilities of its tokens, in nats."""
    head = student.head
    return [
        token_logprobs(item.teacher_states.to(head.device), head, item.completion)
        for item in trajectories
    ]


@torch.no_grad()  # type: ignore[untyped-decorator]
def completion_logprobs(student: Student, pairs: list[tuple[TokenIds, TokenIds]]) -> list[Tensor]:
    """Float[C] for each pair of prompt and completion: the student's log-probabilities, in nats."""
    logprobs: list[Tensor] = []
    for microbatch in packing.microbatches(pairs, 0, student.model.device):
        lengths = [len(completion) for _, completion in pairs[microbatch]]
        states = student.states(pairs[microbatch]).split(lengths)
        logprobs += [
            token_logprobs(own, student.head, completion)
            for own, (_, completion) in zip(states, pairs[microbatch], strict=True)
        ]
    return logprobs


def student_kl(teacher: Teacher, trajectories: Sequence[Trajectory]) -> float:
    """Mean KL(teacher || student) over all tokens of the trajectories, nats per token."""
    divergences = token_kls(teacher, trajectories)
    return float(torch.cat(divergences).mean()) if divergences else 0.0


def base_kl(teacher: Teacher, trajectories: Sequence[Trajectory]) -> float:
    """Mean KL(teacher || base without context): the gap that training can close."""
    with teacher.student.adapter_disabled():
        return student_kl(teacher, trajectories)


def repetition(texts: Sequence[str]) -> float:
    """Share of word trigrams that repeat an earlier one in the same text, 0 to 1."""
    total = repeated = 0
    for text in texts:
        words = text.lower().split()
        trigrams = Counter(zip(*(words[start:] for start in range(NGRAM)), strict=False))
        total += trigrams.total()
        repeated += trigrams.total() - len(trigrams)
    return repeated / max(total, 1)


def leak_rate(texts: Sequence[str]) -> float:
    """Share of texts that mention a context, 0 to 1."""
    return sum(bool(LEAK.search(text)) for text in texts) / max(len(texts), 1)


def count_words(texts: Sequence[str]) -> int:
    """The number of words in all texts."""
    return sum(len(text.split()) for text in texts)
