"""Before a run trains: is there anything to learn, and what does the context change?

A context that the model does not follow, or that changes nothing, ends a run here: it would publish
an adapter that is worth nothing. All of it is measured on answers of the teacher.
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

# A teacher that is this close to the base, in nats a token, has nothing to teach.
MIN_GAP = 0.01
TRAJECTORIES, GENERAL = 16, 8
# How far a context moves an answer can be seen in its beginning.
BEGINNING = 32
# A context that moves the beginnings of most answers to general prompts this far, in nats a token,
# is about them too. In front of the embedded model the median over the prompts was 0.09 to 0.15 for
# thirteen contexts of facts, labels and forms, 0.25 and 0.28 for two ways of speaking, and 0.43 for
# another language (2026-11-26); 0.14 to 0.22 for a handbook, by how it was told, and 0.19 to 0.24
# for three more ways of speaking (2026-11-27). So what the context says decides between them: many
# numbers are a handbook's, and one that names little is about how to speak. Their mean does not
# tell them apart: a list of facts had 0.24, of which one prompt was 1.2.
OF_FACTS, OF_EITHER, OF_MANNER = 0.3, 0.2, 0.17
MANY_NUMBERS, FEW_NAMES = 1 / 3, 1 / 2


class NothingToLearn(Exception):
    """The context does not help the model; the message says by what measure."""


def check(
    encoder: Encoder, teacher: Teacher, sampler: LocalSampler, asked: Sequence[Messages]
) -> list[Messages]:
    """Make sure that the context makes a difference to what it is asked.

    Returns:
        Those of the first prompts on which it makes none, to base and student: they are there to
        be kept.

    Raises:
        NothingToLearn: It makes no difference worth learning.
    """
    first = asked[:TRAJECTORIES]
    answers = _begun(teacher, sampler, list(map(encoder.prompt, first)))
    with teacher.student.adapter_disabled():
        of_base = measure.token_kls(teacher, answers)
    gap = float(torch.cat(of_base).mean())
    if gap < MIN_GAP:
        raise NothingToLearn(
            f"With the context the model answers as it does without: {gap:.4f} nats a token apart."
        )
    of_student = measure.token_kls(teacher, answers)
    return [
        messages
        for messages, *each in zip(first, of_base, of_student, strict=True)
        if max(float(values.mean()) for values in each) < MIN_GAP
    ]


def check_anchors(
    spec: RunSpec, encoder: Encoder, teacher: Teacher, sampler: LocalSampler
) -> Anchored:
    """The anchors that base and teacher pass, if the context helps with them or there are none.

    Raises:
        NothingToLearn: The model passes no more of them with the context than without.
    """
    patient = sampler.for_stage("anchors", max_tokens=spec.settings.max_answer_tokens)
    passed = measure.check_anchors(teacher, patient, encoder, spec.anchors)
    if spec.anchors and passed.teacher <= passed.base:
        advice = " Add anchors that need the context." if passed.base == len(spec.anchors) else ""
        raise NothingToLearn(
            f"With the context the model passes {passed.teacher} of {len(spec.anchors)} anchors, "
            f"without it {passed.base}.{advice}"
        )
    return passed


def concerns_everything(
    encoder: Encoder, teacher: Teacher, sampler: LocalSampler, statements: Sequence[str]
) -> bool:
    """Whether the context changes the answers to general prompts too, as a format or a rule does.

    Then to keep such answers as the base gives them would be to unlearn the context: with it they
    are what the student is to give.

    Args:
        encoder: Of the context.
        teacher: Of the context.
        sampler: For its answers.
        statements: What the context says.
    """
    asked = [encoder.prompt(user(text)) for text in general_prompts.PROMPTS[:GENERAL]]
    answers = _begun(teacher, sampler, asked)
    with teacher.student.adapter_disabled():
        moved = [float(values.mean()) for values in measure.token_kls(teacher, answers)]
    return median(moved) >= moving(statements)


def moving(statements: Sequence[str]) -> float:
    """How far a context that says this has to move general answers to be about them, in nats."""
    count = max(len(statements), 1)
    if sum(bool(digit_runs(each)) for each in statements) >= MANY_NUMBERS * count:
        return OF_FACTS
    named = sum(bool(facts(each)) for each in statements)
    return OF_MANNER if named <= FEW_NAMES * count else OF_EITHER


def _begun(teacher: Teacher, sampler: LocalSampler, asked: Sequence[Prompt]) -> list[Trajectory]:
    """The beginnings of the teacher's answers."""
    brief = sampler.for_stage("preflight", max_tokens=min(sampler.max_tokens, BEGINNING))
    return sample_from_teacher(teacher, brief, asked, temperature=0)
