"""What an adapter has learned is left out of its prompts, statement by statement."""

from typing import Any

from store import statements
from store.db import Database
from tests.support.factories import add_adapter

NORWAY, HOURS, BRIEF = "Ship to Norway only.", "Open until 5.", "Be brief."


def lesson(text: str, learned: bool = True) -> dict[str, Any]:
    return {"text": text, "lesson": True, "spans": [], "support": [], "learned": learned}


def part(text: str, *spans: list[int], learned: bool = True, support: Any = ()) -> dict[str, Any]:
    """A statement of a system prompt."""
    return lesson(text, learned) | {"lesson": False, "spans": spans, "support": list(support)}


def test_an_adapter_has_internalised_the_lessons_that_it_has_learned(shop: Database) -> None:
    with shop.begin() as session:
        measured = [part(BRIEF, [0, 9, 2]), lesson(NORWAY), lesson(HOURS, learned=False)]
        adapter = add_adapter(session, statements=measured)
        assert [row.text for row in statements.of(session, adapter)] == [BRIEF, NORWAY, HOURS]
        assert statements.internalised(session, adapter) == {NORWAY}
        assert statements.internalised(session, None) == frozenset()


def test_an_adapter_without_a_list_of_statements_has_internalised_nothing(shop: Database) -> None:
    with shop.begin() as session:
        adapter = add_adapter(session, statements=[])
        assert statements.internalised(session, adapter) == frozenset()
        assert statements.residual_segments(session, adapter) is None


def test_of_a_lesson_that_is_listed_twice_both_must_be_learned(shop: Database) -> None:
    with shop.begin() as session:
        measured = [lesson(NORWAY), lesson(NORWAY, learned=False), part(HOURS, learned=False)]
        adapter = add_adapter(session, statements=[*measured, lesson(HOURS)])
        assert statements.internalised(session, adapter) == {HOURS}


def test_of_a_system_prompt_stays_what_is_not_learned_with_what_it_needs(shop: Database) -> None:
    heading, first, second = [0, 7, 2], [8, 20, 4], [21, 30, 3]
    with shop.begin() as session:
        learned = part(NORWAY, first, support=[heading])
        missed = part(HOURS, second, learned=False, support=[heading])
        some = add_adapter(session, statements=[learned, missed, lesson("Be kind.", False)])
        assert statements.residual_segments(session, some) == [second, heading]
        all_of_it = add_adapter(session, statements=[learned])
        assert statements.residual_segments(session, all_of_it) == []


def test_a_statement_whose_place_is_unknown_keeps_the_whole_prompt(shop: Database) -> None:
    with shop.begin() as session:
        measured = [part(NORWAY, [0, 9, 2], learned=False), part(HOURS, learned=False)]
        adapter = add_adapter(session, statements=measured)
        assert statements.residual_segments(session, adapter) is None
        learned = [part(NORWAY, [0, 9, 2], learned=False), part(HOURS)]
        adapter = add_adapter(session, statements=learned)
        assert statements.residual_segments(session, adapter) == [[0, 9, 2]]
