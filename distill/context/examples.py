"""Finds the examples in a system prompt: pairs of a prompt and the answer to give.

Small models follow a format or a set of labels only by examples, so system prompts for them contain
some. Each is a prompt to train on, with its answer. They are written in many ways: as labelled
lines, under headings, in tags, as JSON objects, in a table, with arrows.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from distill.context.labels import (
    ANSWER_LABELS,
    PROMPT_LABELS,
    TAGGED,
    UNAMBIGUOUS_ANSWER_LABELS,
    NumberedLine,
    is_frame,
    label_of,
    labelled,
    text_of,
    unquoted,
)
from distill.context.statements import QUESTION_MARKS

ARROW = re.compile(
    r"^\W{0,4}(?:example ?\d*:\W*)?(?P<prompt>\w.*?)\s*(?:->|=>|→)\s*(?P<answer>\S.*)$",
    re.IGNORECASE,
)
ARROWS = re.compile("->|=>|→")
FRAMED = re.compile(
    r"^[ \t]*<example\b[^<>]*>(?P<inside>.*?)</example>[ \t]*$", re.DOTALL | re.MULTILINE
)
# One pair may be anything; two pairs with the same labels are examples. Pairs with unknown labels
# must be three, and so must arrows, which also show paths through menus.
MIN_PAIRS, MIN_UNKNOWN, MIN_ARROWS = 2, 3, 3
# Mean number of words in prompts: fewer are names or numbers with a property below them.
MIN_PROMPT_WORDS, MIN_UNKNOWN_PROMPT_WORDS = 1.5, 3.5
MAX_LABEL_WORDS = 3


@dataclass(frozen=True)
class Example:
    """One pair, as written in the text."""

    prompt: str
    answer: str
    numbers: tuple[int, ...] = field(default=(), compare=False)
    """The numbers of the lines of the text that it stands on, from 0."""


def split(text: str) -> tuple[list[Example], str]:
    """Split a text into its examples and the rest.

    Examples are at least two pairs with the same labels, such as "User: ..." and "Assistant: ..."
    below it, where the answer may have no label; or at least three lines "... -> ...".
    """
    found, rest = split_lines(text)
    return found, "\n".join(line for _, line in rest)


def split_lines(text: str) -> tuple[list[Example], list[NumberedLine]]:
    """Split a text into its examples and the rest, as lines with their numbers.

    One blank line is left of an example in a tag.
    """
    framed, lines = _framed(text)
    pieces = list(labelled(lines))
    pairs, remaining = _all_pairs([piece for _, piece in pieces])
    used = {number for index, (number, _) in enumerate(pieces) if index not in remaining}
    pairs = [replace(pair, numbers=_numbers(pair.numbers, pieces, dict(lines))) for pair in pairs]
    rest = [
        (number, line)
        for number, line in lines
        if number not in used and not ((framed or pairs) and is_frame(line))
    ]
    with_arrows, rest = _with_arrows(rest)
    return [*framed, *pairs, *with_arrows], rest


def _numbers(
    indices: Iterable[int], pieces: Sequence[NumberedLine], lines: Mapping[int, str]
) -> tuple[int, ...]:
    """The numbers of the lines that some pieces are from, without blank lines."""
    numbers = dict.fromkeys(pieces[index][0] for index in indices)
    return tuple(number for number in numbers if lines[number].strip())


def _with_arrows(lines: list[NumberedLine]) -> tuple[list[Example], list[NumberedLine]]:
    """Split off the lines "... -> ..."."""
    matches = {
        number: match
        for number, line in lines
        if len(ARROWS.findall(line)) == 1 and (match := ARROW.match(line))
    }
    if len(matches) < MIN_ARROWS:
        return [], lines
    # A label that all prompts share is not part of them.
    share_label = len({label_of(match["prompt"]) for match in matches.values()}) == 1
    found = [
        Example(
            text_of([match["prompt"]]) if share_label else unquoted(match["prompt"]),
            unquoted(match["answer"]),
            (number,),
        )
        for number, match in matches.items()
    ]
    return found, [(number, line) for number, line in lines if number not in matches]


def show_format(examples: Sequence[Example]) -> bool:
    """Whether examples show how to answer any prompt, rather than the answers to these prompts.

    In a list of questions and answers, most prompts are questions, and all answers differ.
    """
    questions = sum(example.prompt.endswith(QUESTION_MARKS) for example in examples)
    answers = {example.answer for example in examples}
    return 2 * questions < len(examples) or len(answers) < len(examples)


def find_prompt_label(text: str) -> str | None:
    """The label of the prompts in a text's examples, in lower case; None if it is unknown.

    An answer may contain labels too ("Category: ..."), but those never start an example.
    """
    labels = [label_of(piece) for _, piece in labelled(list(enumerate(text.split("\n"))))]
    known = [label for label in labels if label in PROMPT_LABELS]
    return known[0] if known and split(text)[0] else None


def _framed(text: str) -> tuple[list[Example], list[NumberedLine]]:
    """Split off the examples in `<example>` tags, whatever the tags inside are called."""
    lines = list(enumerate(text.split("\n")))
    found: list[Example] = []
    for frame in FRAMED.finditer(text):
        texts = [unquoted(tag["text"]) for tag in TAGGED.finditer(frame["inside"])]
        if len(texts) >= 2 and texts[0] and texts[-1]:
            first = text.count("\n", 0, frame.start())
            numbers = range(first, first + frame[0].count("\n") + 1)
            found.append(Example(texts[0], texts[-1], tuple(numbers)))
    if len(found) < MIN_PAIRS:
        return [], lines
    firsts = {example.numbers[0] for example in found}
    inside = {number for example in found for number in example.numbers} - firsts
    return found, [
        (number, "" if number in firsts else line) for number, line in lines if number not in inside
    ]


def _all_pairs(lines: list[str]) -> tuple[list[Example], list[int]]:
    """The pairs with the most frequent labels, and the indices of the lines in none of them.

    The numbers of a pair are such indices too.
    """
    labels = [label for label in map(label_of, lines) if label]
    followed = Counter(
        label
        for label, next_label in pairwise(labels)
        if next_label in ANSWER_LABELS and label != next_label
    )
    [(prompt_label, count)] = followed.most_common(1) or [("", 0)]
    if count >= MIN_PAIRS:
        answers = [index for index, line in enumerate(lines) if label_of(line) in ANSWER_LABELS]
        found, remaining = _pairs(lines, prompt_label, answers)
        is_certain = (
            count >= MIN_UNKNOWN
            and {label_of(lines[index]) for index in answers} <= UNAMBIGUOUS_ANSWER_LABELS
        )
        if (
            prompt_label in PROMPT_LABELS
            or is_certain
            or _mean_prompt_words(found) >= MIN_PROMPT_WORDS
        ):
            return found, remaining
    unlabelled = _unlabelled_answers(lines)
    prompts = Counter(label_of(lines[index - 1]) for index in unlabelled)
    [(label, count)] = prompts.most_common(1) or [(None, 0)]
    if label and count >= MIN_PAIRS:
        return _pairs(lines, label, unlabelled)
    return _unknown_pairs(lines, labels)


def _unknown_pairs(lines: list[str], labels: Sequence[str]) -> tuple[list[Example], list[int]]:
    """Pairs with unknown labels, such as "Ticket" and "Team": messages and their categories."""
    [((first, second), count)] = Counter(pairwise(labels)).most_common(1) or [(("", ""), 0)]
    is_prompt = first in PROMPT_LABELS
    if first != second and count >= (MIN_PAIRS if is_prompt else MIN_UNKNOWN):
        answers = [index for index, line in enumerate(lines) if label_of(line) == second]
        found, remaining = _pairs(lines, first, answers)
        min_words = MIN_PROMPT_WORDS if is_prompt else MIN_UNKNOWN_PROMPT_WORDS
        # A speaker that always follows a user is the one who answers, whatever its label.
        turns = [label for label in labels if label in (first, second)]
        takes_turns = is_prompt and turns == [first, second] * count
        if _mean_prompt_words(found) >= min_words and (
            takes_turns or all(_is_category(example.answer) for example in found)
        ):
            return found, remaining
    return [], [*range(len(lines))]


def _mean_prompt_words(found: Sequence[Example]) -> float:
    return sum(len(example.prompt.split()) for example in found) / max(len(found), 1)


def _is_category(answer: str) -> bool:
    """Whether an answer is a category or an object, rather than a fact."""
    is_short = len(answer.split()) <= MAX_LABEL_WORDS and not re.search(r"\d", answer)
    return is_short or answer.startswith(("{", "[", "<"))


def _unlabelled_answers(lines: Sequence[str]) -> list[int]:
    """Indices of the lines without a label that follow a labelled prompt."""
    return [
        index
        for index, (line, next_line) in enumerate(pairwise(lines), start=1)
        if label_of(line) in PROMPT_LABELS
        and text_of([line])
        and next_line.strip()
        and not label_of(next_line)
    ]


def _pairs(
    lines: Sequence[str], prompt_label: str, answers: Sequence[int]
) -> tuple[list[Example], list[int]]:
    """The pairs, whose parts may have several lines, and the indices of the lines in no pair.

    An answer starts at one of the indices `answers` and ends at an empty line or the next prompt.
    """
    found: list[Example] = []
    remaining: list[int] = []
    prompt: list[int] = []
    answer: list[int] = []
    for index, line in enumerate([*lines, ""]):
        label = label_of(line)
        text = text_of([lines[at] for at in answer]) if answer else ""
        is_end = (text and not line.strip()) or label == prompt_label or index == len(lines)
        if answer and is_end:
            question = text_of([lines[at] for at in prompt])
            example = Example(question, text, (*prompt, *answer))
            found += [example] if question and text else []
            remaining += [] if question and text else [*prompt, *answer]
            prompt, answer = [], []
        if label == prompt_label:
            remaining += prompt
            prompt = [index]
        elif prompt and not answer and index in answers:
            answer = [index]
        elif prompt:
            (answer or prompt).append(index)
        else:
            remaining.append(index)
    return found, [index for index in [*remaining, *prompt] if index < len(lines)]
