"""What a run trains on, prepared once and kept for a resume: prompts, questions, guided answers.

Nothing that is trained on is near a held-out prompt or an anchor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distill.data import collect
from distill.data.collect import Collected, Question
from distill.data.split import split
from distill.evaluate import general_prompts, preflight
from distill.evaluate.measure import Anchored
from distill.model.encoder import Encoder, Prompt, prompt_texts, user, user_text
from distill.model.sampler import LocalSampler
from distill.model.teacher import Teacher
from distill.model.trajectories import Trajectory, sample_from_teacher, score
from distill.progress import ANCHORS_PASSED
from distill.spec import RunSpec
from store.text import similarity

# Of so few that a run repeats each of them often, the student would learn these alone.
MAX_TEACHER_SAMPLED_REPLAY = 80
# What stands in a context is said to its end; what is longer than this is no statement.
MAX_RECITED = 256

Advance = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RunData:
    """Everything that the steps of a run draw from."""

    prompts: list[Prompt]
    """Prompts of this context."""
    teacher_sampled: list[Trajectory]
    """The teacher's answers to them."""
    replay: list[Prompt]
    """Prompts of this namespace on which the context makes no difference, without it; and general
    ones, with it where it concerns everything."""
    teacher_sampled_replay: list[Trajectory]
    """The teacher's answers to them: the base's, where they are without the context."""
    validation: list[Trajectory]
    """The teacher's answers to prompts that are not trained on, by which a step is chosen."""
    anchored: Anchored
    """The operator's checks, and how base and teacher answer them."""
    held_out: list[Prompt]
    unrelated: list[Prompt]
    """General prompts never trained on; with the context where it is about them too."""
    statements: int
    """How much the context says: the more, the more steps."""


def prepare_data(
    spec: RunSpec, encoder: Encoder, teacher: Teacher, sampler: LocalSampler, advance: Advance
) -> RunData:
    """Make sure there is something to learn; collect prompts, and let the teacher answer.

    Args:
        spec: The run.
        encoder: Of the run's context.
        teacher: Answers with its context.
        sampler: Of answers, with the model's weights.
        advance: Called with (stage, done, total) as work goes on.

    Raises:
        NothingToLearn: The context does not help.
        ContextTooLong: It does not fit the model, or says more than a run can ask about.
        PromptTooLong, PromptRejected: A prompt does not fit, and may not be left out.
    """
    sampler = replace(sampler, progress=advance)
    _check_length(encoder)
    if not spec.context:
        raise preflight.NothingToLearn("The context is empty.")
    spec = _fitting(spec, encoder)
    logged = [*spec.prompts, *spec.held_out]
    known = preflight.check(encoder, teacher, sampler, logged) if logged else []
    anchored = preflight.check_anchors(spec, encoder, teacher, sampler)
    if spec.anchors:
        advance(ANCHORS_PASSED, anchored.teacher, len(spec.anchors))
    avoid = _measured_on(spec)
    spec = replace(spec, prompts=tuple(each for each in spec.prompts if each not in known))
    taken = [*avoid, *map(user_text, known)]
    collected = collect.collect_prompts(spec, encoder, teacher, sampler, taken)
    if not logged:
        written = [*collected.own, *collected.general]
        preflight.check(encoder, teacher, sampler, [each.messages for each in written])
    most = _drawn(spec, collected, share=1.0)
    trained, validated, held_out = split(collected, spec.held_out, most, spec.settings.seed)
    encoded = [encoder.prompt(question.messages) for question in trained]
    served = [encoder.prompt(each, replay=True) for each in collect.distinct(known, avoid)]
    unchanged = [*served, *_general(encoder, collected, collected.unrelated)]
    # Together, since a decoding step of many takes hardly longer than one of few.
    sampler = sampler.for_stage("sample the teacher")
    aside = [encoder.prompt(question.messages) for question in validated]
    shown = _shown(spec, encoded, trained)
    answers = sample_from_teacher(teacher, sampler, [*aside, *shown], temperature=0)
    return RunData(
        encoded,
        [
            *answers[len(aside) :],
            *_more_answers(spec, teacher, sampler, shown),
            *recited(spec, encoder, teacher, encoded, trained),
        ],
        unchanged,
        _replayed(spec, teacher, sampler, unchanged, collected),
        answers[: len(aside)],
        anchored,
        [encoder.prompt(messages) for messages in held_out],
        _general(encoder, collected, _untaught(trained)),
        collected.statements,
    )


