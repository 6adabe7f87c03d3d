"""What a run trains on, prepared once and kept for a resume: prompts, questions, guided answers.

Nothing here is near a held-out prompt or an anchor. The preflight is here as well, because it asks
of the same material: is there anything to learn?
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from distill import data, evaluate, questions, replay
from distill.data import Encoder, Messages, Prompt
from distill.evaluate import Anchored
from distill.pool import Trajectory, recite, sample_guided
from distill.sampler import LocalSampler
from distill.spec import RunSpec
from distill.teacher import Teacher
from store.contexts import message_text

# A teacher that is this close to the base, in nats a token, has nothing to teach.
MIN_GAP = 0.01
PREFLIGHT_TRAJECTORIES = 16
# Below so many prompts, general ones are added: a context of rules alone yields few questions.
MIN_PROMPTS = 16
HOLD_BACK = 5
# A verdict on fewer held-out prompts than this would be a matter of luck.
MIN_HELD_OUT, MAX_HELD_OUT = 10, 32
# A long document has more passages than a run has steps for.
MAX_QUESTIONS = 160
GUIDED_REPLAY = 16

Advance = Callable[[str, int, int], None]


class NothingToLearn(Exception):
    """The teacher is no better than the base; the message says by what measure."""


@dataclass(frozen=True)
class Material:
    """Everything that the steps of a run draw from."""

    prompts: list[Prompt]
    """Prompts of this context."""
    guided: list[Trajectory]
    """The teacher's answers to them."""
    replay: list[Prompt]
    """Unrelated prompts, with an empty context."""
    guided_replay: list[Trajectory]
    """The base's answers to them."""
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
        NothingToLearn: The teacher is no better than the base.
    """
    advance("preflight", 0, 1)
    anchored = preflight(spec, encoder, teacher, sampler)
    given = [*spec.held_out, *(anchor.messages for anchor in spec.anchors)]
    avoid = [message_text(messages[-1]) for messages in given]
    conversations, general = _conversations(spec, encoder, teacher, sampler, avoid, advance)
    missing = MIN_HELD_OUT - len(spec.held_out) if spec.held_out else MAX_HELD_OUT
    conversations, held_back = hold_back(conversations, missing)
    held_out = [*spec.held_out, *held_back]
    prompts = [encoder.prompt(messages) for messages in conversations]
    replayed = [encoder.prompt(data.user(text), replay=True) for text in general]
    return Material(
        prompts,
        _guided(spec, encoder, teacher, sampler, prompts, advance),
        replayed,
        sample_guided(teacher, sampler, replayed[:GUIDED_REPLAY], spec.settings.temperature),
        anchored,
        [encoder.prompt(messages) for messages in held_out[:MAX_HELD_OUT]],
        [encoder.prompt(data.user(text), replay=True) for text in replay.HELD_OUT],
    )


def hold_back(
    conversations: Sequence[Messages], most: int
) -> tuple[list[Messages], list[Messages]]:
    """Split off every fifth conversation, at most `most`, the written ones before the logged."""
    places = range(len(conversations) - 1, -1, -HOLD_BACK)[: max(most, 0)]
    kept = [each for place, each in enumerate(conversations) if place not in places]
    return kept, [conversations[place] for place in places]


def _distinct(conversations: Sequence[Messages], avoid: Sequence[str]) -> list[Messages]:
    """Conversations whose last message is near none of `avoid` and no earlier one's."""
    by_text = {message_text(each[-1]): each for each in reversed(conversations)}
    texts = [message_text(each[-1]) for each in conversations]
    return [by_text[text] for text in data.without_near_duplicates(texts, avoid)]


def _conversations(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    avoid: Sequence[str],
    advance: Advance,
) -> tuple[list[Messages], list[str]]:
    """What is asked with the context (logged, written, general), and what remains for replay."""
    logged = _distinct(spec.prompts, avoid)
    known = [message_text(messages[-1]) for messages in logged]
    advance("write questions", 0, 1)
    new = _questions(spec, encoder, teacher, sampler, [*avoid, *known])
    general = list(replay.PROMPTS)
    if len(known) + len(new) < MIN_PROMPTS:
        new, general = new + general[::2], general[1::2]
    return [*logged, *(data.user(text) for text in new)], general


def _questions(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    avoid: Sequence[str],
) -> list[str]:
    writer = LocalSampler(
        sampler.model,
        questions.line_end_ids(encoder.tokenizer),
        questions.MAX_TOKENS,
        sampler.generator,
    )
    about = questions.passages(spec.context)
    about = about[:: -(-len(about) // MAX_QUESTIONS) or 1]
    each = min(spec.settings.questions_per_lesson, MAX_QUESTIONS // max(len(about), 1))
    return questions.write_questions(teacher.student, writer, encoder.tokenizer, about, each, avoid)


def _guided(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    prompts: Sequence[Prompt],
    advance: Advance,
) -> list[Trajectory]:
    """The teacher's answers (one greedy, the others sampled), and what the context says itself."""
    if not spec.effective_settings().guided_share:
        return []
    rounds = spec.settings.answers_per_question
    guided: list[Trajectory] = []
    for number in range(rounds):
        advance("sample the teacher", number, rounds)
        temperature = spec.settings.guided_temperature if number else 0.0
        guided += sample_guided(teacher, sampler, prompts, temperature)
    about = questions.passages(spec.context)
    matched = [(prompt, questions.passage_of(prompt.text, about)) for prompt in prompts]
    pairs = [(prompt, passage) for prompt, passage in matched if passage is not None]
    return guided + recite(teacher, encoder.tokenizer, pairs, spec.settings.max_completion_tokens)


def preflight(spec: RunSpec, encoder: Encoder, teacher: Teacher, sampler: LocalSampler) -> Anchored:
    """The anchors that base and teacher pass, if between the two there is a gap worth closing.

    Raises:
        NothingToLearn: There is no gap worth closing.
    """
    if not spec.context:
        raise NothingToLearn("The context is empty.")
    logged = [encoder.prompt(messages) for messages in [*spec.held_out, *spec.prompts]]
    asked = logged or [encoder.prompt(data.user(text)) for text in replay.PROMPTS]
    answers = sample_guided(teacher, sampler, asked[:PREFLIGHT_TRAJECTORIES], temperature=0)
    gap = evaluate.base_kl(teacher, answers)
    if gap < MIN_GAP:
        raise NothingToLearn(
            f"With the context the model answers as it does without: {gap:.4f} nats a token apart."
        )
    patient = replace(sampler, max_tokens=spec.settings.max_answer_tokens)
    passed = evaluate.check_anchors(teacher, patient, encoder, spec.anchors)
    if spec.anchors and passed.teacher <= passed.base:
        raise NothingToLearn(
            f"With the context the model passes {passed.teacher} of {len(spec.anchors)} anchors, "
            f"without it {passed.base}."
        )
    return passed
