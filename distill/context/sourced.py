"""Lists everything that a context states, with the characters of its system prompt that state it.

A prompt that is cut down to the spans and the support of some of its statements still states them,
in its own words and order, under the headings that they stood beneath.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from distill.context import examples, markup
from distill.context.margin import without_margin
from distill.context.outline import outline
from distill.context.spans import Cuts, Sentence, merged, without
from distill.context.statements import (
    in_first_person,
    is_askable,
    sentences_of,
    topic_words,
)
from distill.context.syntax import HEADING, TAG, without_markup
from distill.context.tables import ROW
from distill.context.traced import Line, Span, prompt_lines
from store.contexts import Context
from store.text.words import refers_back, tokens


@dataclass(frozen=True)
class SourcedStatement:
    """A statement of a context, and where its system prompt states it."""

    text: str
    """In the context's words, and as written if questions cannot be written about it."""
    answer: str = ""
    """What answers a question about it."""
    spans: tuple[Span, ...] = ()
    """The characters of the system prompt that are its own words; none for a lesson."""
    support: tuple[Span, ...] = ()
    """The characters to keep with them: headings, introductions, bullets, column names, tags."""
    is_lesson: bool = False
    is_askable: bool = False
    """Whether questions can be written about it."""
    is_format: bool = False
    """Whether it is all of the prompt's examples, because together they show a format."""


def sourced_statements(context: Context) -> list[SourcedStatement]:
    """The statements of a context: those of its system prompt in their order, then the lessons.

    Every word of the prompt is in the spans or the support of one of them, except for headings and
    tags with nothing beneath them, and for fences around text. A sentence that the prompt repeats
    is one statement.
    """
    prompt = _Prompt(context.system_prompt or "")
    found = [*prompt.sentences(), *prompt.examples(), *prompt.code()]
    found += prompt.rest(found)
    lessons = [
        SourcedStatement(
            lesson, in_first_person(lesson), is_lesson=True, is_askable=bool(topic_words(lesson))
        )
        for lesson in context.lessons
    ]
    return [*sorted(_distinct(found), key=lambda statement: statement.spans), *lessons]


def _distinct(statements: Iterable[SourcedStatement]) -> list[SourcedStatement]:
    """The statements, with those as one that questions are the same about."""
    others: list[SourcedStatement] = []
    by_text: dict[str, list[SourcedStatement]] = defaultdict(list)
    for statement in statements:
        (by_text[statement.text] if statement.is_askable else others).append(statement)
    return [*(_as_one(repeated) for repeated in by_text.values()), *others]


def _as_one(repeated: Sequence[SourcedStatement]) -> SourcedStatement:
    """Statements with the same text; the last one says what answers questions about it."""
    spans = merged(span for statement in repeated for span in statement.spans)
    support = without((span for statement in repeated for span in statement.support), spans)
    return replace(repeated[-1], spans=tuple(spans), support=tuple(support))


