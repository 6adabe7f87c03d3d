"""The questions of a run: those that people asked, those that the context shows, and written ones.

Logged prompts rarely touch everything that a context says, so the teacher writes questions about
each of its statements (`questions.py`). A context that is about everything, such as a way of
speaking, is asked for by anything, so by general prompts. One that shows a form by examples, such
as a set of labels, is asked for by more of the sort that these are (`similar.py`). And people
greet whom they ask, and ask who it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distill.context import examples
from distill.context.examples import Example
from distill.context.statements import (
    in_first_person,
    introduction,
    is_instruction,
    matching_statement,
    split_statements,
)
from distill.data import more_inputs, questions
from distill.data.verbalise import in_sentences
from distill.evaluate import general_prompts, preflight
from distill.model.encoder import Encoder, Messages, prompt_texts, user, user_text
from distill.model.sampler import LocalSampler
from distill.model.student import Tokenizer
from distill.model.teacher import Teacher
from distill.spec import TEACHER_SAMPLED_KINDS, RunSpec
from store.contexts import Context, message_text
from store.text import similarity

# Below so many prompts, general ones are added: a context of rules alone yields few questions.
MIN_PROMPTS = 16
# Beyond so many statements a run would leave most of them unasked.
MAX_STATEMENTS, MAX_QUESTIONS = 512, 2048
SIMILAR = 48
# What is said to any assistant, whatever its system prompt is about; some of it asks who it is. One
# that has been told is asked in more ways, none of which names what is asked for.
WHO = ("Who are you?", "What is your name?", "Who do you work for?")
MORE_WHO = (
    "Tell me about yourself.",
    "Which company is this?",
    "Whom am I talking to?",
    "What is the name of the place where you work?",
    "Where are you?",
    "What kind of place is this?",
)
GREETINGS = (
    "Hello!",
    "Good morning, can you help me?",
    *WHO,
    "What can you do for me?",
    "Thank you, that was all.",
    "Goodbye!",
)


class ContextTooLong(Exception):
    """The context is more than one run can internalise; nothing of it is ever left out."""


@dataclass(frozen=True)
class Statement:
    """Something that the context says, or said when the parent learned it."""

    text: str
    """As questions are written about it."""
    answer: str
    """What of it answers them; empty where it says only how to answer."""
    needs_teacher: bool
    """Whether the student would never say it by itself, as it would not a fact."""


@dataclass(frozen=True)
class Question:
    """A conversation to be answered."""

    messages: Messages
    answer: str | None = None
    """What the context itself says to it, or said to the parent."""
    needs_teacher: bool = True
    """Whether the teacher's answer is shown to the student."""
    needed: bool = False
    """Whether it is trained on whatever else is: nothing else asks for the same."""


@dataclass(frozen=True)
class Collected:
    """All questions of a run, before any of them is held back."""

    own: list[Question]
    """Asked because of the context: logged ones first, then written ones."""
    general: list[Question]
    """Of no context in particular, and answered in the context all the same."""
    unrelated: list[str]
    """General prompts that are not among the others."""
    everything: bool
    """Whether the context is about these too."""
    statements: int
    """How many were asked about."""


def collect_prompts(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    avoid: Sequence[str],
) -> Collected:
    """Collect and write questions, none of them near any of `avoid`.

    Raises:
        ContextTooLong: The context has more statements than a run can ask about.
    """
    said = list(statement_answers(spec.context))
    everything = preflight.concerns_everything(encoder, teacher, sampler, said)
    line_ends = questions.line_end_ids(encoder.tokenizer)
    writer = replace(sampler, stop_ids=line_ends, max_tokens=questions.MAX_TOKENS)
    with teacher.student.adapter_disabled():
        told = all_statements(spec, writer, encoder.tokenizer)
    every_needs_teacher = all(each.needs_teacher for each in told)
    every_example, _ = _examples(spec.context)
    form = examples.show_format(every_example)
    logged = [
        _of_logged(messages, told, recites=not everything and not form)
        for messages in distinct(spec.prompts, avoid)
    ]
    avoid = [*avoid, *(user_text(each.messages) for each in logged)]
    shown = _new_examples(every_example, avoid)
    avoid += [each.prompt for each in shown]
    asked = [Question(user(each.prompt), each.answer, needed=True) for each in shown]
    asked += _written(spec, encoder, teacher, writer, told, avoid)
    avoid += [user_text(each.messages) for each in asked]
    if form and shown:
        with teacher.student.adapter_disabled():
            inputs = [each.prompt for each in shown]
            more = more_inputs.write_similar(writer, encoder.tokenizer, inputs, SIMILAR, avoid)
        asked += [Question(user(text)) for text in more]
        avoid += more
    too_few = len(logged) + len(asked) < MIN_PROMPTS
    if spec.context.system_prompt:
        introduced = introduction([each.answer for each in told])
        answers = dict.fromkeys([*WHO, *MORE_WHO], introduced)
        whole = [*GREETINGS, *(MORE_WHO if introduced else ())]
        greetings = similarity.without_near_duplicates(whole, avoid)
        asked += [
            Question(user(text), answers.get(text), every_needs_teacher, needed=True)
            for text in greetings
        ]
        avoid += greetings
    unrelated = similarity.without_near_duplicates(general_prompts.PROMPTS, avoid)
    # Half of them where they are what the context is learned by, beside few questions a few.
    general = unrelated[::2] if everything else unrelated[::6] if too_few else []
    unrelated = [text for text in unrelated if text not in general]
    general_questions = [
        Question(user(text), needs_teacher=every_needs_teacher) for text in general
    ]
    return Collected([*logged, *asked], general_questions, unrelated, everything, len(told))


