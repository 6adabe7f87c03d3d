"""Where an answer ends: before the words that a model puts into another's mouth.

Behind examples in its prompt ("User: ... Assistant: ...") a small model answers and then goes on
with more of them, to the end of what it may say. Of such a completion the answer is learned: the
rest would weigh more than it, and is nobody's to learn. Where it is cut off nothing is taught, so
that the student ends there as the base does.
"""

import re
from dataclasses import dataclass
from typing import Any

from distill.packing import Ids


@dataclass(frozen=True)
class Turns:
    """Finds the end of the first turn of a completion."""

    tokenizer: Any
    other: str
    """Who may speak behind the model (`examples.asker`)."""

    def first(self, completion: Ids) -> Ids:
        """The completion up to where a line begins with the other's name; whole if none does."""
        text = self._text(completion)
        found = re.search(rf"\n\W*{self.other}\W*:", text, re.IGNORECASE)
        said = text[: found.start()].rstrip() if found else ""
        if not said:
            return completion
        ends = range(1, len(completion))
        within = (end for end in ends if len(self._text(completion[:end])) <= len(said))
        return completion[: max(within, default=1)]

    def is_end(self, token: int) -> bool:
        """Whether an answer ends with this token."""
        return bool(token == self.tokenizer.eos_token_id)

    def _text(self, completion: Ids) -> str:
        text: str = self.tokenizer.decode(completion, skip_special_tokens=True)
        return text
