"""Detects auxiliary requests: those that a chat client makes for a title, tags or a summary.

The gateway answers them like any other, but byheart does not learn from them unless somebody gives
feedback on one (store/feedback.py). The two kinds of error differ in cost: a turn mistaken for
an auxiliary request loses a lesson; an auxiliary request mistaken for a turn adds one odd prompt
among many. The rules are therefore strict: an instruction counts only where clients put it, at
the beginning of a line, and only in a sentence without "I" or "me". The word
lists are in auxiliary.toml.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from agent.learning.contradiction import contradicts
from agent.learning.word_lists import any_of, load
from store.contexts import SYSTEM_ROLES, Message, message_text, split_system

Pattern = tuple[tuple[str, int], ...]
"""Kinds of words in order, each with the maximum number of characters since the previous one."""
Span = tuple[int, int]
IsOpening = Callable[[str, int], bool]
"""Whether a position in a text is in its opening sentence, or in that of its line."""

_LISTS = load("auxiliary")

MAX_SYSTEM_CHARS, MAX_AGENT_SYSTEM_CHARS = 600, 2_000
"""Longer system messages belong to an application; an agent's introduction is not counted."""
MAX_SCANNED_CHARS = 4_000
"""Instructions occur at the beginning or the end of a text: half of this is read at each."""
MAX_GAP_IN_LINE = 120
"""A line break between two words is allowed only if their maximum gap is larger than this."""

AGENT_INTRODUCTION = re.compile(
    rf"\A(?:(?:x-[\w-]+:|{any_of(_LISTS['agent_introductions'])})[^\n]*\n\s*)+"
)
WORD = re.compile(
    r"\b(?:"
    rf"(?P<verb>{any_of(_LISTS['verb'])})"
    rf"|(?P<artifact>{any_of(_LISTS['artifact'])})"
    rf"|(?P<conversation>{any_of(_LISTS['conversation'])}"
    rf"(?! (?:between|with) (?!(?:an? |the )?{any_of(_LISTS['participants'])}))"
    rf"|(?:this|the|our) {any_of(_LISTS['this_conversation'])}(?! {any_of(_LISTS['other_uses'])})"
    rf"|{any_of(_LISTS['messages'])}|above messages(?=[.:\n]|\Z))"
    rf"|(?P<condense>{any_of(_LISTS['condense'])})"
    r"|(?P<summary_of>summary of)"
    r"|(?P<standalone>standalone question)"
    r")\b"
)
"""Matches lower-case text; each group is a kind of word."""
STANDALONE_QUESTION: Pattern = (("conversation", 0), ("standalone", 400))
"""A request to rephrase the last question; clients send it after the conversation itself."""
PATTERNS: tuple[Pattern, ...] = (
    (("verb", 0), ("artifact", 80), ("conversation", 400)),
    (("conversation", 0), ("verb", 120), ("artifact", 80)),
    (("condense", 0), ("conversation", 60)),
    (("verb", 0), ("summary_of", 80), ("conversation", 60)),
    STANDALONE_QUESTION,
)
SENTENCE_BREAK = re.compile(r"[.!?]\s")
SENTENCE_OR_LINE_BREAK = re.compile(r"[.!?]\s|\n")
FIRST_PERSON = re.compile(rf"\b(?:i(?!\.e)|{any_of(_LISTS['first_person'])})\b")
NO_SPAN: Span = (-1, -1)


def is_auxiliary(messages: Sequence[Message]) -> bool:
    """Return whether a client made this request itself, about a conversation rather than in it.

    Looks at the last prompt, and at the system message if it is short: in an auxiliary request it
    contains only the instruction. After answers, a system message counts only if it asks to
    rephrase the last question as a standalone one.
    """
    has_answers = any(message["role"] == "assistant" for message in messages)
    prompt = _last_prompt(messages)
    is_correction = has_answers and contradicts(prompt[:MAX_SCANNED_CHARS])
    if not is_correction and _is_instruction(prompt, PATTERNS, _opens_line):
        return True
    full_system, _ = split_system(messages)
    system = AGENT_INTRODUCTION.sub("", full_system)
    if len(system) > (MAX_SYSTEM_CHARS if system == full_system else MAX_AGENT_SYSTEM_CHARS):
        return False
    return _is_instruction(system, (STANDALONE_QUESTION,) if has_answers else PATTERNS, _opens_text)


