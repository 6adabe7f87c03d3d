"""The gate's measurements; the verdict on them is the gate's.

On prompts that were never trained on, three answer greedily: the base, the teacher (base with the
context), and the candidate (adapter, no context). Divergences are forward KL on the teacher's
answers, in nats a token, because there both base and candidate are judged on the same tokens. A
divergence is small as soon as the tone is right, whatever number is named; so the facts among
those tokens are looked at by themselves (`facts.py`).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from distill import loss
from distill.context import statements
from distill.evaluate import facts
from distill.model import packing
from distill.model.encoder import Encoder, Prompt
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.teacher import Teacher
from distill.model.trajectories import (
    Trajectory,
    sample_from_teacher,
    stack_teacher_states,
    teacher_completions,
)
from store.anchors import Anchor
from store.contexts import message_text

# Ways in which an answer speaks of its context instead of from it.
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
    """Anchors, and what is answered without training."""

    anchors: tuple[Anchor, ...]
    base_answers: tuple[str, ...] = ()
    teacher_answers: tuple[str, ...] = ()

    @property
    def base(self) -> int:
        """How many of them the base passes."""
        return self.passed(self.base_answers)

    @property
    def teacher(self) -> int:
        """How many of them the teacher passes."""
        return self.passed(self.teacher_answers)

    def passed(self, answers: Sequence[str]) -> int:
        """How many of them pass."""
        pairs = zip(self.anchors, answers, strict=True)
        return sum(anchor.passes(answer) for anchor, answer in pairs)

    def checks(self, candidate: Sequence[str]) -> list[dict[str, Any]]:
        """Each anchor with the three answers, and who passes it, as plain values."""
        columns = (self.base_answers, self.teacher_answers, candidate)
        checked = []
        for anchor, *said in zip(self.anchors, *columns, strict=True):
            answers = dict(zip(("base", "teacher", "candidate"), said, strict=True))
            passed = [who for who, answer in answers.items() if anchor.passes(answer)]
            asked = {"prompt": message_text(anchor.messages[-1]), "expect": anchor.expect}
            checked.append({**asked, **answers, "passed": passed})
        return checked


@dataclass(frozen=True)
class EvaluationSet:
    """What a candidate is measured on."""

    held_out: Sequence[Prompt]
    """Prompts that were not trained on."""
    unrelated: Sequence[Prompt]
    """General prompts that were not trained on."""
    anchored: Anchored


@dataclass(frozen=True)
class Evaluation:
    """What the gate decides on; all of it can be written as JSON."""

    held_out: int
    """Prompts behind the numbers."""
    kl_base: float
    """KL(teacher || base) on the teacher's answers, nats a token."""
    kl_candidate: float
    """KL(teacher || candidate) on the same tokens."""
    gap_closed: float
    """1 - kl_candidate / kl_base; 1 means that the candidate is the teacher."""
    facts: int
    """Tokens of numbers and names of the context in the teacher's answers that the base misses."""
    facts_learned: float
    """Share of them that the candidate gives, 0 to 1; 1 where there are none."""
    retention_kl: float
    """KL(teacher || candidate) on the teacher's answers to unrelated prompts, nats a token: there
    the teacher is the base without a context, or with it where the context is about everything."""
    length_ratio: float
    """Length of the candidate's answers against the teacher's and the base's (`length_ratio`)."""
    repetition: float
    """Share of word triples that repeat within an answer, beyond the share in answers of the
    teacher and of the base, 0 to 1."""
    leak_rate: float
    """Share of answers that speak of a context, beyond the share of those same answers."""
    anchors: dict[str, int]
    """How many anchors base, teacher and candidate pass, and how many there are (`total`)."""
    checks: list[dict[str, Any]]
    """Each anchor: prompt, what is expected, the three answers, and who passes."""
    answers: list[dict[str, str]]
    """Prompt and the three answers, for people."""

    def as_dict(self) -> dict[str, Any]:
        """The evaluation as plain values."""
        return asdict(self)


