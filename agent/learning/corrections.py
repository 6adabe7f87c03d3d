"""Finds the corrections in a conversation: the texts that say that an answer was wrong.

Three things count: a demonstration (the right answer), a comment that does not come with praise,
and a next user turn that contradicts the answer. Each becomes one `Correction` with its origin.
They are read from database rows alone, so they never contain text that the gateway added.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.learning.contradiction import contradicts
from store.contexts import last_user_text
from store.interactions import Turn
from store.lessons import Support
from store.models import Feedback
from store.schema import Trust
from store.verdicts import correction


@dataclass(frozen=True)
class Correction:
    """A correction of a wrong answer, and its origin."""

    question: str
    answer: str
    text: str
    is_demonstration: bool
    """Whether the text is the right answer itself, which can be learned verbatim."""
    support: Support
    """Who said it, where, and with which authority."""
    answered: str
    """The interaction with the wrong answer."""


def find_corrections(turns: Sequence[Turn], trust_turns: bool = False) -> list[Correction]:
    """Return all corrections in a conversation, oldest first.

    Args:
        turns: The conversation's turns, from its beginning.
        trust_turns: Whether the users are the operator's own staff, so that what they type has the
            operator's authority.
    """
    corrections = []
    for index, turn in enumerate(turns):
        if turn.interaction.learn:
            corrections += [
                _from_feedback(turn, feedback) for feedback in turn.feedback if correction(feedback)
            ]
            next_turn = turns[index + 1] if index + 1 < len(turns) else None
            corrections += _from_next_turn(turn, next_turn, trust_turns) if next_turn else []
    return corrections


def _from_feedback(turn: Turn, feedback: Feedback) -> Correction:
    support = Support(
        interaction=turn.interaction.id,
        feedback=feedback.id,
        span=correction(feedback),
        principal=feedback.principal,
        trust=feedback.trust,
    )
    return Correction(
        last_user_text(turn.messages),
        turn.response,
        correction(feedback),
        bool(feedback.demonstration),
        support,
        turn.interaction.id,
    )


def _from_next_turn(turn: Turn, next_turn: Turn, trust_turns: bool) -> list[Correction]:
    text = last_user_text(next_turn.messages)
    if not contradicts(text) or not next_turn.interaction.learn:
        return []
    support = Support(
        interaction=next_turn.interaction.id,
        feedback=None,
        span=text,
        principal=next_turn.interaction.principal,
        trust=Trust.OPERATOR if trust_turns else next_turn.interaction.trust,
    )
    question = last_user_text(turn.messages)
    return [Correction(question, turn.response, text, False, support, turn.interaction.id)]
