"""Where a conversation says that an answer was wrong, and who said so.

Three signals count: a demonstration (the right answer), a comment that goes with no praise, and a
next turn of the user that contradicts the answer. Each becomes one `Correction` with its origin,
from rows alone: text that the gateway put into the prompt is in none of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.learning.contradiction import contradicts
from store.contexts import message_text
from store.interactions import Turn
from store.lessons import Support
from store.models import Feedback
from store.schema import Trust

MARKS = ("thumbs", "rating", "resolved")
"""Names of feedback whose value says whether the answer was good."""
GOOD_RATING = 3
"""Ratings above it praise, on a scale to five or more; so do fractions above a half."""


@dataclass(frozen=True)
class Correction:
    """An answer that was wrong, and what was said about it."""

    question: str
    answer: str
    text: str
    is_demonstration: bool
    """Whether the text is a demonstration: the right answer, fit to be learned as it stands."""
    support: Support


def find_corrections(turns: Sequence[Turn], trust_turns: bool = False) -> list[Correction]:
    """All corrections in a conversation, oldest first.

    Args:
        turns: Of the conversation, from its beginning.
        trust_turns: Whether those who chat are the operator's own people.
    """
    found = []
    for index, turn in enumerate(turns):
        if turn.interaction.learn:
            found += [
                _from_feedback(turn, feedback) for feedback in turn.feedback if _text(feedback)
            ]
            following = turns[index + 1] if index + 1 < len(turns) else None
            found += _from_next_turn(turn, following, trust_turns) if following else []
    return found


def _text(feedback: Feedback) -> str:
    """What corrects the answer; empty where nothing does, as in a comment on a good answer."""
    comment = None if _is_praise(feedback) else feedback.comment
    return (feedback.demonstration or comment or "").strip()


def _is_praise(feedback: Feedback) -> bool:
    value = feedback.value.get("value")
    if feedback.name not in MARKS or not isinstance(value, (bool, int, float, str)):
        return False
    if isinstance(value, str):
        return value.lower() in ("up", "yes", "good")
    if feedback.name == "rating" and not isinstance(value, bool):
        return value > GOOD_RATING or 0.5 < value < 1
    return value > 0


def _from_feedback(turn: Turn, feedback: Feedback) -> Correction:
    support = Support(
        interaction=turn.interaction.id,
        feedback=feedback.id,
        span=_text(feedback),
        principal=feedback.principal,
        trust=feedback.trust,
    )
    return Correction(
        _last_user_text(turn), turn.response, _text(feedback), bool(feedback.demonstration), support
    )


def _from_next_turn(turn: Turn, following: Turn, trust_turns: bool) -> list[Correction]:
    said = _last_user_text(following)
    if not contradicts(said) or not following.interaction.learn:
        return []
    support = Support(
        interaction=following.interaction.id,
        feedback=None,
        span=said,
        principal=following.interaction.principal,
        trust=Trust.OPERATOR if trust_turns else following.interaction.trust,
    )
    return [Correction(_last_user_text(turn), turn.response, said, False, support)]


def _last_user_text(turn: Turn) -> str:
    users = [message for message in turn.messages if message["role"] == "user"]
    return message_text(users[-1]).strip() if users else ""
