"""Measures a candidate as it will serve: with what it has not learned in its prompt.

First each statement is judged with nothing of the context in the prompt (`learned.py`). Those that
are not learned form the residual context. A statement in front may pull the answers about others
towards it, so the learned ones are judged again with the residual context in front, and those that
fail there join it. Better to keep a statement that is known than to lose one that is not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill.context.parts import ContextParts
from distill.evaluate import measure
from distill.evaluate.learned import Judge, Judgement
from distill.evaluate.measure import Anchored
from distill.model.encoder import Encoder, user
from distill.model.sampler import LocalSampler
from store.contexts import Context

MAX_ROUNDS = 3
"""How often the residual context may grow; what is lost after that, the gate counts."""


@dataclass(frozen=True)
class Residual:
    """What of a context must stay in the prompt, and why."""

    context: Context
    reasons: dict[int, str]
    """Why each of its statements must stay, by their indices in the order of the checks."""
    alone: list[Judgement]
    """Each statement, with nothing of the context in the candidate's prompt."""
    served: list[Judgement]
    """Each statement, with the residual context in the candidate's prompt."""


@dataclass(frozen=True)
class Point:
    """One part of the context in front of the candidate."""

    context: str
    """`whole`, `residual` or `nothing`."""
    prompt_tokens: int
    right: int
    total: int


def find_residual(judge: Judge, parts: ContextParts) -> Residual:
    """Return the smallest part of the context found with which nothing learned is lost."""
    alone = judge.judge()
    reasons = _reasons(alone)
    served = judge.judge(parts.subset(reasons)) if reasons else alone
    for _ in range(MAX_ROUNDS):
        pulled = {
            index: f"with the residual context in front, {reason}"
            for index, reason in _reasons(served).items()
            if index not in reasons
        }
        if not pulled:
            break
        reasons |= pulled
        served = judge.judge(parts.subset(reasons))
    return Residual(parts.subset(reasons), reasons, alone, served)


def _reasons(judgements: Sequence[Judgement]) -> dict[int, str]:
    return {index: each.reason for index, each in enumerate(judgements) if not each.learned}


def nothing_learned(residual: Residual) -> str:
    """Say why all statements must stay in the prompt."""
    count = len(residual.reasons)
    return (
        f"None of the {count} statements can leave the prompt, so the adapter would save nothing. "
        f"The first: {residual.reasons[0]}"
    )


def compare(residual: Residual, anchored: Anchored, anchor_texts: Sequence[str]) -> dict[str, int]:
    """Count the answers that the teacher and the candidate as served get right.

    They are the answers to the held-out questions about each statement, which the teacher answers,
    and to the anchors.

    Returns:
        `total`, and how many of them only the teacher (`teacher_only`) or only the candidate
        (`candidate_only`) gets right.
    """
    right = [question.right for each in residual.served for question in each.questions]
    pairs = [(True, own) for own in right]
    pairs += [
        (anchor.passes(taught), anchor.passes(own))
        for anchor, taught, own in zip(
            anchored.anchors, anchored.teacher_answers, anchor_texts, strict=True
        )
    ]
    return {
        "total": len(pairs),
        "teacher_only": pairs.count((True, False)),
        "candidate_only": pairs.count((False, True)),
    }


def statement_rows(residual: Residual, parts: ContextParts) -> Iterator[dict[str, Any]]:
    """Each statement, whether it is learned, and the questions that show it, as plain values."""
    for index, (part, judgement) in enumerate(zip(parts.rows(), residual.alone, strict=True)):
        yield part | {
            "learned": index not in residual.reasons,
            "reason": residual.reasons.get(index, ""),
            "questions": [asdict(question) for question in judgement.questions],
        }


def frontier(
    judge: Judge, residual: Residual, anchored: Anchored, anchor_texts: Sequence[str]
) -> list[Point]:
    """Count right answers with the whole context in front, with the residual one, and without.

    Args:
        judge: The candidate with its teacher.
        residual: What of the context stays in the prompt.
        anchored: The anchors.
        anchor_texts: The answers to them with the residual context.
    """
    whole, nothing = judge.encoder.context, Context()
    answers = {
        context: anchor_answers(judge.sampler, judge.encoder, anchored, context)
        for context in (whole, nothing)
    }
    judged = (
        ("whole", whole, judge.judge(whole, sampled=False), answers[whole]),
        ("residual", residual.context, residual.served, anchor_texts),
        ("nothing", nothing, residual.alone, answers[nothing]),
    )
    points = []
    for name, context, judgements, texts in judged:
        right = [question.right for each in judgements for question in each.questions]
        points.append(
            Point(
                name,
                context_tokens(judge.encoder, context),
                sum(right) + anchored.passed(texts),
                len(right) + len(anchored.anchors),
            )
        )
    return points


def anchor_answers(
    sampler: LocalSampler, encoder: Encoder, anchored: Anchored, context: Context
) -> list[str]:
    """The candidate's answers to the anchors, with a part of the context in its prompt."""
    prompts = [
        encoder.with_student_context(encoder.prompt(anchor.messages), context)
        for anchor in anchored.anchors
    ]
    return encoder.decode(measure.greedy(sampler.for_stage("anchors, candidate"), prompts))


def context_tokens(encoder: Encoder, context: Context) -> int:
    """How many tokens a context adds to a prompt."""
    return len(encoder.ids(user(""), context)) - len(encoder.ids(user(""), Context()))
