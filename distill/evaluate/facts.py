"""Measures whether the candidate learned the numbers and names, rather than the tone.

It looks at the tokens of the teacher's answers that belong to a number or a name which is in the
context, is not in the question, and is not the base's choice. The candidate has learned such a
token if it is the candidate's choice. A model that was taught other facts in the same sentences has
a small divergence but fails here.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from distill.context import statements
from distill.model import packing
from distill.model.logits import logits
from distill.model.packing import TokenIds
from distill.model.student import Student, Tokenizer
from distill.model.teacher import Teacher
from distill.model.trajectories import Trajectory

WORD = re.compile(r"\d+|[^\W\d_]+")


@torch.no_grad()  # type: ignore[untyped-decorator]
def count(
    teacher: Teacher,
    tokenizer: Tokenizer,
    context: str,
    reference: Sequence[Trajectory],
    served: Sequence[Trajectory],
) -> tuple[int, int]:
    """The number of fact tokens that the base misses, and how many of those the candidate says.

    Args:
        teacher: Teacher and student; the student's adapter is the candidate.
        tokenizer: The base's.
        context: The statements of the context, one per line.
        reference: The teacher's greedy answers.
        served: The same, with prompts as the candidate serves them.
    """
    student = teacher.student
    with student.adapter_disabled():
        base_choices = _choices(student, reference)
    candidate_choices = _choices(student, served)
    missed = learned = 0
    for item, base, candidate in zip(reference, base_choices, candidate_choices, strict=True):
        correct = logits(item.teacher_states.to(student.head.device), student.head).argmax(-1)
        for index in fact_positions(tokenizer, context, item.prompt.text, item.completion):
            if base[index] != correct[index]:
                missed += 1
                learned += int(candidate[index] == correct[index])
    return missed, learned


def fact_positions(
    tokenizer: Tokenizer, context: str, question: str, completion: TokenIds
) -> list[int]:
    """Positions of the tokens in numbers and names of the context that the question lacks."""
    question_words = {word.lower() for word in WORD.findall(question)}
    facts = {fact for fact in statements.facts(context) if fact.lower() not in question_words}
    ends = [len(tokenizer.decode(completion[: n + 1])) for n in range(len(completion))]
    spans = zip([0, *ends], ends, strict=False)
    text = tokenizer.decode(completion)
    fact_spans = [match.span() for match in WORD.finditer(text) if match.group() in facts]
    return [
        index
        for index, (start, end) in enumerate(spans)
        if any(start < fact_end and end > fact_start for fact_start, fact_end in fact_spans)
    ]


def _choices(student: Student, reference: Sequence[Trajectory]) -> list[Tensor]:
    """The student's most likely token at each position of each answer, without context."""
    pairs = [(item.prompt.student_ids, item.completion) for item in reference]
    choices: list[Tensor] = []
    for microbatch in packing.microbatches(pairs, 0, student.model.device):
        lengths = [len(completion) for _, completion in pairs[microbatch]]
        for states in student.states(pairs[microbatch]).split(lengths):
            choices.append(logits(states, student.head).argmax(-1))
    return choices