class _Prompt:
    """A system prompt with its lines, and what they stand beneath."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = prompt_lines(text)
        self._examples, rest = examples.split_lines(text)
        self._in_examples = {number for each in self._examples for number in each.numbers}
        plain = [(self._lines[number], len(left)) for number, left in rest]
        self._reading = markup.read([replace(line, text=line.text[:end]) for line, end in plain])
        self._above = outline(without_margin(self._lines), self._reading, self._in_examples)
        code = {number for block in self._reading.code for number in block}
        titles = {
            each for number in code | self._in_examples for each in self._above[number].numbers
        }
        self._sentences = [
            [Sentence(part, line) for part in sentences_of(line.text)]
            for line in self._reading.stated
            if line.numbers[0] not in titles  # what is beneath is not among the plain lines
        ]
        introductions = {line for above in self._above for line in above.introductions}
        introducing = {line: _plain_sentences(line) for line in introductions}
        self._cuts = Cuts(text, chain(*self._sentences, *introducing.values()))
        self._introducing = {
            line: sentences if self._cuts.continues_item(sentences[-1]) else sentences[-1:]
            for line, sentences in introducing.items()
        }

    def sentences(self) -> Iterator[SourcedStatement]:
        """What its plain lines state, sentence by sentence."""
        for sentences in self._sentences:
            earlier: list[tuple[Sentence, SourcedStatement]] = []
            for sentence in sentences:
                statement = self._sentence(sentence, self._needed(sentence, earlier))
                earlier.append((sentence, statement))
                yield statement

    def _sentence(self, sentence: Sentence, needed: Iterable[SourcedStatement]) -> SourcedStatement:
        text = sentence.text.text
        around = [*self._cuts.around(sentence), *map(self._cuts.line, sentence.line.columns)]
        for other in needed:
            around += [*other.spans, *other.support]
        number = self._cuts.number(sentence)
        spans, support = self._source(self._cuts.own(sentence), [number], around)
        return SourcedStatement(
            text, in_first_person(text), spans, support, is_askable=is_askable(text)
        )

    def _needed(
        self, sentence: Sentence, earlier: Sequence[tuple[Sentence, SourcedStatement]]
    ) -> Iterator[SourcedStatement]:
        """The sentences before a sentence in its line that it cannot stand without."""
        if refers_back(sentence.text.text):
            yield from (statement for _, statement in earlier[-1:])
        if self._cuts.continues_item(sentence):  # a bullet needs a word next to it
            first = sentence.line.numbers[0]
            begins = [each for before, each in earlier if self._cuts.number(before) == first]
            yield from begins[:1]

    def examples(self) -> Iterator[SourcedStatement]:
        """Its examples: one statement if they show a format, else one for each."""
        if examples.show_format(self._examples):
            for statement in self._as_written(sorted(self._in_examples)):
                yield replace(statement, is_format=True)
            return
        for example in self._examples:
            text = f"{example.prompt} {example.answer}"
            for statement in self._as_written(example.numbers):
                yield replace(statement, text=text, answer=example.answer, is_askable=True)

    def code(self) -> Iterator[SourcedStatement]:
        """Its blocks of code."""
        for block in self._reading.code:
            yield from self._as_written(block)

    def rest(self, statements: Iterable[SourcedStatement]) -> Iterator[SourcedStatement]:
        """The lines with words that no statement has, but for headings and tags."""
        left = list(self._text)
        for statement in statements:
            for start, end in (*statement.spans, *statement.support):
                left[start:end] = " " * (end - start)
        for number, line in enumerate(self._lines):
            text = line.text.text
            words = tokens(markup.HTML.sub("", "".join(left[slice(*self._cuts.line(number))])))
            if words and not (HEADING.match(text) or TAG.match(text)):
                yield from self._as_written([number])

    def _as_written(self, numbers: Sequence[int]) -> Iterator[SourcedStatement]:
        """Whole lines as a statement in their own words; nothing if there are none."""
        columns = {each for number in numbers for each in self._columns(number)}
        around = [self._cuts.line(number) for number in columns]
        spans, support = self._source(self._cuts.block(numbers), numbers, around)
        if spans:
            text = "\n".join(self._text[start:end] for start, end in spans)
            yield SourcedStatement(text, "", spans, support)

    def _columns(self, number: int) -> Iterator[int]:
        """The numbers of the table's lines above an example in a row: its names and its rule."""
        while number >= 0 and ROW.match(self._lines[number].text.text):
            if number not in self._in_examples:
                yield number
            number -= 1

    def _source(
        self, spans: Iterable[Span], numbers: Sequence[int], around: Iterable[Span]
    ) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """The spans of a statement on some lines, and its support."""
        support = [*around]
        beneath = {above for number in numbers for above in self._above[number].numbers}
        support += [self._cuts.line(number) for number in beneath]
        for line in self._above[numbers[0]].introductions if numbers else ():
            for sentence in self._introducing[line]:
                support += [*self._cuts.own(sentence), *self._cuts.around(sentence)]
        own = merged(self._cuts.trimmed(spans))
        return tuple(own), self._cuts.trimmed(without(support, own))


def _plain_sentences(line: Line) -> list[Sentence]:
    """The sentences of a line without its markup; all of it if it has no words."""
    parts = sentences_of(without_markup(line.text)) or [line.text]
    return [Sentence(part, line) for part in parts]
