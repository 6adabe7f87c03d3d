"""Which conversation a request belongs to, and whether it is one of its turns at all.

A client says so in a header or in its metadata; where it does not, the store finds the conversation
by the course of its messages (store/records.py), among those of the same principal and end user.
Chat clients also send requests of their own making, for a title, tags, a summary or the next
question: that is side traffic. It is answered as any other, and not learned from unless somebody
gives feedback on it (store/feedback.py): people speak of turns.
"""

import re
from collections.abc import Mapping, Sequence

from store.contexts import Message, message_text, split_system

Task = tuple[tuple[str, int], ...]

HEADERS = (b"x-byheart-conversation", b"x-openwebui-chat-id")
TAGS = ("conversation_id", "session_id", "thread_id", "chat_id")
"""Keys of metadata under which clients name a conversation, the surest first."""
MAX_ID = 256
LONGEST_SYSTEM_TASK = 600
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
    r"|(?P<talk>conversations?|chat[ _-]?(?:history|log|thread|transcript)|dialog(?:ue)?"
    r"|(?:this|the|our) (?:chat|discussion|thread)(?! (?:app|bot|paper|room|about))"
    r"|(?:these|recent|previous) messages|messages above)"
    r"|(?P<sum>summari[sz](?:e|ing)|condens(?:e|ing)|compact(?:ing)?|summary of|rephrase)"
    r"|(?P<alone>standalone question)"
    r")\b"
)
"""In lower case."""
PHRASES = (
    "chat thread titling assistant",
    "context checkpoint compaction",
    "context extraction assistant",
    "extract the relevant facts and preferences about the user",
    "reflect the speaker's likely facial expression",
    "you are an autocompletion system",
    "使用四到五个字直接返回这句话的简要主题",
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
    ALONE,
)
"""Words that make a task, one after another, each at most so many characters after the last."""


def named(headers: Mapping[bytes, bytes], tags: Mapping[str, str]) -> str | None:
    """The conversation as the client names it; None where it does not."""
    for header in HEADERS:
        if headers.get(header):
            return headers[header][:MAX_ID].decode("latin-1")
    return next((tags[tag][:MAX_ID] for tag in TAGS if tags.get(tag)), None)


def is_side(messages: Sequence[Message]) -> bool:
    """Whether a client made this request itself, about a conversation rather than in it.

    Told by what is asked last, and by a system text that is short: such a task is all that it says,
    and an application's says much else. Behind answers, a system text is a task only if it asks for
    the last question in words of its own.
    """
    asked = next((each for each in reversed(messages) if each["role"] == "user"), None)
    if asked and _is_task(message_text(asked), TASKS):
        return True
    system, _ = split_system(messages)
    has_answers = any(message["role"] == "assistant" for message in messages)
    tasks = (ALONE,) if has_answers else TASKS
    return len(system) <= LONGEST_SYSTEM_TASK and _is_task(system, tasks)


def _is_task(text: str, tasks: Sequence[Task]) -> bool:
    half = LONGEST_TASK // 2
    ends = (text,) if len(text) <= LONGEST_TASK else (text[:half], text[-half:])
    return any(
        _has_phrase(end) or (_may_have_task(end) and _has_task(end, tasks))
        for end in map(str.lower, ends)
    )


def _has_phrase(text: str) -> bool:
    return any(phrase in text for phrase in PHRASES)


def _may_have_task(text: str) -> bool:
    """Whether the words may be in a text: it takes ten times as long to be sure."""
    return any(word in text for word in THINGS) and any(word in text for word in TALK)


def _has_task(text: str, tasks: Sequence[Task]) -> bool:
    """Whether the words of a task stand in a text; in one pass, whatever the text."""
    reached = [[-1] * len(task) for task in tasks]
    """Of each word of a task, where it last ended with those before it in their places."""
    for word in WORD.finditer(text):
        for task, ends in zip(tasks, reached, strict=True):
            for place in reversed(range(len(task))):
                kind, most = task[place]
                if kind != word.lastgroup:
                    continue
                if place == 0 or _is_near(text, ends[place - 1], word.start(), most):
                    ends[place] = word.end()
        if any(ends[-1] >= 0 for ends in reached):
            return True
    return False


def _is_near(text: str, end: int, start: int, most: int) -> bool:
    if end < 0 or start - end > most:
        return False
    return most > LINE or "\n" not in text[end:start]
