"""The held-out questions about each statement, and what teacher and candidate answer to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from distill.context import statements
from distill.evaluate import measure
from distill.evaluate.facts import WORD
from distill.model.encoder import Encoder, Prompt
from distill.model.packing import TokenIds
from distill.model.sampler import LocalSampler
from distill.model.teacher import Teacher
from distill.model.trajectories import Trajectory, teacher_completions

SAMPLES = 4
"""Answers per question and model, sampled at the serving temperature."""


@dataclass(frozen=True)
class Check:
    """The held-out questions about one statement."""

    statement: str
    """In the context's words."""
    reference: tuple[Trajectory, ...]
    """The teacher's greedy answers to the questions."""
    verbatim: tuple[Trajectory, ...] = ()
    """The statement's own words as answers to the questions; empty for an instruction, which
    nobody answers with."""


@dataclass(frozen=True)
class Answers:
    """One model's answers to a question: greedy, and sampled at the serving temperature."""

    greedy: str
    sampled: tuple[str, ...]


def words(text: str) -> set[str]:
    """The words and numbers of a text, in lower case."""
    return set(WORD.findall(text.lower()))


def given_facts(statement: str, question: str, answer: str) -> set[str]:
    """The numbers and names of a statement that an answer gives and its question does not."""
    return facts_asked_for(statement, question) & words(answer)


def facts_asked_for(statement: str, question: str) -> set[str]:
    """The numbers and names of a statement that a question does not say, in lower case."""
    return {fact.lower() for fact in statements.facts(statement)} - words(question)


def teacher_answers(
    teacher: Teacher,
    sampler: LocalSampler,
    encoder: Encoder,
    checks: Sequence[Check],
    temperature: float,
) -> list[Answers]:
    """The teacher's answers, one for each question of each check, in order.

    Answers are sampled only where the greedy one gives a fact: elsewhere they show nothing.
    """
    asked = [(check.statement, item) for check in checks for item in check.reference]
    greedy = encoder.decode([item.completion for _, item in asked])
    counts = [
        SAMPLES if given_facts(statement, item.prompt.text, text) else 0
        for (statement, item), text in zip(asked, greedy, strict=True)
    ]
    repeated = [
        item.prompt for (_, item), count in zip(asked, counts, strict=True) for _ in range(count)
    ]
    sampler = sampler.for_stage("measure the teacher")
    sampled = encoder.decode(teacher_completions(teacher, sampler, repeated, temperature))
    return _grouped(greedy, sampled, counts)


def candidate_answers(
    sampler: LocalSampler,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    temperature: float,
    counts: Sequence[int],
) -> list[Answers]:
    """The candidate's answers to each prompt: a greedy one, and `counts` sampled ones."""
    sampler = sampler.for_stage("measure each statement")
    greedy = encoder.decode(measure.greedy(sampler, prompts))
    ids: list[TokenIds] = [
        prompt.student_ids
        for prompt, count in zip(prompts, counts, strict=True)
        for _ in range(count)
    ]
    return _grouped(greedy, encoder.decode(sampler.sample(ids, temperature)), counts)


def _grouped(greedy: Sequence[str], sampled: Sequence[str], counts: Sequence[int]) -> list[Answers]:
    rest = iter(sampled)
    return [
        Answers(text, tuple(next(rest) for _ in range(count)))
        for text, count in zip(greedy, counts, strict=True)
    ]
