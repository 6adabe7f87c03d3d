"""Finds the examples in a system prompt: pairs of a prompt and the answer to give.

Small models follow a format or a set of labels only by examples, so system prompts for them contain
some. Each is a prompt to train on, with its answer. They are written in many ways: as labelled
lines, under headings, in tags, as JSON objects, in a table, with arrows.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from distill.context.statements import QUESTION_MARKS
from distill.context.tables import ROW, RULE

_LABELS = tomllib.loads(Path(__file__).with_name("examples.toml").read_text())
ANSWER_LABELS = frozenset(_LABELS["answers"].split())
"""Labels of answers; the line above such a label is the prompt."""
PROMPT_LABELS = frozenset(_LABELS["prompts"].split())
"""Labels of prompts whose answer may have no label."""
ROLE_LABELS = ANSWER_LABELS | PROMPT_LABELS
UNAMBIGUOUS_ANSWER_LABELS = frozenset(_LABELS["unambiguous_answers"].split())
"""Labels that only an answer has, never a property of a thing."""
LINE = re.compile(
    r"^\W{0,4}(?P<label>[^\W\d_]+(?: [^\W\d_]+){0,2})(?: ?\d+)?[*_]{0,2}"
    r"(?::[*_]{0,2}(?:\s|$)|：)(?P<text>.*)$",  # noqa: RUF001 - not only Latin script
    re.DOTALL,
)
ARROW = re.compile(
    r"^\W{0,4}(?:example ?\d*:\W*)?(?P<prompt>\w.*?)\s*(?:->|=>|→)\s*(?P<answer>\S.*)$",
    re.IGNORECASE,
)
ARROWS = re.compile("->|=>|→")
# A label by itself: "### User", "**User**", "[user]", "<input>".
LONE_LABEL = re.compile(r"^\s*[#*\[<|=-]+\s*(?P<close>/?)(?P<label>[^\W\d_]+)\s*:?[*\]>|=-]*\s*$")
FRAME = re.compile(r"^\s*</?examples?\b[^<>]*>\s*$")
FRAMED = re.compile(
    r"^[ \t]*<example\b[^<>]*>(?P<inside>.*?)</example>[ \t]*$", re.DOTALL | re.MULTILINE
)
TAGGED = re.compile(r"<(?P<label>[^\W\d]\w*)>\s*(?P<text>.*?)\s*</(?P=label)>", re.DOTALL)
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


def split(text: str) -> tuple[list[Example], str]:
    """Split a text into its examples and the rest.

    Examples are at least two pairs with the same labels, such as "User: ..." and "Assistant: ..."
    below it, where the answer may have no label; or at least three lines "... -> ...".
    """
    framed, text = _framed(text)
    lines = text.split("\n")
    labelled = list(_labelled(lines))
    pairs, remaining = _all_pairs([piece for _, piece in labelled])
    used = {number for index, (number, _) in enumerate(labelled) if index not in remaining}
    rest = [
        line
        for number, line in enumerate(lines)
        if number not in used and not ((framed or pairs) and _is_frame(line))
    ]
    arrows = [line for line in rest if len(ARROWS.findall(line)) == 1 and ARROW.match(line)]
    if len(arrows) < MIN_ARROWS:
        return [*framed, *pairs], "\n".join(rest)
    matches = [match for line in arrows if (match := ARROW.match(line))]
    # A label that all prompts share is not part of them.
    share_label = len({_label(match["prompt"]) for match in matches}) == 1
    with_arrows = [
        Example(
            _text_of([match["prompt"]]) if share_label else unquoted(match["prompt"]),
            unquoted(match["answer"]),
        )
        for match in matches
    ]
    return [*framed, *pairs, *with_arrows], "\n".join(line for line in rest if line not in arrows)


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
    labels = [_label(piece) for _, piece in _labelled(text.split("\n"))]
    known = [label for label in labels if label in PROMPT_LABELS]
    return known[0] if known and split(text)[0] else None


def unquoted(text: str) -> str:
    """The text without surrounding quotes."""
    return text.strip().strip("\"'“”`").strip()


def _framed(text: str) -> tuple[list[Example], str]:
    """Split off the examples in `<example>` tags, whatever the tags inside are called."""
    found: list[Example] = []

    def take(frame: re.Match[str]) -> str:
        texts = [unquoted(tag["text"]) for tag in TAGGED.finditer(frame["inside"])]
        if len(texts) < 2 or not texts[0] or not texts[-1]:
            return frame[0]
        found.append(Example(texts[0], texts[-1]))
        return ""

    rest = FRAMED.sub(take, text)
    return (found, rest) if len(found) >= MIN_PAIRS else ([], text)


def _labelled(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The numbered lines; headings, tags, objects and table rows become labelled lines."""
    columns: list[str] = []
    for number, line in enumerate(lines):
        row = ROW.match(line)
        cells = [cell.strip() for cell in row[1].split("|")] if row else []
        if len(cells) > 1 and cells[-1].lower() in ANSWER_LABELS:
            columns = cells
            pieces = [line]
        elif columns and len(cells) == len(columns) and not RULE.match(line):
            pieces = [f"{columns[0]}: {cells[0]}", f"{columns[-1]}: {cells[-1]}", ""]
        else:
            columns = columns if row else []
            pieces = _pieces(line)
        for piece in pieces:
            yield number, piece


