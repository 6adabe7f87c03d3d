"""When two statements are similar: clauses may change places, words may not."""

from hypothesis import given
from hypothesis import strategies as st

from store.text.similarity import statement_similarity
from tests.support.cpu_time import max_cpu_s

words = st.lists(st.sampled_from(["refund", "open", "9", "plan", "$"]), min_size=1, max_size=4)


@given(st.lists(words, min_size=1, max_size=4), st.data())
def test_statements_with_rotated_clauses_are_similar(
    clauses: list[list[str]], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(clauses) - 1))
    one, other = (
        ", ".join(" ".join(clause) for clause in order)
        for order in (clauses, clauses[place:] + clauses[:place])
    )
    assert statement_similarity(one, other) > 0
    assert statement_similarity(other, one) > 0


def test_statements_with_words_in_another_order_are_not_similar() -> None:
    assert statement_similarity("Plan A costs 9, plan B 10.", "Plan B costs 9, plan A 10.") == 0
    assert statement_similarity("Lions chase dogs.", "Dogs chase lions.") == 0
    assert statement_similarity("Open at 9, closed at 5.", "Open at 9, closed at 5, 5.") == 0


def test_a_statement_of_many_clauses_is_compared_within_a_second() -> None:
    with max_cpu_s(1):
        for last in ("y, z", "z, y"):
            statement_similarity("x, " * 2000 + "y, z", "x, " * 2000 + last)
