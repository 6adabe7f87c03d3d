"""When a run must not go on, and which of its steps to keep: decided from its curves alone.

Small models distilled on their own answers can fall into a state in which the loss looks well and
the answers do not: they repeat themselves, end at once, never end, are always the same, or speak of
"the notes above". A student is on its way from the base to the teacher, so its answers are compared
with those of both, over a few steps, because four answers say little. The bounds are wide guesses,
there to stop what is plainly broken; the gate judges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from distill.evaluate.measure import leak_rate, repetition

Curves = Sequence[dict[str, Any]]
"""One entry a step."""

ANSWER_METRICS = (
    "answer_tokens",
    "answer_repetition",
    "answer_leaks",
    "on_policy_entropy",
    "on_policy_divergence",
)
"""What a step's entry says of the student's own answers, where it has any."""
WINDOW = 5
"""Steps with answers of the student that are looked at together."""
MORE_REPETITION = 0.4
MORE_LEAKS = 0.4
LENGTH_FACTOR = 4.0
MIN_ENTROPY, FAR = 0.01, 0.2
"""Nats a token: a student this certain and this far from its teacher has collapsed."""


class Diverged(Exception):
    """Training cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class Style:
    """What can be seen of answers without understanding them."""

    tokens: float
    """Mean length."""
    repetition: float
    """Share of word triples said before in an answer, 0 to 1."""
    leaks: float
    """Share of answers that speak of a context, 0 to 1."""

    @staticmethod
    def of(texts: Sequence[str], lengths: Sequence[int]) -> "Style":
        """The style of some answers, given as texts and as numbers of tokens."""
        return Style(fmean(lengths), repetition(texts), leak_rate(texts))


def check_finite(step: int, metrics: dict[str, float]) -> None:
    """Stop before a broken gradient reaches the weights.

    Raises:
        Diverged: A value is not finite.
    """
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise Diverged(
            f"Step {step}: {', '.join(broken)} is not finite. Lower distill.lr, or look for a "
            "prompt that the model cannot answer."
        )


def check_answers(curves: Curves, ends: Sequence[Style]) -> None:
    """Stop when the student's answers are no longer answers.

    Args:
        curves: Entries of steps with answers of the student have all of `ANSWER_METRICS`.
        ends: The style of the base's own answers and of the teacher's.

    Raises:
        Diverged: The last few steps were out of bounds on average.
    """
    recent = [line for line in curves if "answer_tokens" in line][-WINDOW:]
    if len(recent) < WINDOW:
        return
    mean = {name: fmean(line[name] for line in recent) for name in ANSWER_METRICS}
    reason = _reason(mean, ends)
    if reason:
        raise Diverged(
            f"Step {recent[-1]['step']}: the student's answers {reason}. Lower distill.lr or "
            "distill.steps."
        )


def _reason(mean: dict[str, float], ends: Sequence[Style]) -> str | None:
    repeated, leaks, tokens = (mean[f"answer_{name}"] for name in ("repetition", "leaks", "tokens"))
    repeating, leaking = max(end.repetition for end in ends), max(end.leaks for end in ends)
    short, *_, long = sorted(end.tokens for end in ends)
    if repeated > repeating + MORE_REPETITION:
        return f"repeat {repeated:.0%} of their words; base and teacher {repeating:.0%}"
    if leaks > leaking + MORE_LEAKS:
        return f"speak of a context ({leaks:.0%} of them; of base's and teacher's {leaking:.0%})"
    if not short / LENGTH_FACTOR <= tokens <= long * LENGTH_FACTOR:
        return f"have {tokens:.0f} tokens; base's and teacher's {short:.0f} to {long:.0f}"
    if mean["on_policy_entropy"] < MIN_ENTROPY and mean["on_policy_divergence"] > FAR:
        return "are always the same, and not the teacher's"
    return None


def best_step(curves: Curves, since: int) -> int | None:
    """The step from `since` on with the least `validation`, the later of equals; None for none."""
    measured = [line for line in curves if "validation" in line and line["step"] >= since]
    return min(reversed(measured), key=lambda line: line["validation"], default={}).get("step")


def should_stop_early(curves: Curves, since: int, patience: int) -> bool:
    """Whether `patience` measurements in a row brought nothing better than the best before."""
    measured = [line["step"] for line in curves if "validation" in line and line["step"] >= since]
    return len(measured) > patience and best_step(curves, since) not in measured[-patience:]
