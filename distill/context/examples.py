"""Examples in a system prompt: what was asked, and what is to be answered to it.

Small models follow a form or a set of labels by examples alone, so prompts of that kind have them.
Each is a prompt to train on as it stands, with its answer. They are written in many ways: as lines
with names, under headings, in tags, as objects of JSON, in a table, with arrows.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from distill.context.markup import ROW, RULE
from distill.context.statements import ASKING

LINE = re.compile(
    r"^\W{0,4}(?P<label>[^\W\d_]+(?: [^\W\d_]+){0,2})(?: ?\d+)?[*_]{0,2}"
    r"(?::[*_]{0,2}(?:\s|$)|：)(?P<said>.*)$",  # noqa: RUF001 - not only Latin script
    re.DOTALL,
)
# What an answer is called; whatever stands above it is what was asked.
ANSWERS = frozenset(
    """
    a answer assistant output label class category classification sentiment intent tag response
    reply agent bot ai you expected result antwort réponse respuesta resposta risposta antwoord
    ответ метка 答 回答 助手 输出 标签 出力 回答例
    """.split()  # noqa: SIM905 - prose is easier to read and change
)
# What is asked, where the answer below it has no name.
QUESTIONS = frozenset(
    """
    user human customer client visitor guest caller patient student child input question q message
    text query request review kunde nutzer
    frage eingabe cliente utilisateur usuario pregunta domanda vraag вопрос пользователь 问 用户
    输入 问题 質問 入力
    """.split()  # noqa: SIM905 - as above
)
ROLES = ANSWERS | QUESTIONS
# What nothing but an answer is called: below it stands no property of a thing.
SURELY = frozenset("answer a assistant output response reply agent bot ai you".split())  # noqa: SIM905
ARROW = re.compile(
    r"^\W{0,4}(?:example ?\d*:\W*)?(?P<asked>\w.*?)\s*(?:->|=>|→)\s*(?P<answer>\S.*)$",
    re.IGNORECASE,
)
ARROWS = re.compile("->|=>|→")
# A name by itself: "### User", "**User**", "[user]", "<input>".
ALONE = re.compile(r"^\s*[#*\[<|=-]+\s*(?P<close>/?)(?P<label>[^\W\d_]+)\s*:?[*\]>|=-]*\s*$")
FRAME = re.compile(r"^\s*</?examples?\b[^<>]*>\s*$")
FRAMED = re.compile(
    r"^[ \t]*<example\b[^<>]*>(?P<inside>.*?)</example>[ \t]*$", re.DOTALL | re.MULTILINE
)
TAGGED = re.compile(r"<(?P<label>[^\W\d]\w*)>\s*(?P<said>.*?)\s*</(?P=label)>", re.DOTALL)
# One pair may be anything; two of a kind are examples, and of names that are not known, three.
# Arrows also show the way through menus.
MIN_PAIRS, MIN_UNKNOWN, MIN_ARROWS = 2, 3, 3
# Words of what is asked: fewer are a name or a number, with something said of it below.
MESSAGE, UNKNOWN_MESSAGE, UNKNOWN_ANSWER = 1.5, 3.5, 3


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
    framed, text = _framed(text)
    lines = text.split("\n")
    plain = list(_plain(lines))
    pairs, kept = _all_pairs([piece for _, piece in plain])
    gone = {number for place, (number, _) in enumerate(plain) if place not in kept}
    rest = [
        line
        for number, line in enumerate(lines)
        if number not in gone and not ((framed or pairs) and _is_frame(line))
    ]
    arrows = [line for line in rest if len(ARROWS.findall(line)) == 1 and ARROW.match(line)]
    if len(arrows) < MIN_ARROWS:
        return [*framed, *pairs], "\n".join(rest)
    matches = [match for line in arrows if (match := ARROW.match(line))]
    # One name in front of all of them is none of what is asked.
    named = len({_label(each["asked"]) for each in matches}) == 1
    shown = [
        Example(_joined([each["asked"]]) if named else bare(each["asked"]), bare(each["answer"]))
        for each in matches
    ]
    return [*framed, *pairs, *shown], "\n".join(line for line in rest if line not in arrows)


def show_a_form(shown: Sequence[Example]) -> bool:
    """Whether examples show how to answer anything, and not what to say to these questions.

    A list of questions and answers has questions, and an answer of its own to each.
    """
    asking = sum(each.asked.endswith(ASKING) for each in shown)
    return 2 * asking < len(shown) or len({each.answer for each in shown}) < len(shown)


def asker(text: str) -> str | None:
    """Who asks in the examples of a text, in lower case, where that is a known name.

    An answer may have names in it too ("Category: ..."), but none of these begins an example.
    """
    labels = [_label(piece) for _, piece in _plain(text.split("\n"))]
    known = [label for label in labels if label in QUESTIONS]
    return known[0] if known and split(text)[0] else None


def bare(text: str) -> str:
    """Without the quotes around it."""
    return text.strip().strip("\"'“”`").strip()


def _framed(text: str) -> tuple[list[Example], str]:
    """Examples in tags of that name, whatever the tags within are called, and the text without."""
    found: list[Example] = []

    def take(frame: re.Match[str]) -> str:
        said = [bare(each["said"]) for each in TAGGED.finditer(frame["inside"])]
        if len(said) < 2 or not said[0] or not said[-1]:
            return frame[0]
        found.append(Example(said[0], said[-1]))
        return ""

    rest = FRAMED.sub(take, text)
    return (found, rest) if len(found) >= MIN_PAIRS else ([], text)


def _plain(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The lines with their numbers; headings, tags, objects and rows as lines with names."""
    columns: list[str] = []
    for number, line in enumerate(lines):
        row = ROW.match(line)
        cells = [cell.strip() for cell in row[1].split("|")] if row else []
        if len(cells) > 1 and cells[-1].lower() in ANSWERS:
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
    """What stands in a line, as lines with names."""
    alone = ALONE.match(line)
    if alone and alone["label"].lower() in ROLES:
        return ["" if alone["close"] else f"{alone['label']}:"]
    tagged = [f"{each['label']}: {each['said']}" for each in TAGGED.finditer(line)]
    if tagged and ANSWERS & set(map(_label, tagged)):
        return [*tagged, ""]
    if tagged and QUESTIONS & set(map(_label, tagged)):
        return tagged
    return _of_object(line) or [line]


