"""What feedback says about an answer."""

from typing import Any

import pytest

from store.models import Feedback
from store.verdicts import correction, is_bad, is_good


def feedback(name: str, value: Any, **texts: str) -> Feedback:
    return Feedback(name=name, value={"value": value} if value is not None else {}, **texts)


@pytest.mark.parametrize(
    ("name", "good", "neutral", "bad"),
    [
        ("thumbs", [True, "up", "Good", 1], [None, "sideways", {}], [False, "down", 0, -1]),
        ("resolved", [True, 1, "yes"], [None], [False, 0, "no"]),
        ("rating", [5, 4, 0.9, True], [3, 0.5, None], [1, 2, 0, 0.2, -1, False, "negative"]),
        ("comment", [], [True, False, 0, "down"], []),
    ],
)
def test_a_rating_is_good_or_bad_or_neither(
    name: str, good: list[Any], neutral: list[Any], bad: list[Any]
) -> None:
    for values, verdict in ((good, (True, False)), (neutral, (False, False)), (bad, (False, True))):
        for value in values:
            given = feedback(name, value)
            assert (is_good(given), is_bad(given)) == verdict, value


def test_a_comment_beside_praise_corrects_nothing_and_a_demonstration_does() -> None:
    assert correction(feedback("thumbs", False, comment=" At 7. ")) == "At 7."
    assert correction(feedback("thumbs", True, comment="At 7.")) == ""
    assert correction(feedback("thumbs", True, comment="Nice.", demonstration="At 7.")) == "At 7."
    assert correction(feedback("thumbs", False)) == ""
