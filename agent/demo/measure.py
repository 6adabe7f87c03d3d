"""Asks the demo's questions over HTTP, and measures answers and latency."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Any

import openai

from agent.demo.shops import Question

MAX_TOKENS = 40
TIMED_QUESTIONS = 7
"""Questions whose time to first token is measured, one at a time."""
CONCURRENCY = 5
"""Questions asked concurrently, so that the engine can batch them."""


@dataclass(frozen=True)
class Answered:
    """A question, its answer, and the length of its prompt."""

    question: Question
    text: str
    right: bool
    prompt_tokens: int


@dataclass(frozen=True)
class Score:
    """All answers of one arm."""

    answers: tuple[Answered, ...]
    first_tokens_s: tuple[float, ...]

    @property
    def right(self) -> int:
        """Number of correct answers."""
        return sum(answer.right for answer in self.answers)

    @property
    def prompt_tokens(self) -> float:
        """Mean prompt length, in tokens."""
        return fmean(answer.prompt_tokens for answer in self.answers)

    @property
    def first_token_ms(self) -> float:
        """Median time to the first token, in milliseconds."""
        return 1000 * median(self.first_tokens_s)


def ask_all(
    client: openai.OpenAI,
    model: str,
    questions: Sequence[Question],
    advance: Callable[[], None],
) -> Score:
    """Ask every question, with logging off so that nothing is learned from it."""
    first_tokens_s = tuple(
        _first_token_s(client, model, question) for question in questions[:TIMED_QUESTIONS]
    )
    answers = []
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for answer in pool.map(partial(ask_one, client, model), questions):
            answers.append(answer)
            advance()
    return Score(tuple(answers), first_tokens_s)


def _body(model: str, question: Question) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question.text}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "store": False,
    }


def ask_one(client: openai.OpenAI, model: str, question: Question) -> Answered:
    """Ask one question, with logging off so that nothing is learned from it."""
    reply = client.chat.completions.create(**_body(model, question))
    text = reply.choices[0].message.content or ""
    tokens = reply.usage.prompt_tokens if reply.usage else 0
    return Answered(question, text, question.fact.is_right(text), tokens)


def _first_token_s(client: openai.OpenAI, model: str, question: Question) -> float:
    """Return the seconds from the request to the first text of the answer."""
    started = time.monotonic()
    chunks = client.chat.completions.create(**_body(model, question), stream=True)
    with chunks:  # closes the stream early
        for chunk in chunks:
            if chunk.choices and chunk.choices[0].delta.content:
                break
    return time.monotonic() - started
