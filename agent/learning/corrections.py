"""Where a conversation says that an answer was wrong, and who said so.

Three signals count: a demonstration (the right answer), a comment, and a next turn of the user
that contradicts the answer. Each becomes one `Correction` with its origin, from rows alone: text
that the gateway put into the prompt is in none of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from store.contexts import message_text
from store.interactions import Turn
from store.lessons import Support
from store.models import Feedback
from store.schema import Trust

_CONTRADICTION = re.compile(
    r"^\W*(no\b|nope|wrong|incorrect|actually|that(['’]s| is| was)(n['’]t| not)? "
    r"(wrong|incorrect|right|correct|true)|not (quite|true|right|correct)|you(['’]re| are) wrong"
    r"|it(['’]s| is) not|correction)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Correction:
    """An answer that was wrong, and what was said about it."""

    question: str
    answer: str
    text: str
    explicit: bool
    """Whether the text is a demonstration: the right answer, fit to be learned as it stands."""
    support: Support


def find_corrections(turns: Sequence[Turn]) -> list[Correction]:
    """All corrections in a conversation, oldest first."""
    found = []
    for index, turn in enumerate(turns):
        if turn.interaction.learn:
            found += [
                _from_feedback(turn, feedback) for feedback in turn.feedback if _text(feedback)
            ]
            following = turns[index + 1] if index + 1 < len(turns) else None
            found += _from_next_turn(turn, following) if following else []
    return found


def _text(feedback: Feedback) -> str:
    return (feedback.demonstration or feedback.comment or "").strip()


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


def _from_next_turn(turn: Turn, following: Turn) -> list[Correction]:
    said = _last_user_text(following)
    if not _CONTRADICTION.match(said) or not following.interaction.learn:
        return []
    support = Support(
        interaction=following.interaction.id,
        feedback=None,
        span=said,
        principal=following.interaction.principal,
        trust=following.interaction.trust,
    )
    return [Correction(_last_user_text(turn), turn.response, said, False, support)]


def _last_user_text(turn: Turn) -> str:
    users = [message for message in turn.messages if message["role"] == "user"]
    return message_text(users[-1]).strip() if users else ""


def least(trusts: Sequence[Trust]) -> Trust:
    """The least trusted of several origins (design: authority comes from who said it)."""
    order = list(Trust)
    return max(trusts, key=order.index)
