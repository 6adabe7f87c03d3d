"""Where an answer ends: before the words that a model puts into another's mouth.

Behind examples in its prompt ("User: ... Assistant: ...") a small model answers and then goes on
with more of them, to the end of what it may say. Of such a completion the answer is learned: the
rest would weigh more than it, and is nobody's to learn. Where it is cut off the answer is whole, so
the student is to end there as the base ends its own: the judge of that token is a state of the base
behind an answer that nobody would go on with.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill.model.encoder import Encoder, user
from distill.model.logits import logits
from distill.model.packing import TokenIds
from distill.model.student import Student
from store.contexts import Context

WHOLE = (
    ("Is the sky blue? Answer with one word.", "Yes."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Hello!", "Hello! How can I help you today?"),
)
# A base that ends none of these with this probability is none to learn it from.
SURE = 0.5


@dataclass(frozen=True)
class AnswerTruncator:
    """Finds the end of the first turn of a completion."""

    tokenizer: Any
    other: str
    """Who may speak behind the model (`examples.find_prompt_label`)."""
    end: Tensor | None = None
    """Float[D], the state that predicts the end of a whole answer; None if there is no such."""

    def first(self, completion: TokenIds) -> TokenIds:
        """The completion, ended before a line that begins with the other's name if any does."""
        text = self._text(completion)
        found = re.search(rf"\n\W*{self.other}\W*:", text, re.IGNORECASE)
        said = text[: found.start()].rstrip() if found else ""
        if not said:
            return completion
        ends = range(1, len(completion))
        within = (end for end in ends if len(self._text(completion[:end])) <= len(said))
        return (*completion[: max(within, default=1)], self.tokenizer.eos_token_id)

    def is_end(self, token: int) -> bool:
        """Whether an answer ends with this token."""
        return bool(token == self.tokenizer.eos_token_id)

    def ended(self, states: Tensor) -> Tensor:
        """Float[C, D]: the states of a whole answer with that of an end as the last."""
        assert self.end is not None
        return torch.cat([states[:-1], self.end[None].to(states)])

    def _text(self, completion: TokenIds) -> str:
        text: str = self.tokenizer.decode(completion, skip_special_tokens=True)
        return text


def reference_eos_state(student: Student, encoder: Encoder) -> Tensor | None:
    """Float[D]: the base's state where it ends an answer most surely; None if it is never sure."""
    pairs = [
        (encoder.ids(user(asked), Context()), encoder.answer_ids(said)) for asked, said in WHOLE
    ]
    with student.adapter_disabled():
        ends = torch.stack([student.states([pair])[-1] for pair in pairs])  # (3, D)
        sure = logits(ends, student.head).softmax(-1)[:, encoder.tokenizer.eos_token_id]
    return ends[sure.argmax()] if sure.max() >= SURE else None
