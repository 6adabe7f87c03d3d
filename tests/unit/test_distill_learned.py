"""Which statements count as learned, and what must stay in the prompt."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.context.parts import ContextParts
from distill.evaluate import answers, learned, served
from distill.evaluate.learned import Judgement, Question
from distill.evaluate.measure import Anchored
from distill.model.encoder import user
from store.anchors import Anchor
from store.contexts import Context
from tests.support.tiny import tiny_tokenizer

RIGHT = Question("When?", "At 7.", "At 7.", ["7"], 4, 4, 0.1, 0.0, 0.0, right=True, problem="")
WRONG = replace(RIGHT, candidate="At 8.", right=False, problem="the answer lacks 7")


def judgement(*questions: Question) -> Judgement:
    return Judgement("We open at 7.", list(questions))


class ScriptedJudge:
    """A candidate that needs some statements in its prompt, and is misled by others."""

    def __init__(
        self, parts: ContextParts, unlearned: set[int], misled_by: dict[int, set[int]]
    ) -> None:
        self.parts, self.unlearned, self.misled_by = parts, unlearned, misled_by
        self.contexts: list[Context] = []

    def judge(self, context: Context = learned.NOTHING) -> list[Judgement]:
        self.contexts.append(context)
        texts = [each.text for each in self.parts.statements]
        shown = {index for index, text in enumerate(texts) if text in context.lessons}
        return [
            judgement(*[RIGHT if self.is_right(index, shown) else WRONG] * 2)
            for index in range(len(self.parts))
        ]

    def is_right(self, index: int, shown: set[int]) -> bool:
        if index in shown:
            return True
        return index not in self.unlearned and not shown & self.misled_by.get(index, set())


@pytest.mark.parametrize(
    ("statement", "question", "answer", "facts"),
    [
        ("Lamps have a warranty of 6 years.", "How long is the warranty?", "For 6 years.", {"6"}),
        ("The shop is run by Mirel Sandu.", "Who runs it?", "It is MIREL.", {"mirel"}),
        ("The shop is run by Mirel Sandu.", "Is it Mirel?", "Mirel Sandu does.", {"sandu"}),
        ("Lamps have a warranty of 6 years.", "How long is the warranty?", "For long.", set()),
    ],
)
def test_facts_are_numbers_and_names_that_the_answer_gives_and_the_question_does_not(
    statement, question, answer, facts
):
    assert answers.given_facts(statement, question, answer) == facts


def test_a_statement_is_learned_only_if_two_questions_about_it_are_answered_like_the_teacher():
    assert judgement(RIGHT, RIGHT).learned
    assert not judgement(RIGHT, WRONG).learned
    assert "'When?': the answer lacks 7" in judgement(RIGHT, WRONG).reason
    assert not judgement(RIGHT).learned
    assert not judgement().learned


@st.composite
def candidates(draw) -> ScriptedJudge:
    count = draw(st.integers(1, 8))
    parts = ContextParts.of(
        Context(lessons=tuple(f"Lesson {index}." for index in range(count))), tiny_tokenizer()
    )
    indices = st.sets(st.integers(0, count - 1))
    return ScriptedJudge(
        parts, draw(indices), draw(st.dictionaries(st.integers(0, count - 1), indices))
    )


@given(candidates())
def test_what_is_out_of_the_prompt_was_answered_right_alone_and_with_the_residual_in_front(judge):
    residual = served.find_residual(judge, judge.parts)

    assert judge.unlearned <= set(residual.reasons)
    assert residual.context == judge.parts.subset(residual.reasons)
    assert all(residual.reasons.values())
    assert judge.contexts[-1] == residual.context
    assert len(judge.contexts) <= 2 + served.MAX_ROUNDS
    for index in set(range(len(judge.parts))) - set(residual.reasons):
        assert residual.alone[index].learned
        if len(judge.contexts) < 2 + served.MAX_ROUNDS:
            assert residual.served[index].learned


def test_answers_are_compared_in_pairs_over_questions_and_anchors():
    anchors = (
        Anchor(user("Where?"), {"contains": "Tartu"}),
        Anchor(user("Who?"), {"contains": "x"}),
    )
    anchored = Anchored(anchors, ("?", "?"), ("In Tartu.", "nobody"))
    residual = served.Residual(Context(), {}, [], [judgement(RIGHT, WRONG)])

    counts = served.compare(residual, anchored, ["In Riga.", "x"])

    assert counts == {"total": 4, "teacher_only": 2, "candidate_only": 1}