def measure_candidate(
    teacher: Teacher,
    sampler: LocalSampler,
    encoder: Encoder,
    evaluation_set: EvaluationSet,
    completions: Sequence[TokenIds],
) -> Evaluation:
    """Measure the candidate that the student holds.

    Args:
        teacher: With the student, whose adapter is the candidate.
        sampler: Of whichever adapter state the model is in.
        encoder: Of the run's context.
        evaluation_set: What it is measured on.
        completions: The student's greedy answers to the held-out prompts and the unrelated ones.
    """
    held_out, unrelated = evaluation_set.held_out, evaluation_set.unrelated
    anchors = evaluation_set.anchored
    patient = sampler.for_stage("measure the teacher")
    everything = sample_from_teacher(teacher, patient, [*held_out, *unrelated], temperature=0)
    reference, unchanged = everything[: len(held_out)], everything[len(held_out) :]
    taught = encoder.decode([item.completion for item in everything])
    candidate = encoder.decode(completions)
    with teacher.student.adapter_disabled():
        base = encoder.decode(greedy(sampler.for_stage("measure the base"), held_out))
    kl_base, kl_candidate = base_kl(teacher, reference), student_kl(teacher, reference)
    said = "\n".join(statements.split_statements(encoder.context))
    missed, learned = facts.count(teacher, encoder.tokenizer, said, reference)
    asked = [encoder.prompt(anchor.messages) for anchor in anchors.anchors]
    given = encoder.decode(greedy(sampler.for_stage("anchors, candidate"), asked))
    return Evaluation(
        held_out=len(held_out),
        kl_base=kl_base,
        kl_candidate=kl_candidate,
        gap_closed=1 - kl_candidate / max(kl_base, 1e-9),
        facts=missed,
        facts_learned=learned / missed if missed else 1.0,
        retention_kl=student_kl(teacher, unchanged),
        length_ratio=length_ratio(
            *(_words(texts[: len(held_out)]) for texts in (candidate, taught, base))
        ),
        repetition=max(0.0, repetition(candidate) - max(repetition(taught), repetition(base))),
        leak_rate=max(0.0, leak_rate(candidate) - leak_rate(taught)),
        anchors={
            "total": len(anchors.anchors),
            "base": anchors.base,
            "teacher": anchors.teacher,
            "candidate": anchors.passed(given),
        },
        checks=anchors.checks(given),
        answers=[
            {"prompt": prompt.text, "base": one, "teacher": two, "candidate": three}
            for prompt, one, two, three in zip(held_out, base, taught, candidate, strict=False)
        ],
    )


def greedy(sampler: LocalSampler, prompts: Sequence[Prompt]) -> list[TokenIds]:
    """Greedy answers without context, by the model as it is.

    To all prompts together: a decoding step of many sequences takes hardly longer than one of few.
    """
    ids = [prompt.student_ids for prompt in prompts]
    completions: list[TokenIds] = sampler.sample(ids, temperature=0)
    return completions


def length_ratio(candidate: float, teacher: float, base: float) -> float:
    """How far the candidate's length is outside of what teacher and base do; 1 between them.

    A candidate is on its way from the base to the teacher, so only a length that neither has is a
    drift.
    """
    low, high = sorted((max(teacher, 1), max(base, 1)))
    return candidate / min(max(candidate, low), high)


def check_anchors(
    teacher: Teacher, sampler: LocalSampler, encoder: Encoder, anchors: Sequence[Anchor]
) -> Anchored:
    """What base and teacher answer to the anchors; the candidate comes later."""
    prompts = [encoder.prompt(anchor.messages) for anchor in anchors]
    with teacher.student.adapter_disabled():
        base = encoder.decode(greedy(sampler.for_stage("anchors, base"), prompts))
    patient = sampler.for_stage("anchors, teacher")
    taught = encoder.decode(teacher_completions(teacher, patient, prompts, temperature=0))
    return Anchored(tuple(anchors), tuple(base), tuple(taught))


@torch.no_grad()  # type: ignore[untyped-decorator]
def token_kls(teacher: Teacher, trajectories: Sequence[Trajectory]) -> list[Tensor]:
    """Float[len(completion)] for each trajectory: KL(teacher || student) at its tokens, nats."""
    student = teacher.student
    pairs = [(item.prompt.student_ids, item.completion) for item in trajectories]
    found: list[Tensor] = []
    for run in packing.microbatches(pairs, 0, student.model.device):
        states = student.states(pairs[run])
        ones = torch.ones(len(states), device=states.device)
        # What a resume point kept is on the CPU.
        judged = stack_teacher_states(trajectories[run]).to(states.device)
        _, each, _ = loss.divergence(states, judged, student.head, ones, loss.FORWARD)
        found += each.split([len(completion) for _, completion in pairs[run]])
    return found


def student_kl(teacher: Teacher, trajectories: Sequence[Trajectory]) -> float:
    """Mean KL(teacher || student) over all tokens of the trajectories, nats a token."""
    each = token_kls(teacher, trajectories)
    return float(torch.cat(each).mean()) if each else 0.0


def base_kl(teacher: Teacher, trajectories: Sequence[Trajectory]) -> float:
    """Mean KL(teacher || base without context): the gap that a run could close."""
    with teacher.student.adapter_disabled():
        return student_kl(teacher, trajectories)


def repetition(texts: Sequence[str]) -> float:
    """Share of word triples that repeat an earlier one of the same text, 0 to 1."""
    total = repeated = 0
    for text in texts:
        words = text.lower().split()
        triples = Counter(zip(*(words[start:] for start in range(NGRAM)), strict=False))
        total += triples.total()
        repeated += triples.total() - len(triples)
    return repeated / max(total, 1)


def leak_rate(texts: Sequence[str]) -> float:
    """Share of texts that speak of a context instead of from it, 0 to 1."""
    return sum(bool(LEAK.search(text)) for text in texts) / max(len(texts), 1)


def _words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)
