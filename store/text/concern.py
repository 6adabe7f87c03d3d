"""Which statements feedback on an answer concerns: those that the answer should have known. Pure.

Decided as duplicates are: numbers and negation first, never by the subject alone. A correction
concerns a statement that says the same, or that has what the correction says and the answer does
not: its numbers, otherwise its names, otherwise its words (terms.py). A correction with a number
that no statement has is news, and concerns none. A bad rating concerns the statement that was asked
for, or that the answer contradicts.

In doubt, it concerns several: a statement in the prompt that is known costs tokens, a lost one
costs a wrong answer. Not covered: a correction that only makes sense with earlier turns, and what
quantities.py and terms.py list.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from store.text import terms
from store.text.quantities import quantities
from store.text.similarity import is_near_duplicate, statement_similarity
from store.text.terms import (
    NUMBERS,
    WORDS,
    Kind,
    Terms,
    measured_words,
    names,
    plain_words,
    word_forms,
)
from store.text.words import sentences

MAX_CHARS = 2000
"""Of each text that is read: longer corrections do not correct one statement."""
MIN_MENTIONED = 0.5
"""More than this share of a statement's words must be mentioned if no number or name tells it from
others."""
MIN_REPEATED, MIN_WORDS_REPEATED = 0.6, 2
"""Share and number of a statement's words, at least, in an exchange that contradicts it."""


@dataclass(frozen=True)
class Exchange:
    """A question and its answer."""

    question: str
    answer: str

    @classmethod
    def of(cls, question: str, answer: str) -> "Exchange":
        """Return them without what lies beyond `MAX_CHARS`."""
        return cls(question[-MAX_CHARS:], answer[:MAX_CHARS])


def corrected(statements: Collection[str], exchange: Exchange, correction: str) -> frozenset[str]:
    """Return the statements that a correction of an answer concerns.

    Args:
        statements: All that the answer could rest on. The best matches among them are returned.
        exchange: The answer, and the question of the last turn.
        correction: A demonstration of the right answer, or a comment.
    """
    text = correction[:MAX_CHARS]
    if statement_similarity(exchange.answer, text) > 0:
        return frozenset()
    kinds = (NUMBERS, terms.names_known_to(statements), WORDS)
    search = _Search(statements, exchange, text, kinds)
    # A demonstration that depends on its question becomes a lesson of this form.
    whole = search.same([text, f'When asked "{exchange.question}": {text}'])
    return whole or frozenset[str]().union(*map(search.sentence, sentences(text)))


def has_terms(correction: str) -> bool:
    """Return whether a correction says what would be right, as far as numbers and names show."""
    return bool(quantities(correction) or names(correction))


@dataclass(frozen=True)
class _Search:
    """Looks for the statements that the sentences of one correction concern."""

    statements: Collection[str]
    exchange: Exchange
    correction: str
    kinds: Sequence[Kind]

    def sentence(self, sentence: str) -> frozenset[str]:
        """Return the statements that a sentence of the correction concerns."""
        clauses = terms.clauses(sentence)
        return (
            self.same([sentence, *clauses])
            or self._best(sentence)
            or frozenset[str]().union(*map(self._best, clauses))
        )

    def same(self, parts: Sequence[str]) -> frozenset[str]:
        """Return the statements that say the same as one of the parts."""
        words = set(map(plain_words, parts))
        alike = (each for each in self.statements if plain_words(each) in words)
        return frozenset(
            each for each in alike if any(statement_similarity(part, each) > 0 for part in parts)
        )

    def _best(self, part: str) -> frozenset[str]:
        """Return the statements that have what a part of the correction says."""
        kind, new = self._news(part)
        if kind is WORDS and terms.clauses(part) != (part,):
            return frozenset()  # too many words for one statement: its clauses are tried next
        says = terms.says_no(part, new, kind, opens=True)
        having = [
            each
            for each in self.statements
            if new and kind.has(each, new) and terms.says_no(each, new, kind) & says
        ]
        having = [each for each in having if self._fits(each, part)]
        if kind is WORDS:
            having = [each for each in having if self._is_mentioned(each)]
        mentioned = f"{self.exchange.question}\n{self.correction}"
        # Several words name the subject themselves; a number, a name or one word needs another.
        tell = new if kind is not WORDS or len(new) == 1 else frozenset()
        return (
            _most_shared(having, tell, mentioned)
            or _most_shared(having, tell, self.exchange.answer)
            or self._only_one(having, kind)
        )

    def _only_one(self, having: Sequence[str], kind: Kind) -> frozenset[str]:
        """Return the only statement with a name, or with a number and its unit.

        It is meant if the question is in words that no statement has: "No, 12 days".
        """
        said, asked = plain_words(self.correction), plain_words(self.exchange.question)
        found = [each for each in having if kind is not NUMBERS or measured_words(each) & said]
        is_it = len(found) == 1 and kind is not WORDS
        if is_it and not any(terms.shared(_subject(each), asked) for each in self.statements):
            return frozenset(found)
        return frozenset()

    def _news(self, part: str) -> tuple[Kind, Terms]:
        """Return what a part of the correction says and the answer does not."""
        for kind in self.kinds:
            stated = kind.stated(part)
            new = stated - kind.held(self.exchange.answer)
            new = new - kind.held(self.exchange.question) or new
            if stated and not new and self._denies(part, stated, kind):
                new = stated
            if new:
                return kind, new
        return WORDS, frozenset()

    def _denies(self, part: str, stated: Terms, kind: Kind) -> bool:
        """Return whether the answer has the same terms and says the opposite."""
        answered = terms.says_no(self.exchange.answer, stated, kind, opens=True)
        return not terms.says_no(part, stated, kind, opens=True) & answered

    def _fits(self, statement: str, part: str) -> bool:
        """Return whether no number or name shows that a statement is about something else.

        It has all those of the correction, or none that nobody has said: "Room 5 opens at 8" does
        not concern "Room 6 opens at 8". And a question about Denmark does not concern Norway.
        """
        numbers, named, _ = self.kinds
        said = f"{self.exchange.question}\n{self.exchange.answer}\n{self.correction}"
        own, asked = named.stated(statement), named.stated(self.exchange.question)
        is_of_other = own and not own & named.held(said) and not named.has(statement, asked)
        return not is_of_other and all(
            kind.has(statement, kind.stated(part)) or kind.stated(statement) <= kind.held(said)
            for kind in (numbers, named)
        )

    def _is_mentioned(self, statement: str) -> bool:
        words = plain_words(statement)
        mentioned = plain_words(self.exchange.question) | plain_words(self.correction)
        return len(terms.shared(words, mentioned)) > MIN_MENTIONED * len(words)


