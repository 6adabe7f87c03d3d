"""Packed rows, cached prefixes and sampling give what each sequence would give alone."""

import pytest
import torch

from distill import packing
from distill.sampler import SEQUENCES_AT_ONCE, LocalSampler, rows
from tests.tiny import tiny_model

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


def test_packed_states_are_those_of_each_sequence_alone(model):
    expected = torch.cat([alone(model, *sequence) for sequence in SEQUENCES])

    with torch.no_grad():
        packed = packing.completion_states(model, SEQUENCES, PREFIX)

    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-5)


def test_a_cached_prefix_changes_nothing_and_stays_as_it_was(model):
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
def test_common_prefix_leaves_every_prompt_a_token(prompts, expected):
    assert packing.common_prefix(prompts) == expected


def test_passes_cover_everything_in_order(model):
    many = [((1,) * 100, (2,) * 20)] * 7

    runs = packing.passes(many, 0, model.device)

    assert [index for run in runs for index in range(run.start, run.stop)] == list(range(7))
    assert len(runs) == 4


def greedy_alone(model, prompt, tokens, stop):
    ids = list(prompt)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in stop:
            break
    return tuple(ids[len(prompt) :])


def test_greedy_samples_are_those_of_a_plain_loop(model):
    prompts = [prompt for prompt, _ in SEQUENCES]
    stop = frozenset({greedy_alone(model, prompts[0], 4, frozenset())[2]})
    sampler = LocalSampler(model, stop, 12, torch.Generator())

    sampled = sampler.sample(prompts, temperature=0)

    assert sampled == [greedy_alone(model, prompt, 12, stop) for prompt in prompts]
    assert len(sampled[0]) <= 3


def test_the_same_generator_state_samples_the_same(model):
    prompts = [prompt for prompt, _ in SEQUENCES]

    one, other = (
        LocalSampler(model, frozenset({2}), 8, torch.Generator().manual_seed(3)).sample(prompts, 1)
        for _ in range(2)
    )

    assert one == other


@pytest.mark.parametrize(("length", "expected"), [(10, [24, 24, 2]), (1000, [2] * 25)])
def test_long_prompts_are_decoded_in_smaller_groups(length, expected):
    prompts = [(1, number, *range(length)) for number in range(2 * SEQUENCES_AT_ONCE + 2)]

    parts = rows(prompts)

    assert [len(part) for part in parts] == expected
    assert [prompt for part in parts for prompt in part] == prompts
