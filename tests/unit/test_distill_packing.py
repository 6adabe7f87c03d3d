"""Packed rows and cached prefixes give the states that each sequence has alone."""

import pytest
import torch

from distill.model import packing
from tests.support.tiny import tiny_model

PREFIX = (1, 40, 41, 42, 43)
SEQUENCES = [
    ((*PREFIX, 50, 51), (60, 61, 62, 2)),
    ((*PREFIX, 52), (63, 2)),
    ((*PREFIX, 53, 54, 55, 56), (64, 65, 66)),
]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def alone(model, prompt, completion):
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        states = model.base_model(input_ids=ids).last_hidden_state[0]
    return states[len(prompt) - 1 : len(prompt) + len(completion) - 1]


def test_packed_states_equal_those_of_each_sequence_alone(model):
    expected = torch.cat([alone(model, *sequence) for sequence in SEQUENCES])

    with torch.no_grad():
        packed = packing.completion_states(model, SEQUENCES, PREFIX)

    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-5)


def test_a_cached_prefix_changes_no_states_and_is_left_unchanged(model):
    with torch.no_grad():
        uncached = packing.completion_states(model, SEQUENCES, PREFIX)
        cache = packing.prefix_cache(model, PREFIX)
        first = packing.completion_states(model, SEQUENCES, PREFIX, cache)
        again = packing.completion_states(model, SEQUENCES, PREFIX, cache)

    torch.testing.assert_close(first, uncached, rtol=1e-4, atol=1e-5)
    assert torch.equal(first, again)
    assert cache.get_seq_length() == len(PREFIX)


def test_gradients_flow_through_the_shared_prefix():
    model = tiny_model().requires_grad_(True)

    packing.completion_states(model, SEQUENCES, PREFIX).sum().backward()
    shared = model.get_input_embeddings().weight.grad[40].clone()
    model.zero_grad()
    for prompt, completion in SEQUENCES:
        packing.completion_states(model, [(prompt, completion)], ()).sum().backward()

    torch.testing.assert_close(
        shared, model.get_input_embeddings().weight.grad[40], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([(1, 2, 3), (1, 2, 4)], (1, 2)),
        ([(1, 2, 3), (1, 2, 3)], (1, 2)),
        ([(1, 2), (1, 2, 3)], (1,)),
        ([(1,), (2, 3)], ()),
        ([(5, 6, 7)], (5, 6)),
    ],
)
def test_the_common_prefix_leaves_at_least_one_token_of_every_prompt(prompts, expected):
    assert packing.common_prefix(prompts) == expected


def test_microbatches_cover_all_sequences_in_order(model):
    many = [((1,) * 100, (2,) * 20)] * 7

    runs = packing.microbatches(many, 0, model.device)

    assert [index for run in runs for index in range(run.start, run.stop)] == list(range(7))
    assert len(runs) == 4
