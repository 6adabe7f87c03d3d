"""What a run trains on, prepared once and kept for a resume: prompts, questions, guided answers.

Nothing here is near a held-out prompt or an anchor. The preflight is here as well, because it asks
of the same material: is there anything to learn?
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from distill import data, evaluate, passages, questions, replay
from distill.data import Encoder, Messages, Prompt
from distill.evaluate import Anchored
from distill.pool import Trajectory, recite, sample_guided
from distill.sampler import LocalSampler
from distill.spec import RunSpec
from distill.teacher import Teacher

# A teacher that is this close to the base, in nats a token, has nothing to teach.
MIN_GAP = 0.01
PREFLIGHT_TRAJECTORIES = 16
# Below so many prompts, general ones are added: a context of rules alone yields few questions.
MIN_PROMPTS = 16
HOLD_BACK = 5
# A verdict on fewer held-out prompts than this would be a matter of luck.
MIN_HELD_OUT, MAX_HELD_OUT = 10, 32
MAX_VALIDATION = 6
# Beyond so many passages a run would leave most of them unasked.
MAX_PASSAGES, MAX_QUESTIONS = 160, 640
GUIDED_REPLAY = 16

Advance = Callable[[str, int, int], None]


class NothingToLearn(Exception):
    """The context does not help the model; the message says by what measure."""


class ContextTooLong(Exception):
    """The context is more than one run can internalise; nothing of it is ever left out."""


@dataclass(frozen=True)
class Material:
    """Everything that the steps of a run draw from."""

    prompts: list[Prompt]
    """Prompts of this context."""
    guided: list[Trajectory]
    """The teacher's answers to them."""
    replay: list[Prompt]
    """Prompts that the context does not concern, of this namespace and general; without it."""
    guided_replay: list[Trajectory]
    """The base's answers to them."""
    validation: list[Trajectory]
    """The teacher's answers to prompts that are not trained on, by which a step is chosen."""
    anchored: Anchored
    """The operator's checks, and how many of them base and teacher pass."""
    held_out: list[Prompt]
    unrelated: list[Prompt]
    """Replay prompts never trained on."""


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
    advance("preflight", 0, 1)
    encoder.prompt(data.user(""))  # the context by itself
    spec = _fitting(spec, encoder)
    known = preflight(spec, encoder, teacher, sampler)
    anchored = preflight_anchors(spec, encoder, teacher, sampler)
    apart = [*spec.held_out, *(anchor.messages for anchor in spec.anchors)]
    avoid = [data.asked(messages) for messages in apart]
    spec = replace(spec, prompts=tuple(each for each in spec.prompts if each not in known))
    advance("write questions", 0, 1)
    given = _distinct(spec.prompts, avoid)
    asked = [data.asked(messages) for messages in given]
    about = _questions(spec, encoder, teacher, sampler, [*avoid, *asked])
    conversations = [*given, *map(data.user, about)]
    general = data.without_near_duplicates(replay.PROMPTS, [*avoid, *asked, *about])
    added: list[Messages] = []
    if len(conversations) < MIN_PROMPTS:
        added, general = list(map(data.user, general[::2])), general[1::2]
    missing = MIN_HELD_OUT - len(spec.held_out) if spec.held_out else MAX_HELD_OUT
    conversations, held_back = hold_back([*added, *conversations], missing)
    held_out = [*spec.held_out, *held_back]
    conversations, validated = set_aside(conversations, len(added))
    prompts = [encoder.prompt(messages) for messages in conversations]
    replayed = [
        encoder.prompt(messages, replay=True)
        for messages in [*_distinct(known, avoid), *map(data.user, general)]
    ]
    return Material(
        prompts,
        [
            *_guided(spec, teacher, sampler, prompts, advance),
            *_recited(spec, encoder, teacher, prompts, about),
        ],
        replayed,
        sample_guided(teacher, sampler, replayed[:GUIDED_REPLAY], spec.settings.temperature),
        sample_guided(teacher, sampler, list(map(encoder.prompt, validated)), temperature=0),
        anchored,
        [encoder.prompt(messages) for messages in held_out[:MAX_HELD_OUT]],
        [encoder.prompt(data.user(text), replay=True) for text in replay.HELD_OUT],
    )


