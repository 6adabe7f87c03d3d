"""Asking the questions of the demo over HTTP, and what that shows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import openai

from agent.demo.shops import Question

MAX_TOKENS = 40


@dataclass(frozen=True)
class Answered:
    """One answer, and what it cost."""

    question: Question
    text: str
    right: bool
    prompt_tokens: int
    first_token_s: float


@dataclass(frozen=True)
class Score:
    """All answers of one arm."""

    answers: tuple[Answered, ...]

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(answer.right for answer in self.answers)

    @property
    def prompt_tokens(self) -> float:
        """Mean prompt length, in tokens."""
        return fmean(answer.prompt_tokens for answer in self.answers)

    @property
    def first_token_ms(self) -> float:
        """Median time to the first token, in milliseconds."""
        return 1000 * median(answer.first_token_s for answer in self.answers)


def ask_all(
    client: openai.OpenAI,
    model: str,
    questions: Sequence[Question],
    advance: Callable[[], None],
) -> Score:
    """Ask every question, one after the other, without leaving a trace to learn from."""
    answers = []
    for question in questions:
        answers.append(_ask(client, model, question))
        advance()
    return Score(tuple(answers))


def _ask(client: openai.OpenAI, model: str, question: Question) -> Answered:
    began = time.monotonic()
    first, parts, usage = 0.0, [], None
    for chunk in client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question.text}],
        max_tokens=MAX_TOKENS,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        store=False,
    ):
        usage = chunk.usage or usage
        text = chunk.choices[0].delta.content if chunk.choices else None
        if text:
            first = first or time.monotonic() - began
            parts.append(text)
    said = "".join(parts)
    return Answered(
        question=question,
        text=said,
        right=question.fact.is_right(said),
        prompt_tokens=usage.prompt_tokens if usage else 0,
        first_token_s=first,
    )