def _pieces(line: str) -> list[str]:
    """The content of a line as labelled lines."""
    lone = LONE_LABEL.match(line)
    if lone and lone["label"].lower() in ROLE_LABELS:
        return ["" if lone["close"] else f"{lone['label']}:"]
    tagged = [f"{tag['label']}: {tag['text']}" for tag in TAGGED.finditer(line)]
    if tagged and ANSWER_LABELS & set(map(_label, tagged)):
        return [*tagged, ""]
    if tagged and PROMPT_LABELS & set(map(_label, tagged)):
        return tagged
    return _from_object(line) or [line]


def _is_frame(line: str) -> bool:
    """Whether a line only delimits the examples around it."""
    lone = LONE_LABEL.match(line)
    is_label = lone is not None and lone["label"].lower() in ROLE_LABELS
    return is_label or bool(FRAME.match(line))


def _from_object(line: str) -> list[str]:
    """The labelled values of a JSON object on one line; empty if none of them is an answer."""
    try:
        value = json.loads(line.strip().removesuffix(",")) if line.lstrip()[:1] == "{" else None
    except (ValueError, RecursionError):
        value = None
    named = {str(key).lower(): item for key, item in value.items()} if value else {}
    if len(named) < 2 or not ANSWER_LABELS & named.keys():
        return []
    texts = {
        key: item if isinstance(item, str) else json.dumps(item) for key, item in named.items()
    }
    prompt = next((key for key in texts if key not in ANSWER_LABELS), None)
    answer = next(key for key in texts if key in ANSWER_LABELS)
    return [f"{prompt}: {texts[prompt]}", f"{answer}: {texts[answer]}", ""] if prompt else []


def _label(line: str) -> str | None:
    match = LINE.match(line)
    return match["label"].lower() if match else None


def _all_pairs(lines: list[str]) -> tuple[list[Example], list[int]]:
    """The pairs with the most frequent labels, and the indices of the lines in none of them."""
    labels = [label for label in map(_label, lines) if label]
    followed = Counter(
        label
        for label, next_label in pairwise(labels)
        if next_label in ANSWER_LABELS and label != next_label
    )
    [(prompt_label, count)] = followed.most_common(1) or [("", 0)]
    if count >= MIN_PAIRS:
        answers = [index for index, line in enumerate(lines) if _label(line) in ANSWER_LABELS]
        found, remaining = _pairs(lines, prompt_label, answers)
        is_certain = (
            count >= MIN_UNKNOWN
            and {_label(lines[index]) for index in answers} <= UNAMBIGUOUS_ANSWER_LABELS
        )
        if (
            prompt_label in PROMPT_LABELS
            or is_certain
            or _mean_prompt_words(found) >= MIN_PROMPT_WORDS
        ):
            return found, remaining
    unlabelled = _unlabelled_answers(lines)
    prompts = Counter(_label(lines[index - 1]) for index in unlabelled)
    [(label, count)] = prompts.most_common(1) or [(None, 0)]
    if label and count >= MIN_PAIRS:
        return _pairs(lines, label, unlabelled)
    return _unknown_pairs(lines, labels)


def _unknown_pairs(lines: list[str], labels: Sequence[str]) -> tuple[list[Example], list[int]]:
    """Pairs with unknown labels, such as "Ticket" and "Team": messages and their categories."""
    [((first, second), count)] = Counter(pairwise(labels)).most_common(1) or [(("", ""), 0)]
    is_prompt = first in PROMPT_LABELS
    if first != second and count >= (MIN_PAIRS if is_prompt else MIN_UNKNOWN):
        answers = [index for index, line in enumerate(lines) if _label(line) == second]
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
        if _label(line) in PROMPT_LABELS
        and _text_of([line])
        and next_line.strip()
        and not _label(next_line)
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
        label = _label(line)
        text = _text_of([lines[at] for at in answer]) if answer else ""
        is_end = (text and not line.strip()) or label == prompt_label or index == len(lines)
        if answer and is_end:
            question = _text_of([lines[at] for at in prompt])
            found += [Example(question, text)] if question and text else []
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


def _text_of(lines: Sequence[str]) -> str:
    """The text of the lines, without the label of the first one."""
    first = LINE.match(lines[0])
    return unquoted("\n".join([first["text"] if first else lines[0], *lines[1:]]))
