"""The composition of batches, and the order of draws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill import mixture
from distill.settings import TrainerSettings


def test_a_run_ends_purely_on_policy():
    settings = TrainerSettings(steps=50, batch_size=8, teacher_share=1.0, on_policy_tail=0.2)

    shares = [mixture.batch_mix(step, settings) for step in range(50)]

    assert all(
        share.teacher_sampled
        + share.on_policy
        + share.teacher_sampled_replay
        + share.on_policy_replay
        == 8
        for share in shares
    )
    assert all(share.on_policy == 0 for share in shares[:30])
    assert all(share.teacher_sampled == share.teacher_sampled_replay == 0 for share in shares[40:])
    falling = [share.teacher_sampled + share.teacher_sampled_replay for share in shares[30:40]]
    assert sum(falling[:5]) > sum(falling[5:])


@given(steps=st.integers(1, 300), tail=st.floats(0.001, 0.5), batch=st.integers(1, 32))
def test_the_last_step_of_a_run_of_any_length_is_purely_on_policy(steps, tail, batch):
    settings = TrainerSettings(steps=steps, batch_size=batch, on_policy_tail=tail)

    share = mixture.batch_mix(steps - 1, settings)

    assert share.teacher_sampled == share.teacher_sampled_replay == 0


@pytest.mark.parametrize("teacher_share", [0.1, 0.25, 0.5])
def test_a_small_teacher_share_is_reached_over_the_run(teacher_share):
    settings = TrainerSettings(
        steps=100, teacher_share=teacher_share, replay_share=0.25, on_policy_tail=0.0
    )

    shares = [mixture.batch_mix(step, settings) for step in range(100)]

    assert sum(share.teacher_sampled for share in shares) == pytest.approx(
        300 * teacher_share, abs=3
    )
    assert sum(share.teacher_sampled_replay for share in shares) == pytest.approx(
        100 * teacher_share, abs=3
    )


def test_every_item_is_drawn_once_before_any_repeats():
    drawn = [index for step in range(5) for index in mixture.draw_indices(4, 4 * step, 10, "7")]

    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]


def test_zero_draws_from_an_empty_source_return_nothing():
    assert mixture.draw_indices(0, 0, 0, "7") == []


def test_a_share_below_one_trajectory_a_step_is_reached_over_several_steps():
    settings = TrainerSettings(steps=50, batch_size=4, replay_share=0.125, on_policy_tail=0.0)

    shares = [mixture.batch_mix(step, settings) for step in range(16)]

    assert sum(share.teacher_sampled_replay for share in shares) == 8
    assert {share.teacher_sampled_replay for share in shares} == {0, 1}


@given(
    steps=st.integers(1, 60),
    batch=st.integers(1, 9),
    share=st.floats(0, 1),
    size=st.integers(1, 30),
)
def test_a_run_draws_every_item_equally_often(steps, batch, share, size):
    settings = TrainerSettings(steps=steps, batch_size=batch, teacher_share=share)

    drawn = [
        each
        for n in range(steps)
        for each in mixture.draw_items(settings, "teacher_sampled", range(size), n)
    ]

    counts = [drawn.count(each) for each in range(size)]
    assert max(counts) - min(counts) <= 1
