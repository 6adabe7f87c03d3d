"""Takes the measurements of a candidate on which the gate decides.

Three models answer held-out prompts greedily: the base, the teacher (the base with the context) and
the candidate as it will serve: the adapter, with the residual context in its prompt. Divergences
are forward KL on the teacher's answers, in nats per token, so base and candidate are scored on the
same tokens. A divergence is already small if the tone is right and the numbers are wrong, so facts
are measured separately (`facts.py`), and each statement by itself (`learned.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from distill.context.parts import ContextParts
from distill.evaluate import facts, measure
from distill.evaluate.learned import Judge
from distill.evaluate.measure import Anchored
from distill.evaluate.served import (
    Residual,
    anchor_answers,
    compare,
    frontier,
    statement_rows,
)
from distill.model.encoder import Encoder, Prompt
from distill.model.trajectories import Trajectory, sample_from_teacher
from store.contexts import Context


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
    """KL(teacher || candidate) on the same tokens, with the residual context in its prompt."""
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
    statements: list[dict[str, Any]]
    """Each statement of the context: its place in it, whether it is learned, why not, and the
    questions that show it."""
    compared: dict[str, int]
    """Answers that only the teacher or only the candidate gets right (`served.compare`)."""
    residual: str
    """What of the context must stay in the prompt, as text."""
    frontier: list[dict[str, Any]]
    """Right answers by the part of the context in front (`served.Point`)."""

    @property
    def residual_tokens(self) -> int:
        """How many tokens of the context must stay in the prompt."""
        (tokens,) = (
            int(point["prompt_tokens"]) for point in self.frontier if point["context"] == "residual"
        )
        return tokens

    def as_dict(self) -> dict[str, Any]:
        """The evaluation as plain values."""
        return asdict(self)


def measure_candidate(
    judge: Judge, parts: ContextParts, residual: Residual, evaluation_set: EvaluationSet
) -> Evaluation:
    """Measure the candidate, with its residual context in its prompt.

    Args:
        judge: The candidate with its teacher.
        parts: The statements of the context.
        residual: What of them stays in the prompt.
        evaluation_set: Prompts and anchors.
    """
    teacher, sampler, encoder = judge.teacher, judge.sampler, judge.encoder
    held_out, unrelated = evaluation_set.held_out, evaluation_set.unrelated
    anchors, count = evaluation_set.anchored, len(evaluation_set.held_out)
    taught = sample_from_teacher(
        teacher, sampler.for_stage("measure the teacher"), [*held_out, *unrelated], temperature=0
    )
    served = [_with_context(encoder, item, residual.context) for item in taught]
    candidate_texts = encoder.decode(
        measure.greedy(sampler.for_stage("measure the candidate"), [item.prompt for item in served])
    )
    teacher_texts = encoder.decode([item.completion for item in taught])
    with teacher.student.adapter_disabled():
        base_texts = encoder.decode(measure.greedy(sampler.for_stage("measure the base"), held_out))
    kl_base = measure.base_kl(teacher, taught[:count])
    kl_candidate = measure.student_kl(teacher, served[:count])
    missed, learned = facts.count(
        teacher,
        encoder.tokenizer,
        "\n".join(each.text for each in parts.statements),
        taught[:count],
        served[:count],
    )
    anchor_texts = anchor_answers(sampler, encoder, anchors, residual.context)
    lengths = (
        measure.count_words(texts[:count]) for texts in (candidate_texts, teacher_texts, base_texts)
    )
    return Evaluation(
        held_out=count,
        kl_base=kl_base,
        kl_candidate=kl_candidate,
        gap_closed=1 - kl_candidate / max(kl_base, 1e-9),
        facts=missed,
        facts_learned=learned / missed if missed else 1.0,
        retention_kl=measure.student_kl(teacher, served[count:]),
        length_ratio=measure.length_ratio(*lengths),
        repetition=_excess(measure.repetition, candidate_texts, teacher_texts, base_texts),
        leak_rate=_excess(measure.leak_rate, candidate_texts, teacher_texts),
        anchors=anchors.counts(anchor_texts),
        checks=anchors.checks(anchor_texts),
        answers=_side_by_side(held_out, base_texts, teacher_texts, candidate_texts),
        statements=list(statement_rows(residual, parts)),
        compared=compare(residual, anchors, anchor_texts),
        residual=residual.context.text(),
        frontier=[asdict(point) for point in frontier(judge, residual, anchors, anchor_texts)],
    )


def _with_context(encoder: Encoder, item: Trajectory, context: Context) -> Trajectory:
    return replace(item, prompt=encoder.with_student_context(item.prompt, context))


def _excess(
    share: Callable[[Sequence[str]], float], candidate: Sequence[str], *others: Sequence[str]
) -> float:
    """By how much a share of the candidate's texts exceeds that of all others."""
    return max(0.0, share(candidate) - max(map(share, others)))


def _side_by_side(prompts: Sequence[Prompt], *answers: Sequence[str]) -> list[dict[str, str]]:
    """Each prompt with the answers of base, teacher and candidate."""
    models = ("base", "teacher", "candidate")
    return [
        {"prompt": prompt.text} | dict(zip(models, texts, strict=True))
        for prompt, *texts in zip(prompts, *answers, strict=False)
    ]
