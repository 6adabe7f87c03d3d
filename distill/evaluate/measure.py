"""Takes the measurements on which the gate decides.

Three models answer held-out prompts greedily: the base, the teacher (the base with the context) and
the candidate (the adapter, no context). Divergences are forward KL on the teacher's answers, in
nats per token, so base and candidate are scored on the same tokens. A divergence is already small
if the tone is right and the numbers are wrong, so facts are measured separately (`facts.py`).
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


@dataclass(frozen=True)
class EvaluationSet:
    """The prompts and anchors that a candidate is measured on."""

    held_out: Sequence[Prompt]
    """Prompts that were not trained on."""
    unrelated: Sequence[Prompt]
    """General prompts that were not trained on."""
    anchored: Anchored


@dataclass(frozen=True)
class Evaluation:
    """The measurements on which the gate decides; all fields can be written as JSON."""

    held_out: int
    """The number of held-out prompts."""
    kl_base: float
    """KL(teacher || base) on the teacher's answers, nats per token."""
    kl_candidate: float
    """KL(teacher || candidate) on the same tokens."""
    gap_closed: float
    """1 - kl_candidate / kl_base; 1 means that the candidate equals the teacher."""
    facts: int
    """Tokens of the context's numbers and names in the teacher's answers that the base misses."""
    facts_learned: float
    """The share of them that the candidate says, 0 to 1; 1 if there are none."""
    retention_kl: float
    """KL(teacher || candidate) on the teacher's answers to unrelated prompts, nats per token. There
    the teacher is the base without the context, or with it if it affects general prompts."""
    length_ratio: float
    """Length of the candidate's answers relative to the teacher's and base's (`length_ratio`)."""
    repetition: float
    """Share of word trigrams that repeat within an answer, in excess of the share in the teacher's
    and the base's answers, 0 to 1."""
    leak_rate: float
    """Share of answers that mention a context, in excess of the share in the teacher's answers."""
    anchors: dict[str, int]
    """The number of anchors that base, teacher and candidate pass, and the `total`."""
    checks: list[dict[str, Any]]
    """Each anchor: prompt, expectation, the three answers, and the models that pass."""
    answers: list[dict[str, str]]
    """Each prompt with the three answers, for people to read."""

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
    """Measure the candidate, which is the student's adapter.

    Args:
        teacher: The teacher, with the student.
        sampler: Samples from the model in its current adapter state.
        encoder: The encoder of the run's context.
        evaluation_set: Prompts and anchors.
        completions: The student's greedy answers to the held-out prompts, then the unrelated ones.
    """
    held_out, unrelated = evaluation_set.held_out, evaluation_set.unrelated
    anchors = evaluation_set.anchored
    taught = sample_from_teacher(
        teacher, sampler.for_stage("measure the teacher"), [*held_out, *unrelated], temperature=0
    )
    reference, retained = taught[: len(held_out)], taught[len(held_out) :]
    teacher_texts = encoder.decode([item.completion for item in taught])
    candidate_texts = encoder.decode(completions)
    with teacher.student.adapter_disabled():
        base_texts = encoder.decode(greedy(sampler.for_stage("measure the base"), held_out))
    kl_base, kl_candidate = base_kl(teacher, reference), student_kl(teacher, reference)
    context = "\n".join(statements.split_statements(encoder.context))
    missed, learned = facts.count(teacher, encoder.tokenizer, context, reference)
    anchor_prompts = [encoder.prompt(anchor.messages) for anchor in anchors.anchors]
    anchor_texts = encoder.decode(greedy(sampler.for_stage("anchors, candidate"), anchor_prompts))
    return Evaluation(
        held_out=len(held_out),
        kl_base=kl_base,
        kl_candidate=kl_candidate,
        gap_closed=1 - kl_candidate / max(kl_base, 1e-9),
        facts=missed,
        facts_learned=learned / missed if missed else 1.0,
        retention_kl=student_kl(teacher, retained),
        length_ratio=length_ratio(
            *(
                _count_words(texts[: len(held_out)])
                for texts in (candidate_texts, teacher_texts, base_texts)
            )
        ),
        repetition=max(
            0.0,
            repetition(candidate_texts) - max(repetition(teacher_texts), repetition(base_texts)),
        ),
        leak_rate=max(0.0, leak_rate(candidate_texts) - leak_rate(teacher_texts)),
        anchors=anchors.counts(anchor_texts),
        checks=anchors.checks(anchor_texts),
        answers=[
            {"prompt": prompt.text, "base": base, "teacher": taught, "candidate": candidate}
            for prompt, base, taught, candidate in zip(
                held_out, base_texts, teacher_texts, candidate_texts, strict=False
            )
        ],
    )


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


def _count_words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)
