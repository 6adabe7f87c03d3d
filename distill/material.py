"""What a run trains on, prepared once and kept for a resume: prompts, questions, guided answers.

Nothing that is trained on is near a held-out prompt or an anchor.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from distill import data, duplicates, preflight, prompts, replay
from distill.data import Encoder, Messages, Prompt
from distill.evaluate import Anchored
from distill.pool import Trajectory, recite, sample_guided
from distill.prompts import Asked
from distill.sampler import LocalSampler
from distill.spec import RunSpec
from distill.teacher import Teacher

HOLD_BACK = 5
# A verdict on fewer held-out prompts than this would be a matter of luck.
MIN_HELD_OUT, MAX_HELD_OUT = 10, 32
MAX_VALIDATION = 6
# Of so few that a run repeats each of them often, the student would learn these alone.
GUIDED_REPLAY = 80
# What stands in a context is said to its end; what is longer than this is no statement.
MAX_RECITED = 256

Advance = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Material:
    """Everything that the steps of a run draw from."""

    prompts: list[Prompt]
    """Prompts of this context."""
    guided: list[Trajectory]
    """The teacher's answers to them."""
    replay: list[Prompt]
    """Prompts of this namespace on which the context makes no difference, without it; and general
    ones, with it where it concerns everything."""
    guided_replay: list[Trajectory]
    """The teacher's answers to them: the base's, where they are without the context."""
    validation: list[Trajectory]
    """The teacher's answers to prompts that are not trained on, by which a step is chosen."""
    anchored: Anchored
    """The operator's checks, and how many of them base and teacher pass."""
    held_out: list[Prompt]
    unrelated: list[Prompt]
    """General prompts never trained on; none where the context is about them too."""
    statements: int
    """How much the context says: the more, the more steps."""


def prepare(
    spec: RunSpec, encoder: Encoder, teacher: Teacher, sampler: LocalSampler, advance: Advance
) -> Material:
    """Make sure there is something to learn; collect prompts, and let the teacher answer.

    Args:
        spec: The run.
        encoder: Of the run's context.
        teacher: Answers with its context.
        sampler: Of answers, with the model's weights.
        advance: Called with (stage, done, total) as work goes on.

    Raises:
        NothingToLearn: The context does not help.
        ContextTooLong: It has more passages than a run can ask about.
        PromptTooLong: A prompt does not fit, and may not be left out.
    """

    def seen(stage: str) -> LocalSampler:
        return replace(sampler, progress=partial(advance, stage))

    encoder.prompt(data.user(""))  # the context by itself
    if not spec.context:
        raise preflight.NothingToLearn("The context is empty.")
    spec = _fitting(spec, encoder)
    logged = [*spec.prompts, *spec.held_out]
    known = preflight.check(encoder, teacher, seen("preflight"), logged) if logged else []
    anchored = preflight.check_anchors(spec, encoder, teacher, seen("preflight"))
    avoid = _measured_on(spec)
    spec = replace(spec, prompts=tuple(each for each in spec.prompts if each not in known))
    taken = [*avoid, *map(data.asked, known)]
    asked = prompts.collect(spec, encoder, teacher, seen("write questions"), taken)
    if not logged:
        preflight.check(encoder, teacher, seen("preflight"), [*asked.own, *asked.general])
    kept, validated, held_out = divide(spec, asked)
    trained = [encoder.prompt(messages) for messages in kept]
    unchanged = [
        *(encoder.prompt(messages, replay=True) for messages in prompts.distinct(known, avoid)),
        *_general(encoder, asked, asked.unrelated),
    ]
    aside = [encoder.prompt(messages) for messages in validated]
    # Together, since a decoding step of many takes hardly longer than one of few.
    sampler = seen("sample the teacher")
    guided = spec.effective_settings().guided_share > 0
    answers = sample_guided(teacher, sampler, [*aside, *(trained if guided else [])], temperature=0)
    return Material(
        trained,
        [
            *answers[len(aside) :],
            *_more_answers(spec, teacher, sampler, trained),
            *_recited(spec, encoder, teacher, trained, asked.said),
        ],
        unchanged,
        _replayed(spec, teacher, sampler, unchanged, asked),
        answers[: len(aside)],
        anchored,
        [encoder.prompt(messages) for messages in held_out[:MAX_HELD_OUT]],
        [] if asked.everything else _general(encoder, asked, _untaught(kept)),
        asked.statements,
    )


def _measured_on(spec: RunSpec) -> list[str]:
    """What is asked only to measure, and nothing near it to train."""
    apart = [*spec.held_out, *(anchor.messages for anchor in spec.anchors)]
    return [text for messages in apart for text in data.wordings(messages)]


def _general(encoder: Encoder, asked: Asked, texts: Sequence[str]) -> list[Prompt]:
    """General prompts as they are to be answered: without the context, unless it is about them."""
    return [encoder.prompt(data.user(text), replay=not asked.everything) for text in texts]


