"""Truncates completions where the model starts to write the user's next turn.

After few-shot examples in the prompt ("User: ... Assistant: ..."), a small model answers and then
continues with further turns up to the token limit. Only the answer is learned; otherwise the
invented turns would outweigh it in the loss. A truncated answer is complete, so the student should
emit the end-of-sequence token after it. The teacher's own state there predicts the next turn, so
the target is a reference state: the base's state at the end of a complete answer.
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

COMPLETE_ANSWERS = (
    ("Is the sky blue? Answer with one word.", "Yes."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Hello!", "Hello! How can I help you today?"),
)
# A base that ends none of these answers with this probability gives no reference state.
MIN_EOS_PROBABILITY = 0.5


@dataclass(frozen=True)
class AnswerTruncator:
    """Truncates a completion to its first turn."""

    tokenizer: Any
    user_label: str
    """The name of the other speaker (`examples.find_prompt_label`)."""
    eos_state: Tensor | None = None
    """Float[D], the reference state that predicts the end of an answer; None without one."""

    def truncate(self, completion: TokenIds) -> TokenIds:
        """End the completion before the first line that starts with the user's label, if any."""
        text = self._text(completion)
        label = re.search(rf"\n\W*{self.user_label}\W*:", text, re.IGNORECASE)
        answer = text[: label.start()].rstrip() if label else ""
        if not answer:
            return completion
        lengths = range(1, len(completion))
        fitting = (end for end in lengths if len(self._text(completion[:end])) <= len(answer))
        return (*completion[: max(fitting, default=1)], self.tokenizer.eos_token_id)

    def is_eos(self, token: int) -> bool:
        """Whether the token ends an answer."""
        return bool(token == self.tokenizer.eos_token_id)

    def with_eos_state(self, states: Tensor) -> Tensor:
        """Return Float[C, D] states whose last one is the reference end state."""
        assert self.eos_state is not None
        return torch.cat([states[:-1], self.eos_state[None].to(states)])

    def _text(self, completion: TokenIds) -> str:
        text: str = self.tokenizer.decode(completion, skip_special_tokens=True)
        return text


def reference_eos_state(student: Student, encoder: Encoder) -> Tensor | None:
    """Return Float[D], the base's state where it ends an answer with the highest probability.

    None if the base ends no answer with `MIN_EOS_PROBABILITY`.
    """
    pairs = [
        (encoder.ids(user(question), Context()), encoder.answer_ids(answer))
        for question, answer in COMPLETE_ANSWERS
    ]
    with student.adapter_disabled():
        states = torch.stack([student.states([pair])[-1] for pair in pairs])  # (3, D)
        probabilities = logits(states, student.head).softmax(-1)
        eos = probabilities[:, encoder.tokenizer.eos_token_id]  # (3,)
    return states[eos.argmax()] if eos.max() >= MIN_EOS_PROBABILITY else None
