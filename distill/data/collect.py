"""Collects the questions of a run: logged prompts, examples of the context, and written questions.

Logged prompts rarely touch everything that a context says, so the base writes questions about
each of its statements (`questions.py`). A context that affects every answer, such as a way of
speaking, is also trained on general prompts. One that shows a format by examples, such as a set of
labels, gets more prompts like those (`similar_prompts.py`). Greetings and questions about who the
model is are always added for a system prompt.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill.context import examples
from distill.context.examples import Example
from distill.context.sourced import sourced_statements
from distill.context.statements import introduction, is_instruction, matching_statement
from distill.data import questions, similar_prompts
from distill.data.verbalise import verbalise
from distill.evaluate import general_prompts, preflight
from distill.model.encoder import Encoder, Messages, prompt_texts, user, user_text
from distill.model.sampler import LocalSampler
from distill.model.student import Tokenizer
from distill.model.teacher import Teacher
from distill.spec import TEACHER_SAMPLED_KINDS, RunSpec
from store.contexts import Context, message_text
from store.text import similarity

# With fewer prompts, general ones are added: a context of rules alone yields few questions.
MIN_PROMPTS = 16
# With more statements, a run would have no question about most of them.
MAX_STATEMENTS, MAX_QUESTIONS = 512, 2048
# Messages like those in the examples that are written, and those of them that are measured with.
SIMILAR, FORMAT_CHECKS = 48, 6
# A statement that an adapter has answered wrongly gets so many times the questions of others.
RELAPSED_TIMES = 2
_ASKED = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
GREETINGS: tuple[str, ...] = tuple(_ASKED["greetings"])
IDENTITY_QUESTIONS: tuple[str, ...] = tuple(_ASKED["identity"])
MORE_IDENTITY_QUESTIONS: tuple[str, ...] = tuple(_ASKED["more_identity"])


class ContextTooLong(Exception):
    """The context is more than one run can internalise; no part of it is ever left out."""


@dataclass(frozen=True)
class Statement:
    """Something that the context says, or said when the parent was trained."""

    text: str
    """What questions are written about."""
    answer: str
    """The answer to these questions; empty for an instruction on how to answer."""
    needs_teacher: bool
    """Whether only the teacher can say it, as with a fact: the student never samples it."""
    source: str
    """The statement in the context's words, which `text` may say as a sentence."""


@dataclass(frozen=True)
class Question:
    """A conversation to be answered."""

    messages: Messages
    answer: str | None = None
    """The context-verbatim answer: what the context says to it, or said to the parent."""
    needs_teacher: bool = True
    """Whether the student trains on the teacher's answer."""
    required: bool = False
    """Whether it must be trained on, because no other question has the same answer."""
    source: str | None = None
    """The statement that it asks about, in the context's words; None if unknown."""


@dataclass(frozen=True)
class Collected:
    """All questions of a run, before any is held back."""

    own: list[Question]
    """Questions about the context: logged ones first, then written ones."""
    general: list[Question]
    """General prompts that are answered with the context."""
    unrelated: list[str]
    """All other general prompts."""
    affects_general: bool
    """Whether the context changes the answers to general prompts."""
    statements: int
    """The number of statements that questions were written about."""
    measuring: tuple[Question, ...] = ()
    """Written questions that are never trained on, some about each statement."""


def collect_prompts(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    sampler: LocalSampler,
    avoid: Sequence[str],
) -> Collected:
    """Collect and write questions, none of them a near-duplicate of any in `avoid`.

    Raises:
        ContextTooLong: The context has more statements than a run can ask about.
    """
    texts = list(statement_answers(spec.context))
    affects_general = preflight.affects_general_prompts(encoder, teacher, sampler, texts)
    line_ends = questions.line_end_ids(encoder.tokenizer)
    writer = replace(sampler, stop_ids=line_ends, max_tokens=questions.MAX_TOKENS)
    with teacher.student.adapter_disabled():
        statements = all_statements(spec, writer, encoder.tokenizer)
    need_teacher = all(statement.needs_teacher for statement in statements)
    all_examples, _ = _examples(spec.context)
    is_format = examples.show_format(all_examples)
    logged = [
        _logged_question(messages, statements, verbatim=not affects_general and not is_format)
        for messages in distinct(spec.prompts, avoid)
    ]
    avoid = [*avoid, *(user_text(question.messages) for question in logged)]
    new_examples = _new_examples(all_examples, avoid)
    avoid += [example.prompt for example in new_examples]
    own = [
        Question(user(example.prompt), example.answer, required=True) for example in new_examples
    ]
    written, measuring = _written_questions(spec, encoder, teacher, writer, statements, avoid)
    own += written
    avoid += [user_text(question.messages) for question in [*own, *measuring]]
    if is_format and new_examples:
        with teacher.student.adapter_disabled():
            prompts = [example.prompt for example in new_examples]
            more = similar_prompts.write_similar(writer, encoder.tokenizer, prompts, SIMILAR, avoid)
        similar, for_format = _divide_similar(spec.context, more)
        own += similar
        measuring += for_format
        avoid += more
    are_few = len(logged) + len(own) < MIN_PROMPTS
    if spec.context.system_prompt:
        greetings = _greetings(statements, need_teacher, avoid)
        own += greetings
        avoid += [user_text(question.messages) for question in greetings]
    unrelated = similarity.without_near_duplicates(general_prompts.PROMPTS, avoid)
    # Half of them if the context is learned from them, a few next to few questions.
    general = unrelated[::2] if affects_general else unrelated[::6] if are_few else []
    unrelated = [text for text in unrelated if text not in general]
    general_questions = [Question(user(text), needs_teacher=need_teacher) for text in general]
    return Collected(
        [*logged, *own],
        general_questions,
        unrelated,
        affects_general,
        len(statements),
        tuple(measuring),
    )


