"""Examples in a system prompt: what was asked, and what is to be answered to it.

Small models follow a form or a set of labels by examples alone, so prompts of that kind have them.
Each is a prompt to train on as it stands, with its answer; and the teacher writes more of the same
sort, since sentences about a form ("What is a classifier?") are not what the form is asked for.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from distill import data
from distill.packing import Ids
from distill.passages import ASKING
from distill.sampler import LocalSampler
from distill.student import Tokenizer

LINE = re.compile(
    r"^\W{0,4}(?P<label>[^\W\d_]+(?: [^\W\d_]+){0,2})(?: ?\d+)?[*_]{0,2}:[*_]{0,2}"
    r"(?:\s(?P<said>.*))?$"
)
# What an answer is called; whatever stands above it is what was asked.
ANSWERS = frozenset(
    """
    a answer assistant output label class category classification sentiment intent tag response
    reply agent bot ai expected result antwort réponse respuesta resposta risposta antwoord
    """.split()  # noqa: SIM905 - prose is easier to read and change
)
# What is asked, where the answer below it has no name.
QUESTIONS = frozenset(
    """
    user human customer client input question q message text query request review kunde nutzer
    frage eingabe cliente utilisateur usuario pregunta domanda vraag
    """.split()  # noqa: SIM905 - as above
)
ARROW = re.compile(
    r"^\W{0,4}(?:example ?\d*:\W*)?(?P<asked>\w.*?)\s*(?:->|=>|→)\s*(?P<answer>\S.*)$",
    re.IGNORECASE,
)
ARROWS = re.compile("->|=>|→")
# One pair may be anything; two of a kind are examples. Arrows also show the way through menus.
MIN_PAIRS, MIN_ARROWS = 2, 3
SHOWN, TEMPERATURE = 8, 0.7
MIN_WORDS, MARGIN = 2, 16


@dataclass(frozen=True)
class Example:
    """One pair, as it stands in the text."""

    asked: str
    answer: str


def split(text: str) -> tuple[list[Example], str]:
    """The examples of a text, and the text without them.

    Examples are pairs such as "User: ..." and below it "Assistant: ...", or an answer without a
    name, of which there must be two with the same names; or lines "... -> ...", of which there must
    be three.
    """
    pairs, kept = _all_pairs(text.split("\n"))
    arrows = [line for line in kept if len(ARROWS.findall(line)) == 1 and ARROW.match(line)]
    if len(arrows) < MIN_ARROWS:
        return pairs, "\n".join(kept)
    matches = [match for line in arrows if (match := ARROW.match(line))]
    shown = [Example(_bare(each["asked"]), _bare(each["answer"])) for each in matches]
    return [*pairs, *shown], "\n".join(line for line in kept if line not in arrows)


def show_a_form(shown: Sequence[Example]) -> bool:
    """Whether examples show how to answer anything, and not what to say to these questions.

    A list of questions and answers has questions, and an answer of its own to each.
    """
    asking = sum(each.asked.endswith(ASKING) for each in shown)
    return 2 * asking < len(shown) or len({each.answer for each in shown}) < len(shown)


def _label(line: str) -> str | None:
    match = LINE.match(line)
    return match["label"].lower() if match else None


def _all_pairs(lines: list[str]) -> tuple[list[Example], list[str]]:
    """The pairs of one sort, and the lines that belong to none."""
    if asking := _asking(lines):
        named = [place for place, line in enumerate(lines) if _label(line) in ANSWERS]
        return _pairs(lines, asking, named)
    nameless = _nameless(lines)
    asked = Counter(_label(lines[place - 1]) for place in nameless)
    [(label, count)] = asked.most_common(1) or [(None, 0)]
    return _pairs(lines, label, nameless) if label and count >= MIN_PAIRS else ([], lines)


def _nameless(lines: Sequence[str]) -> list[int]:
    """Places of lines without a name below one that asks something."""
    return [
        place
        for place, (line, below) in enumerate(pairwise(lines), start=1)
        if _label(line) in QUESTIONS and _joined([line]) and below.strip() and not _label(below)
    ]


def _asking(lines: Sequence[str]) -> str | None:
    """What that is called which the answers answer; None where there are no two answers to it."""
    labels = [label for label in map(_label, lines) if label]
    followed = Counter(one for one, other in pairwise(labels) if other in ANSWERS and one != other)
    [(label, count)] = followed.most_common(1) or [("", 0)]
    return label if count >= MIN_PAIRS else None


def _pairs(
    lines: Sequence[str], asking: str, answers: Sequence[int]
) -> tuple[list[Example], list[str]]:
    """The pairs, which may be of several lines each, and the lines that belong to none.

    An answer begins in one of the places `answers`, and ends at an empty line or where the next one
    is asked.
    """
    found: list[Example] = []
    kept: list[str] = []
    asked: list[str] | None = None
    answer: list[str] | None = None
    for place, line in enumerate([*lines, ""]):
        label = _label(line)
        if answer and (not line.strip() or label == asking):
            pair = Example(_joined(asked or []), _joined(answer))
            found += [pair] if pair.asked and pair.answer else []
            asked = answer = None
        if label == asking:
            kept += asked or []
            asked = [line]
        elif asked and not answer and place in answers:
            answer = [line]
        elif asked is not None:
            (answer or asked).append(line)
        else:
            kept.append(line)
    return found, [*kept, *(asked or [])][:-1]


def _joined(lines: Sequence[str]) -> str:
    """What stands in the first line, behind its name if it has one, and in the lines below."""
    first = LINE.match(lines[0])
    return _bare("\n".join([(first["said"] or "") if first else lines[0], *lines[1:]]))


def _bare(text: str) -> str:
    """Without the quotes around it."""
    return text.strip().strip("\"'“”`").strip()


def write_similar(
    sampler: LocalSampler,
    tokenizer: Tokenizer,
    shown: Sequence[str],
    drafts: int,
    avoid: Sequence[str],
) -> list[str]:
    """Let the model go on with a list of messages: more of the sort that the examples are.

    Args:
        sampler: Of the base; stops at a line end.
        tokenizer: The base's.
        shown: What the examples ask.
        drafts: How many to write; those that repeat one another, or anything of `avoid`, are left
            out.
        avoid: What must not be repeated, such as held-out prompts.
    """
    lengths = [len(tokenizer(each, add_special_tokens=False)["input_ids"]) for each in shown]
    patient = replace(sampler, max_tokens=max(lengths) + MARGIN)
    prompts = [_list(tokenizer, shown, number) for number in range(drafts)]
    written = [
        _bare(tokenizer.decode(ids, skip_special_tokens=True))
        for ids in patient.sample(prompts, TEMPERATURE)
        if ids[-1] in sampler.stop_ids  # what does not end is cut off
    ]
    usable = [text for text in written if len(text.split()) >= MIN_WORDS]
    return data.without_near_duplicates(usable, [*avoid, *shown])


def _list(tokenizer: Tokenizer, shown: Sequence[str], number: int) -> Ids:
    """A list of some of the messages, in an order of its own, up to where the next one begins."""
    chance = random.Random(number)  # noqa: S311 - reproducible, not secret
    some = chance.sample(list(shown), min(len(shown), SHOWN))
    text = "\n".join(["Messages from different people:", *(f"- {one}" for one in some), "-"])
    return data.text_ids(tokenizer, text)
