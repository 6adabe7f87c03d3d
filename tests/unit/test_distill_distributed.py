"""An error of one process reaches all others with its message."""

import pytest

from distill.evaluate.preflight import NothingToLearn
from distill.model.distributed import picklable
from store.schema import IllegalTransition


def test_a_picklable_error_is_sent_unchanged():
    error = NothingToLearn("The context is empty.")

    assert picklable(error) is error


def unpackable() -> Exception:
    class Local(Exception):
        pass

    return Local("Nobody can name this class.")


@pytest.mark.parametrize("error", [unpackable(), IllegalTransition("run_1", "failed", "running")])
def test_an_unpicklable_error_is_sent_as_its_name_and_message(error):
    told = picklable(error)

    assert type(error).__name__ in str(told)
    assert str(error) in str(told)
