"""Facts: did the candidate learn the numbers and names, or only the tone in which they are told?

Of the teacher's own answer, token by token, those are looked at that belong to a number or a name
which stands in the context and not in the question, and which the base would not say there. The
candidate has learned one if it is the token it would say. A model that was taught other facts in
the same sentences is close in divergence, and fails here.
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
    teacher: Teacher, tokenizer: Tokenizer, context: str, reference: Sequence[Trajectory]
) -> tuple[int, int]:
    """Facts that the base misses, and how many of those the candidate says.

    Args:
        teacher: Teacher and student; the student's adapter is the candidate.
        tokenizer: The base's.
        context: What the context says, a sentence a line.
        reference: The teacher's greedy answers.
    """
    student = teacher.student
    with student.adapter_disabled():
        base = _choices(student, reference)
    candidate = _choices(student, reference)
    missed = learned = 0
    for item, plain, tuned in zip(reference, base, candidate, strict=True):
        told = logits(item.teacher_states.to(student.head.device), student.head).argmax(-1)
        for place in fact_places(tokenizer, context, item.prompt.text, item.completion):
            if plain[place] != told[place]:
                missed += 1
                learned += int(tuned[place] == told[place])
    return missed, learned


def fact_places(
    tokenizer: Tokenizer, context: str, question: str, completion: TokenIds
) -> list[int]:
    """Places of the tokens that tell a number or name of the context, not said in the question."""
    asked = {each.lower() for each in WORD.findall(question)}
    told = {each for each in statements.facts(context) if each.lower() not in asked}
    ends = [len(tokenizer.decode(completion[: n + 1])) for n in range(len(completion))]
    spans = zip([0, *ends], ends, strict=False)
    text = tokenizer.decode(completion)
    named = [each.span() for each in WORD.finditer(text) if each.group() in told]
    return [
        place
        for place, (start, end) in enumerate(spans)
        if any(start < fact_end and end > fact_start for fact_start, fact_end in named)
    ]


def _choices(student: Student, reference: Sequence[Trajectory]) -> list[Tensor]:
    """The token the student would say at each place of each answer, without context."""
    pairs = [(item.prompt.student_ids, item.completion) for item in reference]
    choices: list[Tensor] = []
    for run in packing.microbatches(pairs, 0, student.model.device):
        lengths = [len(completion) for _, completion in pairs[run]]
        for states in student.states(pairs[run]).split(lengths):
            choices.append(logits(states, student.head).argmax(-1))
    return choices
