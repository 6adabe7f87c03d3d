"""What one of several processes finds wrong reaches all of them in words that tell it."""

import pytest

from distill.evaluate.preflight import NothingToLearn
from distill.model.distributed import picklable
from store.schema import IllegalTransition


def test_an_error_that_can_be_packed_stays_what_it_is():
    error = NothingToLearn("The context is empty.")

    assert picklable(error) is error


def unpackable() -> Exception:
    class Local(Exception):
        pass

    return Local("Nobody can name this class.")


@pytest.mark.parametrize("error", [unpackable(), IllegalTransition("run_1", "failed", "running")])
def test_one_that_cannot_be_packed_or_unpacked_is_told_in_its_words(error):
    told = picklable(error)

    assert type(error).__name__ in str(told)
    assert str(error) in str(told)