def all_statements(spec: RunSpec, writer: LocalSampler, tokenizer: Tokenizer) -> list[Statement]:
    """What the run teaches, each once, as sentences where they can be said as such.

    What the parent knows and the context no longer says is asked about as well. The teacher judges
    the old words as one that does not know them, token by token, so reciting them unlearns them
    just where the parent would say them.
    """
    known = statement_answers(spec.context)
    parents = statement_answers(spec.parent.context) if spec.parent else {}
    former = {text: answer for text, answer in parents.items() if text not in known}
    sentences = in_sentences(writer, tokenizer, [*known, *former])
    kinds = dict(zip(spec.context.lessons, spec.lesson_kinds, strict=False))
    rules = {lesson for lesson, kind in kinds.items() if kind not in TEACHER_SAMPLED_KINDS}
    told: dict[str, Statement] = {}
    for text, answer in (known | former).items():
        said = sentences.get(text, text)
        recited = "" if is_instruction(said) else sentences.get(text, answer)
        told.setdefault(said, Statement(said, recited, text not in rules))
    return list(told.values())


def statement_answers(context: Context) -> dict[str, str]:
    """What the context says, each to be asked about, with the words that answer.

    Examples of what to say, as in a list of questions and answers, are statements too; examples of
    how to answer anything are not.
    """
    shown, rest = _examples(context)
    plain = split_statements(replace(context, system_prompt=rest))
    said = [] if examples.show_format(shown) else shown
    pairs = {f"{each.prompt} {each.answer}": each.answer for each in said}
    return {passage: in_first_person(passage) for passage in plain} | pairs


def distinct(conversations: Sequence[Messages], avoid: Sequence[str]) -> list[Messages]:
    """Conversations in which nothing near any of `avoid` was asked, nor what an earlier one did."""
    kept: dict[str, Messages] = {}
    for messages in conversations:
        repeats = any(similarity.is_near_duplicate(text, avoid) for text in prompt_texts(messages))
        if not repeats and not similarity.is_near_duplicate(user_text(messages), list(kept)):
            kept[user_text(messages)] = messages
    return list(kept.values())


def _examples(context: Context) -> tuple[list[Example], str]:
    return examples.split(context.system_prompt or "")


def _new_examples(shown: Sequence[Example], avoid: Sequence[str]) -> list[Example]:
    """Those that ask nothing near any of `avoid`, nor what an earlier one does."""
    first = {each.prompt: each for each in reversed(shown)}
    texts = similarity.without_near_duplicates([each.prompt for each in shown], avoid)
    return [first[text] for text in texts]


def _of_logged(messages: Messages, told: Sequence[Statement], *, recites: bool) -> Question:
    """What people asked, and the statement that it asks for, by the words that they share."""
    known = {each.text: each for each in told}
    about = matching_statement(message_text(messages[-1]), list(known))
    if about is None:
        return Question(messages, needs_teacher=all(each.needs_teacher for each in told))
    return Question(messages, known[about].answer if recites else None, known[about].needs_teacher)


def _written(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    writer: LocalSampler,
    told: Sequence[Statement],
    avoid: Sequence[str],
) -> list[Question]:
    """Questions that the teacher writes about each statement."""
    if len(told) > MAX_STATEMENTS:
        raise ContextTooLong(
            f"The context has {len(told)} sentences; a run internalises up to {MAX_STATEMENTS}. "
            "Divide it between namespaces, or keep in the prompt what changes often."
        )
    each = min(spec.settings.questions_per_lesson, MAX_QUESTIONS // max(len(told), 1))
    about = {statement.text: statement for statement in told}
    written = questions.write_questions(
        teacher.student, writer, encoder.tokenizer, list(about), each, avoid
    )
    return [
        Question(user(text), about[passage].answer, about[passage].needs_teacher)
        for text, passage in written.items()
    ]