def _most_shared(statements: Iterable[str], new: Terms, text: str) -> frozenset[str]:
    """Return the statements that share most words with a text; they must share their subject."""
    said, counted = plain_words(text), quantities(text)
    scores: dict[str, int] = {}
    for each in statements:
        words = plain_words(each) - new - plain_words(" ".join(new))
        if terms.shared(_subject(each) & words or words, said):
            scores[each] = len(terms.shared(words, said)) + len(quantities(each) & counted)
    best = max(scores.values(), default=0)
    return frozenset(each for each, score in scores.items() if score == best)


def _subject(statement: str) -> Terms:
    """Return the words of a statement other than the units of its numbers."""
    words = plain_words(statement)
    return words - measured_words(statement) or words


def contradicted(asked_for: Mapping[str, Sequence[str]], exchange: Exchange) -> frozenset[str]:
    """Return the statements that a badly rated answer should have given.

    Args:
        asked_for: Statements, each with known questions about it.
        exchange: The answer, and the question of the last turn.
    """
    missing = [each for each in asked_for if not _is_given(each, exchange)]
    asked = [each for each in missing if is_near_duplicate(exchange.question, asked_for[each])]
    if asked:
        return frozenset(asked)
    scores = {each: _repeated(each, exchange) for each in missing}
    best = max(scores.values(), default=0.0)
    return frozenset(each for each, score in scores.items() if score == best and score > 0)


def _telling(statement: str, question: str) -> tuple[Kind, Terms]:
    """Return what an answer to the question must have in order to give the statement."""
    if numbers := quantities(statement):
        return NUMBERS, numbers
    if named := names(statement) - word_forms(question):
        return terms.names_known_to([statement]), named
    return WORDS, plain_words(statement) - plain_words(question)


def _is_given(statement: str, exchange: Exchange) -> bool:
    kind, telling = _telling(statement, exchange.question)
    answered = terms.says_no(exchange.answer, telling, kind, opens=True)
    return kind.has(exchange.answer, telling) and bool(
        terms.says_no(statement, telling, kind) & answered
    )


def _repeated(statement: str, exchange: Exchange) -> float:
    """Return how much of a statement a contradicting answer repeats; 0 if it does not contradict.

    It contradicts the statement if it has other numbers or names, or says the opposite.
    """
    kind, telling = _telling(statement, exchange.question)
    others = kind.stated(exchange.answer) - telling - kind.held(exchange.question)
    if not kind.has(exchange.answer, telling) and (kind is WORDS or not others):
        return 0.0
    said = plain_words(exchange.question) | plain_words(exchange.answer)
    named = plain_words(" ".join(names(statement)))
    words = plain_words(statement) - plain_words(" ".join(telling))
    words -= named if kind is not WORDS else frozenset()
    repeated = len(terms.shared(words, said))
    if repeated < MIN_WORDS_REPEATED or repeated < MIN_REPEATED * len(words):
        return 0.0
    return repeated / len(words) + len(named & said)
