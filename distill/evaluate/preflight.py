"""Checks before training that there is something to learn, and what the context affects.

A context that the model does not follow, or that changes nothing, ends the run here, because its
adapter would be useless. All checks measure the teacher's answers.
"""

from collections.abc import Sequence
from statistics import median

import torch

from distill.context.statements import facts
from distill.evaluate import general_prompts, measure
from distill.evaluate.measure import Anchored
from distill.model.encoder import Encoder, Messages, Prompt, user
from distill.model.sampler import LocalSampler
from distill.model.teacher import Teacher
from distill.model.trajectories import Trajectory, sample_from_teacher
from distill.spec import RunSpec
from store.text.words import digit_runs

# A teacher that differs less from the base, in nats per token, has nothing to teach.
MIN_GAP = 0.01
TRAJECTORIES, GENERAL = 16, 8
# The effect of a context on an answer shows in its first tokens.
PREFIX_TOKENS = 32
# A context whose median divergence on the first tokens of answers to general prompts, in nats per
# token, reaches the threshold affects general prompts too. Measured with the embedded model:
# 0.09 to 0.15 for thirteen contexts of facts, labels and formats, 0.25 and 0.28 for two ways of
# speaking, 0.43 for another language (2026-11-26); 0.14 to 0.22 for a handbook, depending on its
# wording, 0.19 to 0.24 for three more ways of speaking (2026-11-27). These ranges overlap, so the
# threshold depends on the statements: a handbook has many numbers, and a context with few names is
# about style. The mean does not separate them: a list of facts had 0.24 because of one prompt
# with 1.2.
FACT_THRESHOLD, MIXED_THRESHOLD, STYLE_THRESHOLD = 0.3, 0.2, 0.17
MANY_NUMBERS, FEW_NAMES = 1 / 3, 1 / 2


class NothingToLearn(Exception):
    """The context does not help the model; the message contains the measurement."""


def check(
    encoder: Encoder, teacher: Teacher, sampler: LocalSampler, prompts: Sequence[Messages]
) -> list[Messages]:
    """Check that the context changes the answers to the prompts.

    Returns:
        Those of the first prompts whose answers it changes neither for the base nor for the
        student; they are for replay.

    Raises:
        NothingToLearn: The answers hardly change.
    """
    first = prompts[:TRAJECTORIES]
    answers = _answer_starts(teacher, sampler, list(map(encoder.prompt, first)))
    with teacher.student.adapter_disabled():
        base_kls = measure.token_kls(teacher, answers)
    gap = float(torch.cat(base_kls).mean())
    if gap < MIN_GAP:
        raise NothingToLearn(
            f"The context hardly changes the model's answers: {gap:.4f} nats per token, "
            f"required >= {MIN_GAP}."
        )
    student_kls = measure.token_kls(teacher, answers)
    return [
        messages
        for messages, *kls in zip(first, base_kls, student_kls, strict=True)
        if max(float(values.mean()) for values in kls) < MIN_GAP
    ]


def check_anchors(
    spec: RunSpec, encoder: Encoder, teacher: Teacher, sampler: LocalSampler
) -> Anchored:
    """The anchors with the answers of base and teacher.

    Raises:
        NothingToLearn: The model passes no more anchors with the context than without.
    """
    sampler = sampler.for_stage("anchors", max_tokens=spec.settings.max_answer_tokens)
    anchored = measure.check_anchors(teacher, sampler, encoder, spec.anchors)
    total = len(spec.anchors)
    if spec.anchors and anchored.teacher <= anchored.base:
        advice = " Add anchors that need the context." if anchored.base == total else ""
        raise NothingToLearn(
            f"With the context the model passes {anchored.teacher} of {total} anchors, without it "
            f"{anchored.base}.{advice}"
        )
    return anchored


def affects_general_prompts(
    encoder: Encoder, teacher: Teacher, sampler: LocalSampler, statements: Sequence[str]
) -> bool:
    """Whether the context changes the answers to general prompts, as a format or a rule does.

    If it does, replaying the base's answers to them would unlearn the context; the student should
    give the teacher's answers instead.

    Args:
        encoder: The encoder of the run's context.
        teacher: The model with the context.
        sampler: Samples from the model.
        statements: The statements of the context.
    """
    prompts = [encoder.prompt(user(text)) for text in general_prompts.PROMPTS[:GENERAL]]
    answers = _answer_starts(teacher, sampler, prompts)
    with teacher.student.adapter_disabled():
        kls = [float(values.mean()) for values in measure.token_kls(teacher, answers)]
    return median(kls) >= general_threshold(statements)


def general_threshold(statements: Sequence[str]) -> float:
    """The divergence from which a context of these statements affects general prompts, in nats."""
    count = max(len(statements), 1)
    with_numbers = sum(bool(digit_runs(statement)) for statement in statements)
    if with_numbers >= MANY_NUMBERS * count:
        return FACT_THRESHOLD
    with_names = sum(bool(facts(statement)) for statement in statements)
    return STYLE_THRESHOLD if with_names <= FEW_NAMES * count else MIXED_THRESHOLD


def _answer_starts(
    teacher: Teacher, sampler: LocalSampler, prompts: Sequence[Prompt]
) -> list[Trajectory]:
    """The first tokens of the teacher's answers."""
    sampler = sampler.for_stage("preflight", max_tokens=min(sampler.max_tokens, PREFIX_TOKENS))
    return sample_from_teacher(teacher, sampler, prompts, temperature=0)