def _last_prompt(messages: Sequence[Message]) -> str:
    """Return the last user message, or a final system message that follows an answer."""
    last_roles = [message["role"] for message in messages[-2:]]
    if last_roles and last_roles[0] == "assistant" and last_roles[-1] in SYSTEM_ROLES:
        return message_text(messages[-1])
    last_user = next((item for item in reversed(messages) if item["role"] == "user"), {})
    return message_text(last_user)


def _is_instruction(text: str, patterns: Sequence[Pattern], is_opening: IsOpening) -> bool:
    half = MAX_SCANNED_CHARS // 2
    ends = (text,) if len(text) <= MAX_SCANNED_CHARS else (text[:half], text[-half:])
    return any(
        _has_phrase(end) or (_may_match(end) and _has_instruction(end, patterns, is_opening))
        for end in map(str.lower, ends)
    )


def _has_phrase(text: str) -> bool:
    return any(phrase in text for phrase in _LISTS["phrases"])


def _may_match(text: str) -> bool:
    """Return whether the text may match a pattern; a cheap pre-filter."""
    return any(stem in text for stem in _LISTS["artifact_stems"]) and any(
        stem in text for stem in _LISTS["conversation_stems"]
    )


def _has_instruction(text: str, patterns: Sequence[Pattern], is_opening: IsOpening) -> bool:
    """Return whether a pattern matches in an opening sentence that has no first person."""
    return any(
        is_opening(text, start) and not FIRST_PERSON.search(_sentence(text, start))
        for start in _matches(text, patterns)
    )


def _matches(text: str, patterns: Sequence[Pattern]) -> Iterator[int]:
    """Yield where matches of the patterns start, in one pass over the text."""
    # For each word of a pattern: the latest match of the pattern up to that word.
    partial: list[list[Span]] = [[NO_SPAN] * len(pattern) for pattern in patterns]
    for word in WORD.finditer(text):
        for pattern, spans in zip(patterns, partial, strict=True):
            for index in reversed(range(len(pattern))):
                kind, max_gap = pattern[index]
                if kind != word.lastgroup:
                    continue
                if index == 0:
                    spans[0] = word.span()
                elif _is_near(text, spans[index - 1], word.start(), max_gap):
                    spans[index] = spans[index - 1][0], word.end()
            if spans[-1] != NO_SPAN:
                yield spans[-1][0]
                spans[-1] = NO_SPAN


def _is_near(text: str, previous: Span, start: int, max_gap: int) -> bool:
    if previous == NO_SPAN or start - previous[1] > max_gap:
        return False
    return max_gap > MAX_GAP_IN_LINE or "\n" not in text[previous[1] : start]


def _opens_text(text: str, position: int) -> bool:
    """Return whether the position is in the first sentence of the text."""
    return SENTENCE_BREAK.search(text, 0, position) is None


def _opens_line(text: str, position: int) -> bool:
    """Return whether the position is in the first sentence of its line."""
    return SENTENCE_BREAK.search(text, text.rfind("\n", 0, position) + 1, position) is None


def _sentence(text: str, position: int) -> str:
    """Return the sentence around the position, within its line."""
    line = text.rfind("\n", 0, position) + 1
    breaks = SENTENCE_BREAK.finditer(text, line, position)
    first = max((found.end() for found in breaks), default=line)
    last = SENTENCE_OR_LINE_BREAK.search(text, position)
    return text[first : last.start() if last else len(text)]
