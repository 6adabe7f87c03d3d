"""The prompts of a run: those that people sent, those that the context shows, and written ones.

Logged prompts rarely touch everything that a context says, so the teacher writes questions about
each of its statements (`questions.py`). A context that is about everything, such as a way of
speaking, is asked for by anything, so by general prompts. One that shows a form by examples, such
as a set of labels, is asked for by more of the sort that these are (`similar.py`). And people
greet whom they ask, and ask who it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distill import data, duplicates, examples, passages, preflight, questions, replay, similar
from distill.data import Encoder, Messages
from distill.sampler import LocalSampler
from distill.sentences import in_sentences
from distill.spec import RunSpec
from distill.teacher import Teacher
from store.contexts import Context, message_text

# Below so many prompts, general ones are added: a context of rules alone yields few questions.
MIN_PROMPTS = 16
# Beyond so many statements a run would leave most of them unasked.
MAX_STATEMENTS, MAX_QUESTIONS = 512, 2048
SIMILAR = 48
# What is said to any assistant, whatever its system prompt is about.
GREETINGS = (
    "Hello!",
    "Good morning, can you help me?",
    "Who are you?",
    "What is your name?",
    "Who do you work for?",
    "What can you do for me?",
    "Thank you, that was all.",
    "Goodbye!",
)


class ContextTooLong(Exception):
    """The context is more than one run can internalise; nothing of it is ever left out."""


@dataclass(frozen=True)
class Asked:
    """What a run may ask, before any of it is held back."""

    own: list[Messages]
    """Asked because of the context: logged ones first, then written ones."""
    general: list[Messages]
    """Of no context in particular, and answered in the context all the same."""
    said: dict[str, str]
    """What the context itself says to prompts of these texts."""
    unrelated: list[str]
    """General prompts that are not among the others."""
    everything: bool
    """Whether the context is about these too."""
    statements: int
    """How many were asked about."""


def collect(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    avoid: Sequence[str],
) -> Asked:
    """Collect and write prompts, none of them near any of `avoid`.

    Raises:
        ContextTooLong: The context has more statements than a run can ask about.
    """
    everything = preflight.concerns_everything(encoder, teacher, sampler)
    line_ends = questions.line_end_ids(encoder.tokenizer)
    writer = replace(sampler, stop_ids=line_ends, max_tokens=questions.MAX_TOKENS)
    given = distinct(spec.prompts, avoid)
    taken = [*avoid, *map(data.asked, given)]
    every, _ = _examples(spec.context)
    form = examples.show_a_form(every)
    asked = duplicates.without_near_duplicates([each.asked for each in every], taken)
    shown = [next(each for each in every if each.asked == text) for text in asked]
    taken += [each.asked for each in shown]
    former, known = _former(spec), statements(spec.context)
    with teacher.student.adapter_off():
        told = in_sentences(writer, encoder.tokenizer, [*former, *known])
    known = {told.get(each, each): told.get(each, said) for each, said in known.items()}
    about = [*(told.get(each, each) for each in former), *known]
    written = _questions(spec, encoder, teacher, writer, about, taken)
    texts = [*(each.asked for each in shown), *written]
    if form and shown:
        with teacher.student.adapter_off():
            inputs = [each.asked for each in shown]
            texts += similar.write_similar(
                writer, encoder.tokenizer, inputs, SIMILAR, [*taken, *written]
            )
    said = {question: known[about] for question, about in written.items() if about in known}
    said |= {each.asked: each.answer for each in shown}
    if not everything and not form:
        said |= _answered(given, known)
    too_few = len(given) + len(texts) < MIN_PROMPTS
    if spec.context.system_prompt:
        texts += duplicates.without_near_duplicates(GREETINGS, [*taken, *texts])
    own = [*given, *map(data.user, texts)]
    unrelated = duplicates.without_near_duplicates(replay.PROMPTS, [*taken, *texts])
    # Half of them where they are what the context is learned by, beside few questions a few.
    general = unrelated[::2] if everything else unrelated[::6] if too_few else []
    unrelated = [text for text in unrelated if text not in general]
    return Asked(own, list(map(data.user, general)), said, unrelated, everything, len(about))


def statements(context: Context) -> dict[str, str]:
    """What the context says, each to be asked about, with the words that answer.

    Examples of what to say, as in a list of questions and answers, are statements too; examples of
    how to answer anything are not.
    """
    shown, rest = _examples(context)
    plain = passages.passages(replace(context, system_prompt=rest))
    said = [] if examples.show_a_form(shown) else shown
    pairs = {f"{each.asked} {each.answer}": each.answer for each in said}
    return {passage: passage for passage in plain} | pairs


def distinct(conversations: Sequence[Messages], avoid: Sequence[str]) -> list[Messages]:
    """Conversations in which nothing near any of `avoid` was asked, nor what an earlier one did."""
    kept: dict[str, Messages] = {}
    for messages in conversations:
        repeats = any(duplicates.is_near(text, avoid) for text in data.wordings(messages))
        if not repeats and not duplicates.is_near(data.asked(messages), list(kept)):
            kept[data.asked(messages)] = messages
    return list(kept.values())


def _examples(context: Context) -> tuple[list[examples.Example], str]:
    return examples.split(context.system_prompt or "")


def _former(spec: RunSpec) -> list[str]:
    """What the parent knows and the context no longer says.

    It is asked about as well: the teacher answers as one that does not know it.
    """
    if not spec.parent:
        return []
    known = statements(spec.context)
    return [each for each in statements(spec.parent.context) if each not in known]


def _answered(given: Sequence[Messages], known: dict[str, str]) -> dict[str, str]:
    """What the context says to logged prompts, by the words that they share."""
    texts = [message_text(messages[-1]) for messages in given]
    found = {text: passages.passage_of(text, list(known)) for text in texts}
    return {text: known[about] for text, about in found.items() if about is not None}


def _questions(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    writer: LocalSampler,
    about: Sequence[str],
    avoid: Sequence[str],
) -> dict[str, str]:
    """Questions about statements, and the one that each asks for."""
    if len(about) > MAX_STATEMENTS:
        raise ContextTooLong(
            f"The context has {len(about)} sentences; a run internalises up to {MAX_STATEMENTS}. "
            "Divide it between namespaces, or keep in the prompt what changes often."
        )
    each = min(spec.settings.questions_per_lesson, MAX_QUESTIONS // max(len(about), 1))
    return questions.write_questions(teacher.student, writer, encoder.tokenizer, about, each, avoid)
