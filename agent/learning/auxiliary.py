"""Whether a client made a request itself, for a title, tags, a summary or the next question.

That is side traffic: it is answered as any other, and not learned from unless somebody gives
feedback on it (store/feedback.py): people speak of turns. A turn that is taken for a task is a
lesson lost, and a task that is taken for a turn is one odd prompt among many: so a task must stand
where clients put theirs, at the beginning of a line, and speak of no "me".
"""

import re
from collections.abc import Callable, Iterator, Sequence

from agent.learning.contradiction import contradicts
from store.contexts import SYSTEM_ROLES, Message, message_text, split_system

Task = tuple[tuple[str, int], ...]
Place = tuple[int, int]
"""Where words begin and end."""
Begins = Callable[[str, int], bool]
"""Whether what stands at a place of a text begins it, or its line."""

LONGEST_SYSTEM_TASK, LONGEST_AGENT_TASK = 600, 2_000
"""Characters; of an agent's those behind the lines that it puts before each of its texts."""
PREAMBLE = re.compile(r"\A(?:(?:x-[\w-]+:|You are (?:Claude Code|a Claude agent), )[^\n]*\n\s*)+")
"""The lines in which an agent says who it is, also where it has the model do something else."""
LONGEST_TASK = 4_000
"""Characters of a text that are looked at: instructions stand at its beginning or its end."""
THINGS = (
    *("title", "headline", "tag", "emoji", "follow", "quer"),
    *("summar", "cond", "compact", "rephr", "standalone"),
)
TALK = ("conversation", "chat", "discussion", "dialog", "message", "thread")
"""Of the words below, so much that none is without one of either."""
WORD = re.compile(
    r"\b(?:"
    r"(?P<make>generat(?:e|ing)|create|write|provide|suggest|give|extract|come up with|produce)"
    r"|(?P<thing>title|headline|tags?|emoji|follow[- ]?up questions?|search quer(?:y|ies))"
    r"|(?P<talk>(?:conversations?|chat[ _-]?(?:history|log|thread|transcript)|dialog(?:ue)?)"
    r"(?! (?:between|with) (?!(?:an? |the )?(?:user|human|ai|assistant)))"
    r"|(?:this|the|our) (?:chat|discussion|thread)(?! (?:app|bot|paper|room|about))"
    r"|(?:these|recent|previous) messages|messages above|above messages(?=[.:\n]|\Z))"
    r"|(?P<sum>summari[sz](?:e|ing)|condens(?:e|ing)|compact(?:ing)?|rephrase)"
    r"|(?P<summary>summary of)"
    r"|(?P<alone>standalone question)"
    r")\b"
)
"""In lower case."""
PHRASES = (
    "above chat messages into a single summary message",
    "brief title for the following request:",
    "chat thread titling assistant",
    "context checkpoint compaction",
    "context extraction assistant",
    "crafting pithy titles for chatbot conversations",
    "detailed summary of the conversation so far",
    "extract the relevant facts and preferences about the user",
    "give this conversation a name",
    "main topic or goal of this coding session",
    "provide a concise description of this session in",
    "reflect the speaker's likely facial expression",
    "reply with a title for the chat that is",
    "suggestion mode: suggest what the user might",
    "summarize the user's conversation into a title",
    "you are a summarization ai",
    "you are an autocompletion system",
    "使用四到五个字直接返回这句话的简要主题",
    "总结上述对话为",
)
"""Tasks of widespread clients that are told by nothing else."""
ALONE: Task = (("talk", 0), ("alone", 400))
"""The next question in words of its own, which is asked behind the conversation itself."""
LINE = 120
"""Words that are allowed to be further apart may have line ends between them."""
TASKS: tuple[Task, ...] = (
    (("make", 0), ("thing", 80), ("talk", 400)),
    (("talk", 0), ("make", 120), ("thing", 80)),
    (("sum", 0), ("talk", 60)),
    (("make", 0), ("summary", 80), ("talk", 60)),
    ALONE,
)
"""Words that make a task, one after another, each at most so many characters after the last."""
NOWHERE: Place = (-1, -1)
END = re.compile(r"[.!?]\s")
"""Of a sentence before another."""
SENTENCE_END = re.compile(r"[.!?]\s|\n")
SOMEBODY = re.compile(r"\b(?:i(?!\.e)|me|my|mine)\b")
"""Clients speak of the user; whoever speaks of themselves asks something."""


