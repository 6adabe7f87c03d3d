"""Detects that a user contradicts an answer ("No, that is wrong. It opens at 7.").

Works on wording alone, and in English (word lists: contradiction.toml). In other languages, send a
demonstration or use `byheart lessons add`, or let a capable model read the conversation
(`learning.extractor = "structured"`).
"""

import re

from agent.learning.word_lists import any_of, load

_LISTS = {name: any_of(words) for name, words in load("contradiction").items()}

_POLITE = rf"\W*{_LISTS['polite']}\b"
_OWN_REQUEST = rf"\W*{_LISTS['own_request']}\b"
_HESITATION = rf"(?:(?:hm+|um+|{_LISTS['hesitations']})\b\W*)*"
_NOT_APPROVED = rf"not (?:{_LISTS['softeners']} )?{_LISTS['approvals']}"
_REJECTED = rf"(?:{_NOT_APPROVED}|{_LISTS['rejections']})"
_YOU_SAID = rf"you {_LISTS['you_said']}\b.*?\bbut"
_PAUSE = r"\s*[-,.:;!…—\u2013]+"

_CONTRADICTION = re.compile(
    rf"^\W*{_HESITATION}(?:"
    rf"no\b(?!{_POLITE})"
    rf"|actually(?!{_OWN_REQUEST})"
    rf"|{_LISTS['openings']}"
    rf"|that(?:['’]s| is| was)(?:n['’]t| not)? {_LISTS['judgements']}"
    rf"|{_YOU_SAID}"
    rf"|your [\w-]+ {_LISTS['your_source_says']}"
    r")\b",
    re.IGNORECASE,
)
_VERDICT = re.compile(
    rf"\W*{_HESITATION}(?:"
    # "That's not right, ...", "Wrong because ..."
    rf"(?:(?:that|this|it)(?:['’]s| is| was) {_REJECTED}"
    rf"|you(?:['’]re| are) wrong|{_REJECTED}|correction)"
    rf"(?:{_PAUSE}|,? {_LISTS['conjunctions']}\b)"
    # "No, ..." and "No the office ..."; "No, only lamps" and "No dogs" keep the "no".
    rf"|no(?:pe)?(?:{_PAUSE}(?!\s*{_LISTS['restrictions']}\b)|\s+(?={_LISTS['subjects']}\b))"
    r"|actually\b"
    rf"|{_YOU_SAID}\b"
    # "It should be ...", "The right answer must have been ..."
    rf"|(?:{_LISTS['corrected']}|the (?:{_LISTS['answer_qualities']} )?{_LISTS['answer_words']})"
    rf" {_LISTS['obligations']} {_LISTS['corrected_to']}(?: that| to)?\b"
    r")\W*",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w")


def contradicts(text: str) -> bool:
    """Return whether a user's turn says that the previous answer was wrong."""
    return _CONTRADICTION.match(text) is not None


def strip_verdict(text: str) -> str:
    """Return the text without its opening verdict ("No, that's wrong."), unless that is all."""
    start = 0
    while (verdict := _VERDICT.match(text, start)) and _WORD.search(text, verdict.end()):
        start = verdict.end()
    return text[start:]
