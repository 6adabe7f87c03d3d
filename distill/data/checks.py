"""Prepares the questions that show whether each statement of the context is learned.

They are asked in wordings that nothing is trained on. An instruction on how to answer is not asked
about: it shows in the answers to general prompts.
"""

from collections.abc import Sequence

from distill.context.parts import ContextParts
from distill.context.sourced import SourcedStatement
from distill.context.statements import facts, is_instruction
from distill.data.collect import Collected
from distill.evaluate.answers import Check
from distill.model.encoder import Encoder, Prompt, user
from distill.model.sampler import LocalSampler
from distill.model.teacher import Teacher
from distill.model.trajectories import Trajectory, sample_from_teacher, score
from distill.spec import RunSpec

# Context-verbatim answers are not cut below this length, so every statement fits.
MIN_VERBATIM_TOKENS = 256
# General prompts whose answers show whether an instruction is learned.
GENERAL_CHECKS = 4


def statement_checks(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    collected: Collected,
    general: Sequence[str],
) -> list[Check]:
    """Return the questions about each statement of the context, in its order.

    Args:
        spec: The run.
        encoder: The encoder of the run's context.
        teacher: The model with the context.
        sampler: Samples from the model.
        collected: The questions of the run.
        general: General prompts that are not trained on.
    """
    sampler = sampler.for_stage(
        "answer held-out questions", max_tokens=spec.settings.max_answer_tokens
    )
    statements = ContextParts.of(spec.context, encoder.tokenizer).statements
    instructions = {each.text for each in statements if _is_shown_by_any_answer(each, collected)}
    asked = [each for each in collected.measuring if each.source not in instructions]
    prompts = [encoder.prompt(question.messages) for question in asked]
    shown = [encoder.prompt(user(text)) for text in general[:GENERAL_CHECKS] if instructions]
    taught = sample_from_teacher(teacher, sampler, [*prompts, *shown], temperature=0)
    stated = [index for index, each in enumerate(asked) if each.answer and each.needs_teacher]
    pairs = [(prompts[index], asked[index].answer or "") for index in stated]
    scored = verbatim_answers(spec, encoder, teacher, pairs)
    verbatim = dict(zip(stated, scored, strict=True))
    checks = []
    for each in statements:
        own = [index for index, question in enumerate(asked) if question.source == each.text]
        reference = [taught[index] for index in own]
        if each.text in instructions:
            reference = taught[len(asked) :]
        answers = [verbatim[index] for index in own if index in verbatim]
        checks.append(Check(each.text, tuple(reference), tuple(answers)))
    return checks


def _is_shown_by_any_answer(statement: SourcedStatement, collected: Collected) -> bool:
    """Whether a statement tells the model how to answer anything, rather than what is so."""
    if not statement.is_askable:
        return False
    is_manner = collected.affects_general and not facts(statement.text)
    return is_manner or is_instruction(statement.text)


def distinct_prompts(checks: Sequence[Check]) -> list[Prompt]:
    """Return the prompts of all checks, each once; instructions share theirs."""
    prompts = [item.prompt for check in checks for item in check.reference]
    return list({prompt.student_ids: prompt for prompt in prompts}.values())


def verbatim_answers(
    spec: RunSpec, encoder: Encoder, teacher: Teacher, asked: Sequence[tuple[Prompt, str]]
) -> list[Trajectory]:
    """Return the context's own words as the answers to prompts, scored by the teacher."""
    max_tokens = max(spec.settings.max_completion_tokens, MIN_VERBATIM_TOKENS)
    completions = [
        encoder.answer_ids(answer)[: min(max_tokens, encoder.answer_budget(prompt))]
        for prompt, answer in asked
    ]
    return score(teacher, [prompt for prompt, _ in asked], completions, is_complete=True)