def _is_frame(line: str) -> bool:
    """Whether a line only holds together the examples around it."""
    alone = ALONE.match(line)
    named = alone is not None and alone["label"].lower() in ROLES
    return named or bool(FRAME.match(line))


def _of_object(line: str) -> list[str]:
    """The named values of an object of JSON on one line, if one of them is an answer."""
    try:
        value = json.loads(line.strip().removesuffix(",")) if line.lstrip()[:1] == "{" else None
    except (ValueError, RecursionError):
        value = None
    named = {str(key).lower(): each for key, each in value.items()} if value else {}
    if len(named) < 2 or not ANSWERS & named.keys():
        return []
    texts = {
        key: each if isinstance(each, str) else json.dumps(each) for key, each in named.items()
    }
    asked = next((key for key in texts if key not in ANSWERS), None)
    answer = next(key for key in texts if key in ANSWERS)
    return [f"{asked}: {texts[asked]}", f"{answer}: {texts[answer]}", ""] if asked else []


def _label(line: str) -> str | None:
    match = LINE.match(line)
    return match["label"].lower() if match else None


def _all_pairs(lines: list[str]) -> tuple[list[Example], list[int]]:
    """The pairs of one sort, and the places of the lines that belong to none."""
    labels = [label for label in map(_label, lines) if label]
    followed = Counter(one for one, other in pairwise(labels) if other in ANSWERS and one != other)
    [(asking, count)] = followed.most_common(1) or [("", 0)]
    if count >= MIN_PAIRS:
        named = [place for place, line in enumerate(lines) if _label(line) in ANSWERS]
        found, kept = _pairs(lines, asking, named)
        surely = count >= MIN_UNKNOWN and {_label(lines[place]) for place in named} <= SURELY
        if asking in QUESTIONS or surely or _mean_words(found) >= MESSAGE:
            return found, kept
    nameless = _nameless(lines)
    asked = Counter(_label(lines[place - 1]) for place in nameless)
    [(label, count)] = asked.most_common(1) or [(None, 0)]
    if label and count >= MIN_PAIRS:
        return _pairs(lines, label, nameless)
    return _unknown(lines, labels)


def _unknown(lines: list[str], labels: Sequence[str]) -> tuple[list[Example], list[int]]:
    """Pairs under two names that follow each other, "Ticket" and "Team": messages and labels."""
    [((one, other), count)] = Counter(pairwise(labels)).most_common(1) or [(("", ""), 0)]
    asks = one in QUESTIONS
    if one != other and count >= (MIN_PAIRS if asks else MIN_UNKNOWN):
        answers = [place for place, line in enumerate(lines) if _label(line) == other]
        found, kept = _pairs(lines, one, answers)
        messages = _mean_words(found) >= (MESSAGE if asks else UNKNOWN_MESSAGE)
        # Whoever always speaks after a user answers, whatever they are called.
        turns = asks and [each for each in labels if each in (one, other)] == [one, other] * count
        if messages and (turns or all(_is_label(each.answer) for each in found)):
            return found, kept
    return [], [*range(len(lines))]


def _mean_words(found: Sequence[Example]) -> float:
    return sum(len(each.asked.split()) for each in found) / max(len(found), 1)


def _is_label(answer: str) -> bool:
    """Whether an answer is a label or an object, and not something that is told."""
    short = len(answer.split()) <= UNKNOWN_ANSWER and not re.search(r"\d", answer)
    return short or answer.startswith(("{", "[", "<"))


def _nameless(lines: Sequence[str]) -> list[int]:
    """Places of lines without a name below one that asks something."""
    return [
        place
        for place, (line, below) in enumerate(pairwise(lines), start=1)
        if _label(line) in QUESTIONS and _joined([line]) and below.strip() and not _label(below)
    ]


def _pairs(
    lines: Sequence[str], asking: str, answers: Sequence[int]
) -> tuple[list[Example], list[int]]:
    """The pairs, which may be of several lines each, and the places of lines that belong to none.

    An answer begins in one of the places `answers`, and ends at an empty line or where the next one
    is asked.
    """
    found: list[Example] = []
    kept: list[int] = []
    asked: list[int] = []
    answer: list[int] = []
    for place, line in enumerate([*lines, ""]):
        label = _label(line)
        said = _joined([lines[each] for each in answer]) if answer else ""
        if answer and ((said and not line.strip()) or label == asking or place == len(lines)):
            question = _joined([lines[each] for each in asked])
            found += [Example(question, said)] if question and said else []
            kept += [] if question and said else [*asked, *answer]
            asked, answer = [], []
        if label == asking:
            kept += asked
            asked = [place]
        elif asked and not answer and place in answers:
            answer = [place]
        elif asked:
            (answer or asked).append(place)
        else:
            kept.append(place)
    return found, [place for place in [*kept, *asked] if place < len(lines)]


def _joined(lines: Sequence[str]) -> str:
    """What stands in the first line, behind its name if it has one, and in the lines below."""
    first = LINE.match(lines[0])
    return bare("\n".join([first["said"] if first else lines[0], *lines[1:]]))