def hold_back(
    conversations: Sequence[Messages], most: int
) -> tuple[list[Messages], list[Messages]]:
    """Split off every fifth conversation, of few every third, but at most `most`.

    The last ones first: those that were written before those that were logged, and before those
    of no context in particular.
    """
    apart = min(HOLD_BACK, max(3, len(conversations) // MIN_HELD_OUT))
    places = range(len(conversations) - 1, -1, -apart)[: max(most, 0)]
    kept = [each for place, each in enumerate(conversations) if place not in places]
    return kept, [conversations[place] for place in places]


def set_aside(
    conversations: Sequence[Messages], general: int
) -> tuple[list[Messages], list[Messages]]:
    """Split off what a step is chosen by: a quarter of each sort at most, a few in all.

    The first `general` conversations are of no context in particular; where most are, they serve.
    """
    own = len(conversations) - general
    kept, written = hold_back(conversations, min(MAX_VALIDATION, own // 4))
    more = min(MAX_VALIDATION - len(written), general // 4)
    return kept[more:], [*kept[:more], *written]


def _fitting(spec: RunSpec, encoder: Encoder) -> RunSpec:
    """The run without prompts that do not fit the model, where those may be left out."""
    if not spec.drop_long:
        return spec
    prompts, held_out = (
        tuple(filter(encoder.fits, each)) for each in (spec.prompts, spec.held_out)
    )
    return replace(spec, prompts=prompts, held_out=held_out)


def _distinct(conversations: Sequence[Messages], avoid: Sequence[str]) -> list[Messages]:
    """Conversations in which nothing near any of `avoid` was asked, nor what an earlier one did."""
    by_text = {data.asked(each): each for each in reversed(conversations)}
    texts = [data.asked(each) for each in conversations]
    return [by_text[text] for text in data.without_near_duplicates(texts, avoid)]


def _questions(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    avoid: Sequence[str],
) -> dict[str, str]:
    """Questions about everything that the context says, and the passage that each asks for."""
    writer = LocalSampler(
        sampler.model,
        questions.line_end_ids(encoder.tokenizer),
        questions.MAX_TOKENS,
        sampler.generator,
    )
    known = passages.passages(spec.context)
    learned = passages.passages(spec.parent.context) if spec.parent else []
    # What the parent knows and the context no longer says is asked about as well: the teacher
    # answers as one that does not know it.
    about = [*(passage for passage in learned if passage not in known), *known]
    if len(about) > MAX_PASSAGES:
        raise ContextTooLong(
            f"The context has {len(about)} sentences; a run internalises up to {MAX_PASSAGES}. "
            "Divide it between namespaces, or keep in the prompt what changes often."
        )
    each = min(spec.settings.questions_per_lesson, MAX_QUESTIONS // max(len(about), 1))
    return questions.write_questions(teacher.student, writer, encoder.tokenizer, about, each, avoid)


def _guided(
    spec: RunSpec,
    teacher: Teacher,
    sampler: LocalSampler,
    prompts: Sequence[Prompt],
    advance: Advance,
) -> list[Trajectory]:
    """The teacher's answers, one of them greedy and the others sampled; none without guidance."""
    if not spec.effective_settings().guided_share:
        return []
    rounds = spec.settings.answers_per_question
    guided: list[Trajectory] = []
    for number in range(rounds):
        advance("sample the teacher", number, rounds)
        temperature = spec.settings.guided_temperature if number else 0.0
        guided += sample_guided(teacher, sampler, prompts, temperature)
    return guided


def _recited(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    prompts: Sequence[Prompt],
    asked_for: Mapping[str, str],
) -> list[Trajectory]:
    """What the context itself says to each prompt that asks for it; none without guidance."""
    if not spec.effective_settings().guided_share:
        return []
    said = passages.passages(spec.context)
    matched = [
        (prompt, asked_for.get(prompt.text) or passages.passage_of(prompt.text, said))
        for prompt in prompts
    ]
    # What a parent knew and the context no longer says is asked for, and not recited.
    pairs = [(prompt, passage) for prompt, passage in matched if passage in said]
    return recite(teacher, encoder.tokenizer, pairs, spec.settings.max_completion_tokens)


def preflight(
    spec: RunSpec, encoder: Encoder, teacher: Teacher, sampler: LocalSampler
) -> list[Messages]:
    """Make sure that the context makes a difference.

    Returns:
        The run's prompts on which it makes none, to base and student: they are there to be kept.

    Raises:
        NothingToLearn: It makes no difference worth learning.
    """
    if not spec.context:
        raise NothingToLearn("The context is empty.")
    logged = [*spec.prompts, *spec.held_out] or list(map(data.user, replay.PROMPTS))
    logged = logged[:PREFLIGHT_TRAJECTORIES]
    answers = sample_guided(teacher, sampler, list(map(encoder.prompt, logged)), temperature=0)
    gap = evaluate.base_kl(teacher, answers)
    if gap < MIN_GAP:
        raise NothingToLearn(
            f"With the context the model answers as it does without: {gap:.4f} nats a token apart."
        )
    return [
        messages
        for messages, answer in zip(spec.prompts, answers, strict=False)
        if evaluate.base_kl(teacher, [answer]) < MIN_GAP
        and evaluate.student_kl(teacher, [answer]) < MIN_GAP
    ]


def preflight_anchors(
    spec: RunSpec, encoder: Encoder, teacher: Teacher, sampler: LocalSampler
) -> Anchored:
    """The anchors that base and teacher pass, if the context helps with them.

    Anchors that base and teacher all pass are there to be kept, and ask for no difference.

    Raises:
        NothingToLearn: The model passes no more of them with the context than without.
    """
    patient = replace(sampler, max_tokens=spec.settings.max_answer_tokens)
    passed = evaluate.check_anchors(teacher, patient, encoder, spec.anchors)
    if passed.teacher <= passed.base and passed.teacher < len(spec.anchors):
        raise NothingToLearn(
            f"With the context the model passes {passed.teacher} of {len(spec.anchors)} anchors, "
            f"without it {passed.base}."
        )
    return passed
