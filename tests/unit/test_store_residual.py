"""What is left of a system prompt: the operator's own words and lines, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.residual import residual_text, residual_tokens

PROMPT = """\
# Lamps

- They have a warranty of 6 years.
- They can be returned. Within 45 days.

# Rooms

Room 5 is open.


Room 6 is closed."""

texts = st.text(st.sampled_from("ab. #-\n\t\r\u2028"), max_size=60)
bounds = st.integers(-5, 70)
segments = st.tuples(bounds, bounds, st.integers(0, 9)).map(list)


def segment(words: str, tokens: int = 1, text: str = PROMPT) -> list[int]:
    start = text.index(words)
    return [start, start + len(words), tokens]


def residual(*kept: str) -> str:
    return residual_text(PROMPT, [segment(words) for words in kept])


@st.composite
def prompts_and_kept_words(draw: st.DrawFn) -> tuple[str, list[list[int]]]:
    """A text, and segments that begin and end where words do."""
    text = draw(texts)
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    pairs = draw(st.lists(st.tuples(*[st.integers(0, max(len(spans) - 1, 0))] * 2), max_size=6))
    ordered = [sorted(pair) for pair in pairs] if spans else []
    return text, [[spans[first][0], spans[last][1], 1] for first, last in ordered]


def kept_chars(text: str, kept: list[list[int]]) -> str:
    inside = {place for start, end, _ in kept for place in range(max(start, 0), end)}
    return "".join(char for place, char in enumerate(text) if place in inside)


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (["# Rooms", "Room 6 is closed."], "# Rooms\n\nRoom 6 is closed."),
        (
            ["# Lamps", "- They have a warranty of 6 years.", "Room 5 is open."],
            "# Lamps\n\n- They have a warranty of 6 years.\n\nRoom 5 is open.",
        ),
        (["- ", "Within 45 days."], "-\nWithin 45 days."),
        (["They have", "of 6 years."], "They have of 6 years."),
        (["Room 5 is open.\n\n\nRoom 6 is closed."], "Room 5 is open.\n\nRoom 6 is closed."),
        (
            ["- They have a warranty of 6 years.", "- They can be returned."],
            "- They have a warranty of 6 years.\n- They can be returned.",
        ),
    ],
)
def test_each_kept_line_stands_beneath_its_kept_heading(kept: list[str], left: str) -> None:
    assert residual(*kept) == left


def test_a_kept_line_keeps_its_indentation() -> None:
    text = "Rooms:\n  - big\n    - Room 5\n  - small"
    kept = [segment(words, text=text) for words in ("Rooms:", "- Room 5")]
    assert residual_text(text, kept) == "Rooms:\n    - Room 5"


@given(texts, st.lists(segments, max_size=8))
def test_exactly_the_kept_characters_are_left_in_their_order(
    text: str, kept: list[list[int]]
) -> None:
    left = residual_text(text, kept)
    assert "".join(left.split()) == "".join(kept_chars(text, kept).split())


@given(prompts_and_kept_words())
def test_exactly_the_kept_words_are_left_and_no_word_is_cut_or_joined(
    made: tuple[str, list[list[int]]],
) -> None:
    text, kept = made
    words = [
        match.group()
        for match in re.finditer(r"\S+", text)
        if any(start <= match.start() < end for start, end, _ in kept)
    ]
    assert residual_text(text, kept).split() == words


@given(texts, st.lists(segments, max_size=8))
def test_each_kept_line_is_a_line_of_its_own(text: str, kept: list[list[int]]) -> None:
    position, expected = 0, []
    for line in text.splitlines(keepends=True):
        inside = [[start - position, end - position, 1] for start, end, _ in kept]
        words = "".join(kept_chars(line, inside).split())
        expected += [words] if words else []
        position += len(line)
    left = residual_text(text, kept)
    lines = ["".join(line.split()) for line in left.splitlines()]
    assert list(filter(None, lines)) == expected


@given(texts, st.lists(segments, max_size=8))
def test_the_rest_has_no_blank_lines_at_its_ends_and_no_two_in_a_row(
    text: str, kept: list[list[int]]
) -> None:
    left = residual_text(text, kept)
    if left not in ("", text):
        assert left.strip("\n") == left
        assert "\n\n\n" not in left


@given(texts, st.lists(segments, max_size=6), st.lists(segments, max_size=3))
def test_more_segments_leave_all_that_fewer_leave(
    text: str, kept: list[list[int]], more: list[list[int]]
) -> None:
    less, most = ("".join(residual_text(text, which).split()) for which in (kept, [*kept, *more]))
    remaining = iter(most)
    assert all(char in remaining for char in less)


@given(texts, st.randoms(use_true_random=False))
def test_a_prompt_is_unchanged_if_every_word_is_kept(text: str, random) -> None:  # type: ignore[no-untyped-def]
    kept = [[*match.span(), 1] for match in re.finditer(r"\S+", text)]
    random.shuffle(kept)
    assert residual_text(text, kept) == (text if kept else "")


@given(texts)
def test_segments_outside_the_text_and_empty_ones_keep_nothing(text: str) -> None:
    beyond = [[len(text), len(text) + 5, 3], [-4, 0, 2], [3, 3, 1], [5, 2, 1]]
    assert residual_text(text, beyond) == ""
    assert residual_tokens(text, beyond) == 0


@given(texts, st.lists(segments, max_size=6), st.randoms(use_true_random=False))
def test_order_and_duplicates_of_segments_do_not_matter(text: str, kept, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = [*kept, *kept]
    random.shuffle(shuffled)
    assert residual_text(text, shuffled) == residual_text(text, kept)


@given(texts, st.lists(segments, max_size=8))
def test_no_kept_character_is_left_out_of_the_tokens(text: str, kept: list[list[int]]) -> None:
    kept = [[max(start, 0), min(end, len(text)), 0] for start, end, _ in kept]
    sized = [[start, end, max(end - start, 0)] for start, end, _ in kept]
    assert residual_tokens(text, sized) >= len(kept_chars(text, kept))


def test_the_tokens_of_a_segment_inside_another_are_not_counted_again() -> None:
    heading, first = segment("# Rooms", 2), segment("Room 5 is open.", 5)
    inside, second = segment("5 is", 2), segment("Room 6 is closed.", 5)
    kept = [inside, first, heading, second, heading]
    assert residual_tokens(PROMPT, kept) == 12
    assert residual_tokens(PROMPT, []) == 0
