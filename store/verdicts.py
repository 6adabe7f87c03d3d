"""What feedback says about an answer: that it was good or bad, and what corrects it.

Only the names in `RATINGS` rate an answer; other feedback, such as a comment, rates nothing by its
value.
"""

from typing import Any

from store.models import Feedback

RATINGS = frozenset({"thumbs", "rating", "resolved"})
GOOD = frozenset({"up", "yes", "good", "true", "positive"})
BAD = frozenset({"down", "no", "bad", "false", "negative"})
"""Values in words, in lower case."""
NEUTRAL = 3
"""A rating on a scale to five or more is good above it and bad below; a fraction, which is below
1, is good above a half and bad below."""


def is_good(feedback: Feedback) -> bool:
    """Return whether feedback rates the answer as good."""
    return _rating(feedback) is True


def is_bad(feedback: Feedback) -> bool:
    """Return whether feedback rates the answer as bad."""
    return _rating(feedback) is False


def correction(feedback: Feedback) -> str:
    """Return the text that corrects the answer; empty if none does, as in a comment with praise."""
    comment = None if is_good(feedback) else feedback.comment
    return (feedback.demonstration or comment or "").strip()


def _rating(feedback: Feedback) -> bool | None:
    """Return whether feedback rates the answer as good; None if it says neither."""
    value: Any = feedback.value.get("value")
    if feedback.name not in RATINGS:
        return None
    if isinstance(value, str):
        word = value.lower()
        return True if word in GOOD else False if word in BAD else None
    if not isinstance(value, int | float):
        return None
    middle = _middle(feedback.name, value)
    return None if value == middle else value > middle


def _middle(name: str, value: float) -> float:
    """Return the value between bad and good; of thumbs, 0 is bad already."""
    if name != "rating" or isinstance(value, bool):
        return 0.5
    return NEUTRAL if value >= 1 else 0.5
