"""Prepares the data of a run, once, for all its steps: prompts, questions, teacher's answers.

No training prompt is a near-duplicate of a held-out prompt or an anchor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distill.data import collect
from distill.data.checks import distinct_prompts, statement_checks, verbatim_answers
from distill.data.collect import Collected, Question
from distill.data.split import split
from distill.evaluate import general_prompts, preflight
from distill.evaluate.answers import Check
from distill.evaluate.measure import Anchored
from distill.model.encoder import Encoder, Messages, Prompt, prompt_texts, user, user_text
from distill.model.sampler import LocalSampler
from distill.model.teacher import Teacher
from distill.model.trajectories import Trajectory, sample_from_teacher
from distill.progress import ANCHORS_PASSED
from distill.spec import RunSpec
from store.text import similarity

# Enough that no answer repeats often in a run; the student would learn a small set by itself.
MAX_TEACHER_SAMPLED_REPLAY = 80

Advance = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RunData:
    """All data that the steps of a run draw from."""

    prompts: list[Prompt]
    """Prompts of this context."""
    teacher_sampled: list[Trajectory]
    """The teacher's answers to them."""
    replay: list[Prompt]
    """Prompts of this namespace that the context makes no difference to, without it, and general
    prompts, which have the context if it affects them."""
    teacher_sampled_replay: list[Trajectory]
    """The teacher's answers to them; for prompts without the context, the base's."""
    validation: list[Trajectory]
    """The teacher's answers to prompts that are not trained on; they select the best step."""
    anchored: Anchored
    """The operator's anchors, with the answers of base and teacher."""
    held_out: list[Prompt]
    """Prompts that are never trained on; those of `checks` are among them."""
    checks: list[Check]
    """For each statement of the context, held-out questions about it."""
    unrelated: list[Prompt]
    """General prompts that are never trained on, with the context if it affects them."""
    statements: int
    """The number of statements in the context, which determines the number of steps."""


def prepare_data(
    spec: RunSpec, encoder: Encoder, teacher: Teacher, sampler: LocalSampler, advance: Advance
) -> RunData:
    """Check that there is something to learn, collect prompts, and sample the teacher's answers.

    Args:
        spec: The run.
        encoder: The encoder of the run's context.
        teacher: The model with the context.
        sampler: Samples from the model.
        advance: Called with (stage, done, total) to report progress.

    Raises:
        NothingToLearn: The context does not change the model's answers.
        ContextTooLong: It does not fit the model, or has more statements than a run can ask about.
        PromptTooLong, PromptRejected: A prompt does not fit, and may not be left out.
    """
    sampler = replace(sampler, progress=advance)
    _check_length(encoder)
    if not spec.context:
        raise preflight.NothingToLearn("The context is empty.")
    spec = _without_long_prompts(spec, encoder)
    logged = [*spec.prompts, *spec.held_out]
    unaffected = preflight.check(encoder, teacher, sampler, logged) if logged else []
    anchored = preflight.check_anchors(spec, encoder, teacher, sampler)
    if spec.anchors:
        advance(ANCHORS_PASSED, anchored.teacher, len(spec.anchors))
    avoid = _measured_on(spec)
    affected = tuple(messages for messages in spec.prompts if messages not in unaffected)
    spec = replace(spec, prompts=affected)
    taken = [*avoid, *map(user_text, unaffected)]
    collected = collect.collect_prompts(spec, encoder, teacher, sampler, taken)
    if not logged:
        written = [*collected.own, *collected.general]
        preflight.check(encoder, teacher, sampler, [question.messages for question in written])
    return _run_data(spec, encoder, teacher, sampler, collected, anchored, unaffected)


def _run_data(  # noqa: PLR0913 - what the first half of the preparation has found
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    collected: Collected,
    anchored: Anchored,
    unaffected: Sequence[Messages],
) -> RunData:
    """Divide the questions, and sample the teacher's answers to them."""
    general = _general_held_out(collected.own)
    checks = statement_checks(spec, encoder, teacher, sampler, collected, general)
    check_prompts = distinct_prompts(checks)
    max_questions = _draws(spec, collected, share=1.0)
    training, validation, held_out = split(
        collected, spec.held_out, max_questions, spec.settings.seed, len(check_prompts)
    )
    prompts = [encoder.prompt(question.messages) for question in training]
    avoid = _measured_on(spec)
    kept = [encoder.prompt(each, replay=True) for each in collect.distinct(unaffected, avoid)]
    replay = [*kept, *_general(encoder, collected, collected.unrelated)]
    # In one call, because a large decode batch takes hardly longer than a small one.
    sampler = sampler.for_stage("sample the teacher")
    aside = [encoder.prompt(question.messages) for question in validation]
    taught = _taught_prompts(spec, prompts, training)
    answers = sample_from_teacher(teacher, sampler, [*aside, *taught], temperature=0)
    more = _more_answers(spec, teacher, sampler, taught)
    verbatim = context_verbatim(spec, encoder, teacher, prompts, training)
    return RunData(
        prompts,
        [*answers[len(aside) :], *more, *verbatim],
        replay,
        _replay_answers(spec, teacher, sampler, replay, collected),
        answers[: len(aside)],
        anchored,
        [*map(encoder.prompt, held_out), *check_prompts],
        checks,
        _general(encoder, collected, _general_held_out(training)),
        collected.statements,
    )


