"""How people contradict ("No, that is wrong. It opens at 7."): whether they do, and what they say.

By the wording alone, and in English: in other languages a demonstration or `byheart lessons add`
corrects, or a capable model reads the conversation (`learning.extractor = "structured"`).
"""

import re

_POLITE = (
    r"\W*(thanks|thank you|problem|worries|need|hurry|rush|(more|further|other) questions?"
    r"|questions?|that['’]?s (all|it|fine)|i['’]m (fine|good))\b"
)
_OWN = r"\W*(my|i|can|could|would|will|what|when|where|how|never mind|let['’]?s?)\b"
"""After "no" or "actually": what speaks of the speaker, not of the answer."""
_HESITATION = r"((hm+|um+|oh|well|sorry|but|i (think|believe|guess))\b\W*)*"
_SO = r"(not (quite |really )?(right|correct|true)|wrong|incorrect|false)"
_SAID = r"you (said|wrote|told me)\b.*?\bbut"

_CONTRADICTION = re.compile(
    rf"^\W*{_HESITATION}(no\b(?!{_POLITE})|nope|wrong|incorrect|actually(?!{_OWN})|correction"
    r"|that(['’]s| is| was)(n['’]t| not)? (wrong|incorrect|right|correct|true)"
    r"|not (quite|true|right|correct)|you(['’]re| are) wrong|it(['’]s| is) (not|actually)"
    rf"|{_SAID}|your [\w-]+ (says|said|states))\b",
    re.IGNORECASE,
)
_VERDICT = re.compile(
    rf"\W*{_HESITATION}"
    rf"(((that|this|it)(['’]s| is| was) {_SO}|you(['’]re| are) wrong|{_SO}|correction)"
    r"(\s*[-,.:;!…—\u2013]+|,? (because|since|but)\b)"
    # In "No, only lamps" the no is half of what is said, and in "No dogs" all of it.
    r"|no(pe)?(\s*[-,.:;!…—\u2013]+(?!\s*(but|only|just|not|because|unless|until|except)\b)"
    r"|\s+(?=(it|the|we|our|they|he|she|you|your|an?|this|that|these|those|there|i|my)\b))"
    r"|actually\b"
    rf"|{_SAID}\b"
    r"|(it|you|this|that|the (right |correct )?(answer|reply)) (should|must)"
    r" (be|say|have (said|been))( that| to)?\b)\W*",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w")


def contradicts(text: str) -> bool:
    """Whether a user's turn says that the answer before it was wrong."""
    return _CONTRADICTION.match(text) is not None


def strip_verdict(text: str) -> str:
    """The text without the verdict on the answer that it begins with, unless that is all of it."""
    start = 0
    while (verdict := _VERDICT.match(text, start)) and _WORD.search(text, verdict.end()):
        start = verdict.end()
    return text[start:]