def _untaught(trained: Sequence[Messages]) -> list[str]:
    """General prompts to measure on that are not near what is trained on."""
    return duplicates.without_near_duplicates(replay.HELD_OUT, list(map(data.asked, trained)))


def divide(spec: RunSpec, asked: Asked) -> tuple[list[Messages], list[Messages], list[Messages]]:
    """What is trained on, what a step is chosen by, and what the gate measures."""
    chance = random.Random(spec.settings.seed)  # noqa: S311 - reproducible, not secret
    missing = MIN_HELD_OUT - len(spec.held_out) if spec.held_out else MAX_HELD_OUT
    own, held_back = hold_back(asked.own, missing, chance)
    if not asked.everything:
        missing = MIN_HELD_OUT - len(spec.held_out) - len(held_back)
    general, more = hold_back(asked.general, missing, chance)
    own, general, validated = set_aside(own, general, chance)
    most = _drawn(spec, asked, share=1.0)
    own = _some(own, most, chance)
    general = _some(general, most - len(own), chance)
    return [*general, *own], validated, [*spec.held_out, *held_back, *more]


def _drawn(spec: RunSpec, asked: Asked, share: float) -> int:
    """How many trajectories the steps draw of a share of each batch: more are answered in vain."""
    settings = spec.planned_settings(asked.statements)
    return math.ceil(settings.steps * settings.batch_size * share)


def _some(conversations: Sequence[Messages], most: int, chance: random.Random) -> list[Messages]:
    """At most so many of the conversations, from all over them."""
    count = min(len(conversations), most)
    places = sorted(chance.sample(range(len(conversations)), count))
    return [conversations[place] for place in places]


def hold_back(
    conversations: Sequence[Messages], most: int, chance: random.Random
) -> tuple[list[Messages], list[Messages]]:
    """Split off a fifth of the conversations, of few a third, but at most `most`.

    One is drawn of each stretch, since conversations about the same stand side by side, and written
    ones in the same order for each statement.
    """
    size = len(conversations)
    apart = min(HOLD_BACK, max(3, size // MIN_HELD_OUT))
    count = max(min(most, math.ceil(size / apart)), 0)
    edges = [size * number // max(count, 1) for number in range(count + 1)]
    places = [chance.randrange(*stretch) for stretch in pairwise(edges)]
    kept = [each for place, each in enumerate(conversations) if place not in places]
    return kept, [conversations[place] for place in places]


def set_aside(
    own: Sequence[Messages], general: Sequence[Messages], chance: random.Random
) -> tuple[list[Messages], list[Messages], list[Messages]]:
    """Split off what a step is chosen by: a quarter of each sort at most, a few in all."""
    kept, aside = hold_back(own, min(MAX_VALIDATION, len(own) // 4), chance)
    most = min(MAX_VALIDATION - len(aside), len(general) // 4)
    plain, more = hold_back(general, most, chance)
    return kept, plain, [*aside, *more]


def _fitting(spec: RunSpec, encoder: Encoder) -> RunSpec:
    """The run without prompts that do not fit the model, where those may be left out."""
    if not spec.drop_long:
        return spec
    logged, held_out = (tuple(filter(encoder.fits, each)) for each in (spec.prompts, spec.held_out))
    return replace(spec, prompts=logged, held_out=held_out)


def _more_answers(
    spec: RunSpec, teacher: Teacher, sampler: LocalSampler, asked: Sequence[Prompt]
) -> list[Trajectory]:
    """The teacher's answers after the first, sampled; none without guidance."""
    if not spec.effective_settings().guided_share:
        return []
    again = [*asked] * (spec.settings.answers_per_question - 1)
    return sample_guided(teacher, sampler, again, spec.settings.guided_temperature)


def _replayed(
    spec: RunSpec,
    teacher: Teacher,
    sampler: LocalSampler,
    unchanged: Sequence[Prompt],
    asked: Asked,
) -> list[Trajectory]:
    """Answers to prompts that are to be left unchanged; none without guidance."""
    if not spec.effective_settings().guided_share:
        return []
    drawn = min(_drawn(spec, asked, spec.settings.replay_share), GUIDED_REPLAY)
    return sample_guided(teacher, sampler, unchanged[:drawn], spec.settings.temperature)


def _recited(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    asked: Sequence[Prompt],
    said: Mapping[str, str],
) -> list[Trajectory]:
    """What the context itself says to each prompt that asks for it; none without guidance."""
    if not spec.effective_settings().guided_share:
        return []
    pairs = [(prompt, said[prompt.text]) for prompt in asked if prompt.text in said]
    most = max(spec.settings.max_completion_tokens, MAX_RECITED)
    return recite(teacher, encoder.tokenizer, pairs, most)
