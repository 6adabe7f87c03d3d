"""Numbers are equal by value, however they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.text.quantities import possible_quantities, quantities


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,500 euros", {"1500"}),
        ("1.500 euros", {"1500"}),
        ("2.50 euros", {"2.50"}),
        ("0.500 kg", {"0.500"}),
        ("from 09:00 to 17:30", {"9", "17.30"}),
        ("at 7.15 or 7:15", {"7.15"}),
        ("forty-five days", {"45"}),
        ("forty five days", {"45"}),
        ("two hundred six", {"206"}),
        ("a hundred lamps, nineteen chairs", {"100", "19"}),
        ("three thousand", {"3000"}),
        ("five six", {"5", "6"}),
        ("٤٥ يوم", {"45"}),
        ("one of them, 三", set()),
        ("none", set()),
    ],
)
def test_a_number_counts_by_its_value(text: str, values: set[str]) -> None:
    assert quantities(text) == values


def test_what_may_be_a_number_is_told_apart() -> None:
    assert possible_quantities("one day, 三天, 4 weeks, half ½") == {"1", "3", "4"}


@given(st.integers(0, 10**60), st.sampled_from(["{}", "{:,}", "00{}", "{}.00", "{}:00"]))
def test_a_whole_number_is_the_same_in_every_form(value: int, form: str) -> None:
    assert quantities(form.format(value)) == {str(value)}


@given(st.text())
def test_every_text_has_its_sure_numbers_among_the_possible_ones(text: str) -> None:
    assert quantities(text) <= possible_quantities(text)
