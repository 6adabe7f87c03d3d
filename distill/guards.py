"""When to stop a run and which step to keep, decided from the training curves alone.

A small model distilled on its own completions can collapse while its loss looks good: answers
repeat themselves, are empty or endless, are all the same, or mention "the notes above". The student
moves from the base to the teacher, so its answers are compared with those of both, averaged over
several steps because one step has few answers. The bounds are wide and stop only what is plainly
broken; the gate judges quality.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from distill.evaluate.measure import leak_rate, repetition

Curves = Sequence[dict[str, Any]]
"""One entry per step."""

ANSWER_METRICS = (
    "answer_tokens",
    "answer_repetition",
    "answer_leaks",
    "on_policy_entropy",
    "on_policy_divergence",
)
"""Metrics of a step that has on-policy answers to prompts of the context."""
WINDOW = 5
"""Steps with such answers that are averaged."""
MAX_EXTRA_REPETITION = 0.4
MAX_EXTRA_LEAKS = 0.4
MAX_LENGTH_FACTOR = 4.0
MIN_ENTROPY, COLLAPSED_DIVERGENCE = 0.01, 0.2
"""Nats per token: below this entropy and above this divergence, the student has collapsed."""


class Diverged(Exception):
    """Training cannot continue; the message names the step and the reason."""


@dataclass(frozen=True)
class Style:
    """Surface statistics of answers."""

    tokens: float
    """Mean length in tokens."""
    repetition: float
    """Share of word trigrams that repeat within an answer, 0 to 1."""
    leaks: float
    """Share of answers that mention a context, 0 to 1."""

    @staticmethod
    def of(texts: Sequence[str], lengths: Sequence[int]) -> "Style":
        """Compute the style of answers from their texts and token counts."""
        return Style(fmean(lengths), repetition(texts), leak_rate(texts))


def check_finite(step: int, metrics: dict[str, float]) -> None:
    """Check that all metrics are finite, before a broken gradient reaches the weights.

    Raises:
        Diverged: A value is not finite.
    """
    non_finite = [name for name, value in metrics.items() if not math.isfinite(value)]
    if non_finite:
        raise Diverged(
            f"Step {step}: {', '.join(non_finite)} is not finite. Lower distill.lr, or look for "
            "a prompt that the model cannot answer."
        )


def check_answers(curves: Curves, references: Sequence[Style]) -> None:
    """Check that the student's recent answers have not degenerated.

    Args:
        curves: Steps with on-policy answers have all `ANSWER_METRICS`.
        references: The style of the base's answers and of the teacher's.

    Raises:
        Diverged: The mean over the last `WINDOW` steps with answers is out of bounds.
    """
    recent = [line for line in curves if "answer_tokens" in line][-WINDOW:]
    if len(recent) < WINDOW:
        return
    mean = {name: fmean(line[name] for line in recent) for name in ANSWER_METRICS}
    reason = _reason(mean, references)
    if reason:
        raise Diverged(
            f"Step {recent[-1]['step']}: the student's answers {reason}. Lower distill.lr or "
            "distill.steps."
        )


def _reason(mean: dict[str, float], references: Sequence[Style]) -> str | None:
    repetition, leaks, tokens = (
        mean[f"answer_{name}"] for name in ("repetition", "leaks", "tokens")
    )
    max_repetition = max(reference.repetition for reference in references)
    max_leaks = max(reference.leaks for reference in references)
    shortest, *_, longest = sorted(reference.tokens for reference in references)
    if repetition > max_repetition + MAX_EXTRA_REPETITION:
        return f"repeat {repetition:.0%} of their words; base and teacher {max_repetition:.0%}"
    if leaks > max_leaks + MAX_EXTRA_LEAKS:
        return f"mention a context ({leaks:.0%} of them; of base's and teacher's {max_leaks:.0%})"
    if not shortest / MAX_LENGTH_FACTOR <= tokens <= longest * MAX_LENGTH_FACTOR:
        return f"have {tokens:.0f} tokens; base's and teacher's {shortest:.0f} to {longest:.0f}"
    if (
        mean["on_policy_entropy"] < MIN_ENTROPY
        and mean["on_policy_divergence"] > COLLAPSED_DIVERGENCE
    ):
        return "have collapsed: they are always the same, and differ from the teacher's"
    return None


def best_step(curves: Curves, since: int) -> int | None:
    """Return the step from `since` on with the lowest `validation`, the latest one on ties.

    None if no such step was measured.
    """
    measured = [line for line in curves if "validation" in line and line["step"] >= since]
    return min(reversed(measured), key=lambda line: line["validation"], default={}).get("step")


def should_stop_early(curves: Curves, since: int, patience: int) -> bool:
    """Whether the last `patience` measurements from `since` on did not improve on the best."""
    measured = [line["step"] for line in curves if "validation" in line and line["step"] >= since]
    return len(measured) > patience and best_step(curves, since) not in measured[-patience:]
