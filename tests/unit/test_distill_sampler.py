"""Each sequence of a batch gets the completion that it would get alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.model import decoding, packing
from distill.model.decoding import SharedPrefix
from distill.model.sampler import (
    MAX_BATCH_SEQUENCES,
    MAX_BATCH_TOKENS,
    LocalSampler,
    decode_batches,
)
from tests.support.devices import EVERY_DEVICE
from tests.support.tiny import tiny_model
from tests.unit.test_distill_packing import SEQUENCES


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def greedy_alone(model, prompt, tokens, stop):
    ids = list(prompt)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in stop:
            break
    return tuple(ids[len(prompt) :])


def assert_greedy(model, prompt, completion, tokens, stop):
    """Each token is the likeliest one, or as likely up to rounding, when the prompt is alone."""
    ids = [*prompt, *completion]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(completion)[:, None])[:, 0]
    torch.testing.assert_close(chosen, logits.max(-1).values, rtol=0, atol=1e-4)
    assert not stop.intersection(completion[:-1])
    assert completion[-1] in stop or len(completion) == tokens


@EVERY_DEVICE
def test_greedy_samples_equal_those_of_a_plain_loop(model, device):
    prompts = [prompt for prompt, _ in SEQUENCES]
    stop = frozenset({greedy_alone(model, prompts[0], 4, frozenset())[2]})
    sampler = LocalSampler(tiny_model().to(device), stop, 12, torch.Generator())

    sampled = sampler.sample(prompts, temperature=0)

    assert sampled == [greedy_alone(model, prompt, 12, stop) for prompt in prompts]
    assert len(sampled[0]) <= 3


def test_greedy_decoding_does_not_advance_the_random_generator(model):
    prompts = [prompt for prompt, _ in SEQUENCES]
    one, other = (
        LocalSampler(model, frozenset({2}), 8, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    one.sample(prompts, temperature=0)

    assert one.sample(prompts, 1) == other.sample(prompts, 1)


def test_the_same_generator_state_gives_the_same_samples(model):
    prompts = [prompt for prompt, _ in SEQUENCES]

    one, other = (
        LocalSampler(model, frozenset({2}), 8, torch.Generator().manual_seed(3)).sample(prompts, 1)
        for _ in range(2)
    )

    assert one == other


@given(
    shared=st.lists(st.integers(3, 90), max_size=20),
    own=st.lists(st.lists(st.integers(3, 90), min_size=1, max_size=12), min_size=1, max_size=9),
)
def test_prompts_of_any_lengths_and_prefix_are_answered_as_alone(model, shared, own):
    prompts = [(*shared, *each) for each in own]
    stop = frozenset(range(0, 100, 7))
    sampler = LocalSampler(model, stop, 5, torch.Generator())

    sampled = sampler.sample(prompts, temperature=0)

    for prompt, completion in zip(prompts, sampled, strict=True):
        assert_greedy(model, prompt, completion, 5, stop)


@pytest.mark.parametrize("products", [1, 60, 150])
def test_prompts_too_long_for_one_prefill_are_prefilled_in_chunks(model, monkeypatch, products):
    monkeypatch.setattr(decoding, "MAX_PREFILL_SCORES", products)
    prompts = [(5, 9, *range(10, 10 + length)) for length in (3, 11, 20)]
    sampler = LocalSampler(model, frozenset({2}), 6, torch.Generator())

    sampled = sampler.sample(prompts, temperature=0)

    for prompt, completion in zip(prompts, sampled, strict=True):
        assert_greedy(model, prompt, completion, 6, frozenset({2}))


def test_a_seeded_completion_does_not_depend_on_the_rest_of_its_batch(model):
    prompts = [(5, 9, *range(10, 10 + length)) for length in range(1, 9)]
    sampler = LocalSampler(model, frozenset({2}), 8, torch.Generator())

    together = sampler.sample(prompts, 1.0, seeds=range(8))

    alone = [sampler.sample([prompt], 1.0, [seed])[0] for seed, prompt in enumerate(prompts)]
    assert together == alone


@given(st.lists(st.integers(6, 40_000), max_size=200), st.integers(0, 600))
def test_decode_batches_hold_every_prompt_once_and_stay_within_the_limits(lengths, room):
    prompts = [(1,) * length for length in lengths]

    parts = decode_batches(prompts, prefix=5, max_new_tokens=room)

    assert sorted(number for part in parts for number in part) == list(range(len(prompts)))
    assert all(len(part) <= MAX_BATCH_SEQUENCES for part in parts)
    padded = [len(part) * (max(lengths[n] for n in part) - 5 + room) for part in parts]
    assert all(
        tokens <= MAX_BATCH_TOKENS or len(part) == 1
        for tokens, part in zip(padded, parts, strict=True)
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_tokens_are_drawn_with_the_models_probabilities(model, temperature):
    prompt, draws = (5, 9, 12, 40), 6000
    sampler = LocalSampler(model, frozenset(), 1, torch.Generator().manual_seed(11))

    drawn = [ids[0] for ids in sampler.sample([prompt] * draws, temperature)]

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    likely = (logits / temperature).softmax(-1)
    counts = torch.bincount(torch.tensor(drawn), minlength=len(likely))
    # Rare tokens together, for a chi-square of expected counts of at least five.
    often = likely * draws >= 5
    expected = torch.cat([likely[often] * draws, (likely[~often].sum() * draws)[None]])
    found = torch.cat([counts[often], counts[~often].sum()[None]])
    statistic = float(((found - expected) ** 2 / expected.clamp(min=1e-9)).sum())
    freedom = len(expected) - 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


def test_a_cached_prefix_gives_the_same_completions(model):
    prefix, prompts = (5, 9, 7), [(5, 9, 7, 30, 31), (5, 9, 7, 40)]
    sampler = LocalSampler(model, frozenset({2}), 8, torch.Generator())

    shared = SharedPrefix.from_cache(prefix, packing.prefix_cache(model, prefix))

    assert sampler.sample(prompts, 0, prefix=shared) == sampler.sample(prompts, 0)