def _check_length(encoder: Encoder) -> None:
    tokens = len(encoder.ids(user(""), encoder.context))
    if tokens > encoder.max_prompt_tokens:
        raise collect.ContextTooLong(
            f"The context has {tokens} tokens; the limit for this model, with room for an answer, "
            f"is {encoder.max_prompt_tokens}. Shorten or split the context."
        )


def _measured_on(spec: RunSpec) -> list[str]:
    """The texts of held-out prompts and anchors; near-duplicates must not be trained on."""
    measured = [*spec.held_out, *(anchor.messages for anchor in spec.anchors)]
    return [text for messages in measured for text in prompt_texts(messages)]


def _general(encoder: Encoder, collected: Collected, texts: Sequence[str]) -> list[Prompt]:
    """General prompts, without the context unless it affects them."""
    return [encoder.prompt(user(text), replay=not collected.affects_general) for text in texts]


def _general_held_out(training: Sequence[Question]) -> list[str]:
    """The general held-out prompts without near-duplicates of what is trained on."""
    trained = [user_text(question.messages) for question in training]
    return similarity.without_near_duplicates(general_prompts.HELD_OUT, trained)


def _draws(spec: RunSpec, collected: Collected, share: float) -> int:
    """How many trajectories all steps draw for a share of each batch; more would be unused."""
    settings = spec.resolved_settings(collected.statements)
    return math.ceil(settings.steps * settings.batch_size * share)


def _taught_prompts(
    spec: RunSpec, prompts: Sequence[Prompt], training: Sequence[Question]
) -> Sequence[Prompt]:
    """The prompts that the teacher answers; none without teacher-sampled trajectories."""
    if not spec.effective_settings().teacher_share:
        return []
    pairs = zip(prompts, training, strict=True)
    return [prompt for prompt, question in pairs if question.needs_teacher] or prompts


def _without_long_prompts(spec: RunSpec, encoder: Encoder) -> RunSpec:
    """The run without prompts that do not fit the model, if it allows dropping them."""
    if not spec.drop_long:
        return spec
    logged, held_out = (
        tuple(filter(encoder.fits, messages)) for messages in (spec.prompts, spec.held_out)
    )
    return replace(spec, prompts=logged, held_out=held_out)


def _more_answers(
    spec: RunSpec, teacher: Teacher, sampler: LocalSampler, prompts: Sequence[Prompt]
) -> list[Trajectory]:
    """The teacher's answers after the first, greedy one."""
    repeated = [*prompts] * (spec.settings.answers_per_question - 1)
    return sample_from_teacher(teacher, sampler, repeated, spec.settings.teacher_temperature)


def _replay_answers(
    spec: RunSpec,
    teacher: Teacher,
    sampler: LocalSampler,
    replay: Sequence[Prompt],
    collected: Collected,
) -> list[Trajectory]:
    """The teacher's answers to replay prompts; none without teacher-sampled trajectories."""
    if not spec.effective_settings().teacher_share:
        return []
    count = min(_draws(spec, collected, spec.settings.replay_share), MAX_TEACHER_SAMPLED_REPLAY)
    return sample_from_teacher(teacher, sampler, replay[:count], spec.settings.temperature)


def context_verbatim(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    prompts: Sequence[Prompt],
    training: Sequence[Question],
) -> list[Trajectory]:
    """The context's own words as answers; none without teacher-sampled trajectories.

    The teacher's answers get some facts wrong; these contain each fact as it is. The target is
    still the teacher's distribution at each token, except for the end of an answer in a context
    with examples (`model/answer_end.py`). So a statement that the teacher would not start an answer
    with teaches nothing about how answers start.
    """
    if not spec.effective_settings().teacher_share:
        return []
    asked = [
        (prompt, question.answer)
        for prompt, question in zip(prompts, training, strict=True)
        if question.answer and question.needs_teacher
    ]
    return verbatim_answers(spec, encoder, teacher, asked)
