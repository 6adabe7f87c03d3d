"""The student: what gradient checkpointing and precision change, and what they do not."""

from contextlib import nullcontext

import torch

from distill.model import packing
from distill.model.sampler import LocalSampler
from distill.model.student import Student
from tests.support.tiny import tiny_model

PAIRS = [((3, 4, 5), (6, 7)), ((3, 4, 8, 9), (10,))]


def make_student(*, recompute: bool) -> Student:
    student = Student(tiny_model(), rank=4, alpha=8, seed=0, gradient_checkpointing=recompute)
    torch.manual_seed(1)
    for parameter in student.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return student


def gradients(student: Student) -> list[torch.Tensor]:
    # Their squares would not do: they add up to the same whatever the states are, by the last norm.
    student.states(PAIRS).float().cumsum(-1).sum().backward()
    return [parameter.grad for parameter in student.parameters() if parameter.grad is not None]


def test_gradient_checkpointing_gives_the_same_gradient_and_runs_every_layer_twice():
    plain, recomputing = (make_student(recompute=each) for each in (False, True))
    runs = []
    for layer in recomputing.model.model.layers:
        layer.self_attn.register_forward_hook(lambda *_: runs.append(1))

    expected, given = gradients(plain), gradients(recomputing)

    assert len(expected) == len(plain.parameters())
    assert all(map(torch.equal, expected, given))
    assert len(runs) == 2 * len(recomputing.model.model.layers)


def test_gradient_checkpointing_keeps_the_cache_of_passes_without_gradient():
    recomputing = make_student(recompute=True)
    sampler = LocalSampler(recomputing.model, frozenset({2}), 5, torch.Generator().manual_seed(0))
    prompts = [prompt for prompt, _ in PAIRS]

    gradients(recomputing)
    with recomputing.adapter_disabled() as model:
        cache = packing.prefix_cache(model, (3, 4))
        behind_cache = packing.completion_states(model, PAIRS, (3, 4), cache)
        alone = recomputing.states(PAIRS)

    assert cache is not None
    assert cache.get_seq_length() == 2
    torch.testing.assert_close(behind_cache, alone)
    expected = make_student(recompute=False)
    assert sampler.sample(prompts, 0) == LocalSampler(
        expected.model, frozenset({2}), 5, torch.Generator().manual_seed(0)
    ).sample(prompts, 0)


def kept_in_fp32(student: Student) -> int:
    """Numbers in fp32, other than weights, that a pass keeps for its gradient."""
    weights = {parameter.data_ptr() for parameter in student.parameters()}
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda x: x):
        student.states(PAIRS)
    each = {one.data_ptr(): one for one in kept if one.dtype == torch.float32}
    return sum(one.numel() for place, one in each.items() if place not in weights)


def test_with_a_bf16_base_and_an_fp32_adapter_few_activations_are_kept_in_fp32(monkeypatch):
    student = make_student(recompute=False)
    exact = [gradient.clone() for gradient in gradients(student)]
    student.model.to(torch.bfloat16)
    for parameter in student.parameters():
        parameter.data, parameter.grad = parameter.data.float(), None

    little, reduced = kept_in_fp32(student), gradients(student)

    monkeypatch.setattr(student, "_in_base_precision", nullcontext)
    assert little < kept_in_fp32(student) / 2
    one, other = (torch.cat([part.flatten() for part in each]) for each in (exact, reduced))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99
    assert all(parameter.dtype == torch.float32 for parameter in student.parameters())
