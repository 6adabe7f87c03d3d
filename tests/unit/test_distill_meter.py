"""Speed and memory of a run, as its row shows them."""

from distill.progress import Meter, peak_memory


def test_tokens_a_second_are_those_of_all_steps_so_far():
    clock = iter([10.0, 12.0, 15.0])
    meter = Meter(lambda: next(clock))

    assert meter.count(100)["tokens_per_s"] == 50
    assert meter.count(100)["tokens_per_s"] == 40


def test_the_peak_never_falls():
    before = peak_memory()
    ballast = bytearray(50 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])

    during = peak_memory()
    del ballast

    assert 0 < before <= during <= peak_memory()