def _divide_similar(
    context: Context, texts: Sequence[str]
) -> tuple[list[Question], list[Question]]:
    """Messages like those in the examples: to train on, and to measure the format with."""
    sources = [each.text for each in sourced_statements(context) if each.is_format]
    count = min(FORMAT_CHECKS, len(texts) // 3) if sources else 0
    return (
        [Question(user(text)) for text in texts[count:]],
        [Question(user(text), source=sources[0]) for text in texts[:count]],
    )


def _greetings(
    statements: Sequence[Statement], need_teacher: bool, avoid: Sequence[str]
) -> list[Question]:
    """Greetings, and questions about who the model is, with the context's answer if it has one."""
    introduced = introduction([statement.answer for statement in statements])
    answers = dict.fromkeys([*IDENTITY_QUESTIONS, *MORE_IDENTITY_QUESTIONS], introduced)
    greetings = [*GREETINGS, *(MORE_IDENTITY_QUESTIONS if introduced else ())]
    return [
        Question(user(text), answers.get(text), need_teacher, required=True)
        for text in similarity.without_near_duplicates(greetings, avoid)
    ]


def all_statements(spec: RunSpec, writer: LocalSampler, tokenizer: Tokenizer) -> list[Statement]:
    """The distinct statements that the run teaches, as sentences where possible.

    They include what the parent knows and the context no longer says. The teacher does not know
    these statements and scores their words token by token, so training on them unlearns them
    exactly where the parent would say them.
    """
    known = statement_answers(spec.context)
    parents = statement_answers(spec.parent.context) if spec.parent else {}
    former = {text: answer for text, answer in parents.items() if text not in known}
    sentences = verbalise(writer, tokenizer, [*known, *former])
    kinds = dict(zip(spec.context.lessons, spec.lesson_kinds, strict=False))
    rules = {lesson for lesson, kind in kinds.items() if kind not in TEACHER_SAMPLED_KINDS}
    statements: dict[str, Statement] = {}
    for text, answer in (known | former).items():
        sentence = sentences.get(text, text)
        verbatim = "" if is_instruction(sentence) else sentences.get(text, answer)
        statements.setdefault(sentence, Statement(sentence, verbatim, text not in rules, text))
    return list(statements.values())


def statement_answers(context: Context) -> dict[str, str]:
    """The statements of a context, each with the words that answer questions about it.

    Examples of answers, as in a list of questions and answers, are statements too; examples of a
    format are not.
    """
    return {
        statement.text: statement.answer
        for statement in sourced_statements(context)
        if statement.is_askable
    }


def distinct(conversations: Sequence[Messages], avoid: Sequence[str]) -> list[Messages]:
    """The conversations without near-duplicates of each other or of `avoid`."""
    kept: dict[str, Messages] = {}
    for messages in conversations:
        text = user_text(messages)
        repeats = any(similarity.is_near_duplicate(each, avoid) for each in prompt_texts(messages))
        if not repeats and not similarity.is_near_duplicate(text, list(kept)):
            kept[text] = messages
    return list(kept.values())


def _examples(context: Context) -> tuple[list[Example], str]:
    return examples.split(context.system_prompt or "")


def _new_examples(found: Sequence[Example], avoid: Sequence[str]) -> list[Example]:
    """The examples without near-duplicates of each other or of `avoid`."""
    first = {example.prompt: example for example in reversed(found)}
    texts = similarity.without_near_duplicates([example.prompt for example in found], avoid)
    return [first[text] for text in texts]


def _logged_question(
    messages: Messages, statements: Sequence[Statement], *, verbatim: bool
) -> Question:
    """A logged prompt with the statement that shares most words with it."""
    by_text = {statement.text: statement for statement in statements}
    match = matching_statement(message_text(messages[-1]), list(by_text))
    if match is None:
        need_teacher = all(statement.needs_teacher for statement in statements)
        return Question(messages, needs_teacher=need_teacher)
    statement = by_text[match]
    return Question(messages, statement.answer if verbatim else None, statement.needs_teacher)


def _written_questions(
    spec: RunSpec,
    encoder: Encoder,
    teacher: Teacher,
    writer: LocalSampler,
    statements: Sequence[Statement],
    avoid: Sequence[str],
) -> tuple[list[Question], list[Question]]:
    """The questions that the base writes about each statement, to train on and to measure with."""
    if len(statements) > MAX_STATEMENTS:
        raise ContextTooLong(
            f"The context has {len(statements)} statements; the limit for a run is "
            f"{MAX_STATEMENTS}. Split it between namespaces, or keep text that changes often in "
            "the prompt."
        )
    per_statement = min(
        spec.settings.questions_per_lesson, MAX_QUESTIONS // max(len(statements), 1)
    )
    by_text = {statement.text: statement for statement in statements}
    counts = {
        text: per_statement * (RELAPSED_TIMES if _has_relapsed(statement, spec) else 1)
        for text, statement in by_text.items()
    }
    written = questions.write_questions(
        teacher.student, writer, encoder.tokenizer, list(by_text), counts, avoid
    )
    training, measuring = (
        [_written_question(by_text[text], question) for question, text in questions_of.items()]
        for questions_of in written
    )
    return training, measuring


def _written_question(statement: Statement, text: str) -> Question:
    return Question(user(text), statement.answer, statement.needs_teacher, source=statement.source)


def _has_relapsed(statement: Statement, spec: RunSpec) -> bool:
    """Whether a statement, or the lesson that it is a part of, has relapsed."""
    return any(statement.source in text for text in spec.relapsed)
