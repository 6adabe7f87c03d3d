"""The gate: may a candidate have traffic? Pure; the trainer measured, this decides.

It compares, on prompts no run was trained on, the candidate without context with the teacher with
it, and asks whether the candidate still is the base where the context is irrelevant. A number
that is missing or not finite fails: no evidence, no traffic.
"""

import math
from dataclasses import dataclass
from typing import Any

from config.sections import Gate

LUCK = 0.05
"""A count is too low when so low a one, or a lower, would be as rare as this by chance."""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and each check in plain words."""

    passed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """One number against one bound."""

    name: str
    value: float
    least: float = -math.inf
    most: float = math.inf

    @property
    def passed(self) -> bool:
        """Whether the value is a number within the bounds."""
        return math.isfinite(self.value) and self.least <= self.value <= self.most

    def __str__(self) -> str:
        bound = f"at least {self.least:g}" if self.most == math.inf else f"at most {self.most:g}"
        return f"{'passed' if self.passed else 'FAILED'}: {self.name} {self.value:.3f}, {bound}"


@dataclass(frozen=True)
class Count:
    """A share that was counted, against the least it may be in truth.

    A short context has few facts to count, and of few a good candidate may miss half by chance: it
    fails only when chance does not explain the count (one-sided exact binomial test).
    """

    name: str
    share: float
    total: int
    least: float

    @property
    def passed(self) -> bool:
        """Whether a candidate that just has the least share would often show no more than this."""
        return math.isfinite(self.share) and self._at_most() >= LUCK

    def _at_most(self) -> float:
        """The chance of so many or fewer at the least share."""
        hits = range(round(self.share * self.total) + 1)
        return sum(
            math.comb(self.total, n) * self.least**n * (1 - self.least) ** (self.total - n)
            for n in hits
        )

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        bound = f"at least {self.least:g} unless by chance"
        return f"{verdict}: {self.name} {self.share:.3f} of {self.total}, {bound}"


def judge(measured: dict[str, Any], gate: Gate) -> Verdict:
    """Check a candidate's measurements (`distill/evaluate/measure.py`) against the settings."""
    checks: list[Check | Count] = [
        Check(
            "share of the gap to the teacher closed",
            _number(measured, "gap_closed"),
            least=gate.min_gap_closed,
        ),
        Check(
            "held-out prompts that this was measured on",
            _number(measured, "held_out"),
            least=gate.min_held_out,
        ),
        Check(
            "drift on unrelated prompts, nats a token",
            _number(measured, "retention_kl"),
            most=gate.max_retention_kl,
        ),
        Check(
            "answer length outside the teacher's and the base's",
            _ratio(measured),
            most=gate.max_length_ratio,
        ),
        Check(
            "repeated words beyond the teacher's and the base's",
            _number(measured, "repetition"),
            most=gate.max_repetition,
        ),
        Check(
            "share of answers that mention the context",
            _number(measured, "leak_rate"),
            most=gate.max_leak_rate,
        ),
    ]
    if facts := measured.get("facts", 0):
        learned = _number(measured, "facts_learned")
        checks.append(Count("share of its facts learned", learned, facts, gate.min_facts_learned))
    anchors = measured.get("anchors") or {}
    if anchors.get("total"):
        checks.append(
            Check(
                "anchors passed",
                anchors["candidate"],
                least=max(anchors["base"], gate.min_anchor_share * anchors["teacher"]),
            )
        )
    return Verdict(all(check.passed for check in checks), tuple(map(str, checks)))


def _number(measured: dict[str, Any], key: str) -> float:
    value = measured.get(key)
    return float(value) if isinstance(value, int | float) else math.nan


def _ratio(measured: dict[str, Any]) -> float:
    """How far the lengths are apart, in either direction."""
    ratio = _number(measured, "length_ratio")
    return max(ratio, 1 / ratio) if ratio > 0 else math.inf
