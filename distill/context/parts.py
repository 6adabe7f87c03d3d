"""A context as statements, any of which can be left out of the prompt."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distill.context.sourced import SourcedStatement, sourced_statements
from distill.context.traced import Span
from store.contexts import Context
from store.residual import residual_text


@dataclass(frozen=True)
class ContextParts:
    """The statements of a context, in order: those of the system prompt, then the lessons."""

    context: Context
    statements: tuple[SourcedStatement, ...]
    token_starts: tuple[int, ...]
    """The position in the system prompt of each of its tokens."""

    @staticmethod
    def of(context: Context, tokenizer: Any) -> "ContextParts":  # noqa: ANN401
        """Divide a context; its system prompt is measured in tokens of the tokenizer."""
        encoded = tokenizer(
            context.system_prompt or "", add_special_tokens=False, return_offsets_mapping=True
        )
        starts = tuple(start for start, _ in encoded["offset_mapping"])
        return ContextParts(context, tuple(sourced_statements(context)), starts)

    def __len__(self) -> int:
        return len(self.statements)

    def subset(self, kept: Collection[int]) -> Context:
        """Return the context with only these statements, in the context's words and order."""
        statements = [self.statements[index] for index in sorted(kept)]
        spans = [span for each in statements for span in (*each.spans, *each.support)]
        prompt = residual_text(self.context.system_prompt or "", self._segments(spans))
        return Context(prompt or None, tuple(each.text for each in statements if each.is_lesson))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each statement with its place in the system prompt, as plain values.

        Spans and support are lists of [start, end, tokens].
        """
        for each in self.statements:
            yield {
                "text": each.text,
                "lesson": each.is_lesson,
                "spans": self._segments(each.spans),
                "support": self._segments(each.support),
            }

    def _segments(self, spans: Sequence[Span]) -> list[list[int]]:
        return [
            [start, end, sum(start <= position < end for position in self.token_starts)]
            for start, end in spans
        ]