def _check_length(encoder: Encoder) -> None:
    tokens = len(encoder.ids(user(""), encoder.context))
    if tokens > encoder.max_prompt_tokens:
        raise collect.ContextTooLong(
            f"The context has {tokens} tokens; {encoder.max_prompt_tokens} fit the model beside an "
            "answer. Shorten it, or divide it."
        )


def _measured_on(spec: RunSpec) -> list[str]:
    """What is asked only to measure, and nothing near it to train."""
    apart = [*spec.held_out, *(anchor.messages for anchor in spec.anchors)]
    return [text for messages in apart for text in prompt_texts(messages)]


def _general(encoder: Encoder, collected: Collected, texts: Sequence[str]) -> list[Prompt]:
    """General prompts as they are to be answered: without the context, unless it is about them."""
    return [encoder.prompt(user(text), replay=not collected.everything) for text in texts]


def _untaught(trained: Sequence[Question]) -> list[str]:
    """General prompts to measure on that are not near what is trained on."""
    taught = [user_text(question.messages) for question in trained]
    return similarity.without_near_duplicates(general_prompts.HELD_OUT, taught)


def _drawn(spec: RunSpec, collected: Collected, share: float) -> int:
    """How many trajectories the steps draw of a share of each batch: more are answered in vain."""
    settings = spec.resolved_settings(collected.statements)
    return math.ceil(settings.steps * settings.batch_size * share)


def _shown(
    spec: RunSpec, encoded: Sequence[Prompt], trained: Sequence[Question]
) -> Sequence[Prompt]:
    """The prompts whose answers the teacher shows; none without guidance."""
    if not spec.effective_settings().teacher_share:
        return []
    pairs = zip(encoded, trained, strict=True)
    return [prompt for prompt, question in pairs if question.needs_teacher] or encoded


def _fitting(spec: RunSpec, encoder: Encoder) -> RunSpec:
    """The run without prompts that do not fit the model, where those may be left out."""
    if not spec.drop_long:
        return spec
    logged, held_out = (tuple(filter(encoder.fits, each)) for each in (spec.prompts, spec.held_out))
    return replace(spec, prompts=logged, held_out=held_out)


def _more_answers(
    spec: RunSpec, teacher: Teacher, sampler: LocalSampler, shown: Sequence[Prompt]
) -> list[Trajectory]:
    """The teacher's answers after the first, sampled."""
    again = [*shown] * (spec.settings.answers_per_question - 1)
    return sample_from_teacher(teacher, sampler, again, spec.settings.teacher_temperature)


def _replayed(
    spec: RunSpec,
    teacher: Teacher,
    sampler: LocalSampler,
    unchanged: Sequence[Prompt],
    collected: Collected,
) -> list[Trajectory]:
    """Answers to prompts that are to be left unchanged; none without guidance."""
    if not spec.effective_settings().teacher_share:
        return []
    drawn = min(_drawn(spec, collected, spec.settings.replay_share), MAX_TEACHER_SAMPLED_REPLAY)
    return sample_from_teacher(teacher, sampler, unchanged[:drawn], spec.settings.temperature)


def recited(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    encoded: Sequence[Prompt],
    trained: Sequence[Question],
) -> list[Trajectory]:
    """What the context itself says to each question that asks for it; none without guidance.

    The teacher's own answers get facts wrong; here each fact is said for certain. What is learned
    is still the teacher's distribution at each token, but for an end behind examples (`turns.py`),
    so a passage that the teacher would not begin an answer with teaches nothing about beginnings.
    """
    if not spec.effective_settings().teacher_share:
        return []
    longest = max(spec.settings.max_completion_tokens, MAX_RECITED)
    pairs = zip(encoded, trained, strict=True)
    said = [
        (prompt, encoder.answer_ids(question.answer)[: min(longest, encoder.answer_budget(prompt))])
        for prompt, question in pairs
        if question.answer and question.needs_teacher
    ]
    return score(
        teacher, [prompt for prompt, _ in said], [ids for _, ids in said], is_complete=True
    )
