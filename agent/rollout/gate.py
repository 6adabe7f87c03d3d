"""The promotion gate: decides whether a candidate adapter may serve.

The trainer measures a candidate (`distill/evaluate/measure.py`); this module only compares the
numbers with the `gate` settings and has no side effects. The candidate is measured as it will
serve, with what it has not learned in its prompt. It must come close to the teacher, which has the
whole context in its prompt, on prompts that it was not trained on, must stay close to the base
where the context is irrelevant, and must save tokens.

A number that is missing or not finite fails its check: without evidence nothing is promoted.
"""

import math
from dataclasses import dataclass
from typing import Any

from config.sections import Gate

SIGNIFICANCE = 0.05
"""A `BinomialCheck` fails, and a `NonInferiorityCheck` passes, when its p-value is below this."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, with one line of text for each check."""

    passed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class BoundCheck:
    """A measured value with a lower or an upper bound."""

    name: str
    value: float
    minimum: float = -math.inf
    maximum: float = math.inf

    @property
    def passed(self) -> bool:
        """Whether the value is finite and within the bounds."""
        return math.isfinite(self.value) and self.minimum <= self.value <= self.maximum

    def __str__(self) -> str:
        has_maximum = self.maximum != math.inf
        bound = f"<= {self.maximum:g}" if has_maximum else f">= {self.minimum:g}"
        return f"{_outcome(self.passed)}: {self.name} {self.value:.3f} (required {bound})"


@dataclass(frozen=True)
class BinomialCheck:
    """A counted share with a lower bound, tested for significance.

    A short context has few facts, of which a good candidate may miss half by chance. The check
    therefore fails only if the count is significantly below the bound: a one-sided exact
    binomial test with the null hypothesis that the true share equals the minimum.
    """

    name: str
    share: float
    total: int
    minimum: float

    @property
    def passed(self) -> bool:
        """Whether the share is finite and not significantly below the minimum."""
        return math.isfinite(self.share) and self._p_value() >= SIGNIFICANCE

    def _p_value(self) -> float:
        return binomial_tail(round(self.share * self.total), self.total, self.minimum)

    def __str__(self) -> str:
        return (
            f"{_outcome(self.passed)}: {self.name} {self.share:.3f} of {self.total} "
            f"(required >= {self.minimum:g}, binomial test, {100 * SIGNIFICANCE:g} %)"
        )


@dataclass(frozen=True)
class NonInferiorityCheck:
    """Paired answers of teacher and candidate, tested for non-inferiority.

    The null hypothesis of the one-sided exact binomial test is that the candidate loses at least
    `margin` of the answers, net of those that only it gets right. Few answers cannot reject it, so
    a candidate that loses none passes too.
    """

    name: str
    lost: float
    """Answers that only the teacher gets right, minus those that only the candidate gets right."""
    total: float
    margin: float

    @property
    def passed(self) -> bool:
        """Whether the loss is measured, and is none or significantly below the margin."""
        if not (math.isfinite(self.lost) and self.total > 0):
            return False
        tail = binomial_tail(int(self.lost), int(self.total), self.margin)
        return self.lost <= 0 or tail < SIGNIFICANCE

    def __str__(self) -> str:
        return (
            f"{_outcome(self.passed)}: {self.name} {self.lost:g} of {self.total:g} (required: none "
            f"or less than {self.margin:g} by a binomial test, {100 * SIGNIFICANCE:g} %)"
        )


def binomial_tail(hits: int, total: int, share: float) -> float:
    """Return P(X <= hits) for X ~ Binomial(total, share)."""
    return sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(hits + 1))


def judge(measured: dict[str, Any], gate: Gate) -> Verdict:
    """Check a candidate's measurements against the gate settings.

    Args:
        measured: The fields of `distill.evaluate.candidate.Evaluation`.
        gate: The configured bounds.
    """
    checks: list[BoundCheck | BinomialCheck | NonInferiorityCheck] = [
        _comparison(measured, gate),
        _saving(measured),
        *_bound_checks(measured, gate),
        *_fact_checks(measured, gate),
        *_anchor_checks(measured, gate),
    ]
    return Verdict(all(check.passed for check in checks), tuple(map(str, checks)))


def _bound_checks(measured: dict[str, Any], gate: Gate) -> list[BoundCheck]:
    """What every candidate must show: it has learned the context and broken nothing else."""
    return [
        BoundCheck(
            "gap to the teacher closed",
            _number(measured, "gap_closed"),
            minimum=gate.min_gap_closed,
        ),
        BoundCheck(
            "held-out prompts measured",
            _number(measured, "held_out"),
            minimum=gate.min_held_out,
        ),
        BoundCheck(
            "drift on unrelated prompts (KL, nats per token)",
            _number(measured, "retention_kl"),
            maximum=gate.max_retention_kl,
        ),
        BoundCheck(
            "answer length ratio to teacher and base",
            _length_ratio(measured),
            maximum=gate.max_length_ratio,
        ),
        BoundCheck(
            "repeated word trigrams above teacher and base",
            _number(measured, "repetition"),
            maximum=gate.max_repetition,
        ),
        BoundCheck(
            "share of answers that mention the context",
            _number(measured, "leak_rate"),
            maximum=gate.max_leak_rate,
        ),
    ]


def _comparison(measured: dict[str, Any], gate: Gate) -> NonInferiorityCheck:
    """The candidate answers about the statements and the anchors as well as the teacher does."""
    counts = measured.get("compared") or {}
    lost = _number(counts, "teacher_only") - _number(counts, "candidate_only")
    total = _number(counts, "total")
    return NonInferiorityCheck("answers lost to the teacher", lost, total, gate.margin)


def _saving(measured: dict[str, Any]) -> BoundCheck:
    """An adapter that leaves the prompt as long as it is has no use."""
    tokens = {
        point["context"]: _number(point, "prompt_tokens")
        for point in measured.get("frontier") or ()
    }
    saved = tokens.get("whole", math.nan) - tokens.get("residual", math.nan)
    return BoundCheck("tokens of the context that leave the prompt", saved, minimum=1)


def _fact_checks(measured: dict[str, Any], gate: Gate) -> list[BinomialCheck]:
    """Where the context has facts (numbers, names) that the base lacks, it must know them."""
    facts = measured.get("facts", 0)
    if not facts:
        return []
    learned = _number(measured, "facts_learned")
    return [BinomialCheck("facts learned", learned, facts, gate.min_facts_learned)]


def _anchor_checks(measured: dict[str, Any], gate: Gate) -> list[BoundCheck]:
    """Anchors: at least as many as the base passes, and `min_anchor_share` of the teacher's."""
    anchors = measured.get("anchors") or {}
    if not anchors.get("total"):
        return []
    required = max(anchors["base"], gate.min_anchor_share * anchors["teacher"])
    return [BoundCheck("anchors passed", anchors["candidate"], minimum=required)]


def _outcome(passed: bool) -> str:
    return "passed" if passed else "FAILED"


def _number(measured: dict[str, Any], key: str) -> float:
    value = measured.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _length_ratio(measured: dict[str, Any]) -> float:
    """Return the ratio as a factor >= 1: twice as long and half as long are both 2."""
    ratio = _number(measured, "length_ratio")
    return max(ratio, 1 / ratio) if ratio > 0 else math.inf