def is_auxiliary(messages: Sequence[Message]) -> bool:
    """Whether a client made this request itself, about a conversation rather than in it.

    Told by what is asked last, and by a system text that is short: such a task is all that it says,
    and an application's says much else. Before answers, a system text is a task only if it asks for
    the last question in words of its own.
    """
    has_answers = any(message["role"] == "assistant" for message in messages)
    said = _asked(messages)
    is_correction = has_answers and contradicts(said[:LONGEST_TASK])
    if not is_correction and _is_task(said, TASKS, _begins_line):
        return True
    own, _ = split_system(messages)
    system = PREAMBLE.sub("", own)
    if len(system) > (LONGEST_SYSTEM_TASK if system == own else LONGEST_AGENT_TASK):
        return False
    return _is_task(system, (ALONE,) if has_answers else TASKS, _begins_text)


def _asked(messages: Sequence[Message]) -> str:
    """What the user said last, or a system text that stands alone behind an answer."""
    ending = [message["role"] for message in messages[-2:]]
    if ending and ending[0] == "assistant" and ending[-1] in SYSTEM_ROLES:
        return message_text(messages[-1])
    asked = next((each for each in reversed(messages) if each["role"] == "user"), {})
    return message_text(asked)


def _is_task(text: str, tasks: Sequence[Task], begins: Begins) -> bool:
    half = LONGEST_TASK // 2
    ends = (text,) if len(text) <= LONGEST_TASK else (text[:half], text[-half:])
    return any(
        _has_phrase(end) or (_may_have_task(end) and _has_task(end, tasks, begins))
        for end in map(str.lower, ends)
    )


def _has_phrase(text: str) -> bool:
    return any(phrase in text for phrase in PHRASES)


def _may_have_task(text: str) -> bool:
    """Whether the words may be in a text: it takes ten times as long to be sure."""
    return any(word in text for word in THINGS) and any(word in text for word in TALK)


def _has_task(text: str, tasks: Sequence[Task], begins: Begins) -> bool:
    """Whether a text asks for a task, nobody's own, where clients do."""
    return any(
        begins(text, start) and not SOMEBODY.search(_sentence(text, start))
        for start in _starts(text, tasks)
    )


def _starts(text: str, tasks: Sequence[Task]) -> Iterator[int]:
    """Where the words of tasks begin in a text; in one pass, whatever the text."""
    reached: list[list[Place]] = [[NOWHERE] * len(task) for task in tasks]
    """Of each word of a task, where those up to it last stood in their places."""
    for word in WORD.finditer(text):
        for task, places in zip(tasks, reached, strict=True):
            for index in reversed(range(len(task))):
                kind, most = task[index]
                if kind != word.lastgroup:
                    continue
                if index == 0:
                    places[0] = word.span()
                elif _is_near(text, places[index - 1], word.start(), most):
                    places[index] = places[index - 1][0], word.end()
            if places[-1] != NOWHERE:
                yield places[-1][0]
                places[-1] = NOWHERE


def _is_near(text: str, last: Place, start: int, most: int) -> bool:
    if last == NOWHERE or start - last[1] > most:
        return False
    return most > LINE or "\n" not in text[last[1] : start]


def _begins_text(text: str, start: int) -> bool:
    """Whether what stands at `start` is in the first sentence."""
    return END.search(text, 0, start) is None


def _begins_line(text: str, start: int) -> bool:
    """Whether what stands at `start` is in the first sentence of its line."""
    return END.search(text, text.rfind("\n", 0, start) + 1, start) is None


def _sentence(text: str, start: int) -> str:
    """The sentence around `start`, as far as its line goes."""
    line = text.rfind("\n", 0, start) + 1
    first = max((end.end() for end in END.finditer(text, line, start)), default=line)
    last = SENTENCE_END.search(text, start)
    return text[first : last.start() if last else len(text)]
