"""The divergences against naive float64 versions, and what must be exactly zero."""

import pytest
import torch
from torch import Tensor

from distill import loss

TOKENS, HIDDEN, VOCABULARY = 13, 8, 37


def naive(student: Tensor, teacher: Tensor, head: Tensor, weights: Tensor, kind: str) -> Tensor:
    """Textbook formulas over whole distributions, differentiated by autograd."""
    log_p = (student @ head.T).log_softmax(-1)
    log_q = (teacher @ head.T).log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    m = 0.5 * (p + q)
    value = {
        "reverse": (p * (log_p - log_q)).sum(-1),
        "forward": (q * (log_q - log_p)).sum(-1),
        "jsd": 0.5 * (q * (log_q - m.log())).sum(-1) + 0.5 * (p * (log_p - m.log())).sum(-1),
    }[kind]
    return (value * weights).sum()


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64)
    teacher = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64)
    head = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64)
    weights = loss.token_weights([4, 6, 3], sequences=3, tokens=TOKENS).double()
    return student, teacher, head, weights


def gradient_of(student, teacher, head, weights, kind, **options):
    leaf = student.float().requires_grad_()
    value, per_token = loss.divergence(
        leaf, teacher.float(), head.float(), weights.float(), kind, **options
    )
    value.backward()
    return value.detach(), per_token, leaf.grad


@pytest.mark.parametrize("kind", ["reverse", "forward", "jsd"])
def test_value_and_gradient_are_those_of_a_naive_float64_version(inputs, kind):
    student, teacher, head, weights = inputs
    leaf = student.clone().requires_grad_()
    expected = naive(leaf, teacher, head, weights, kind)
    expected.backward()

    value, _, gradient = gradient_of(student, teacher, head, weights, kind)

    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    difference = (gradient.double() - leaf.grad).norm() / leaf.grad.norm()
    assert difference < 1e-5


@pytest.mark.parametrize("kind", ["reverse", "forward", "jsd"])
def test_gradient_is_the_finite_difference(inputs, kind):
    student, teacher, head, weights = inputs
    direction = torch.randn_like(student)
    _, _, gradient = gradient_of(student, teacher, head, weights, kind)
    step = 1e-5

    above = naive(student + step * direction, teacher, head, weights, kind)
    below = naive(student - step * direction, teacher, head, weights, kind)

    slope = (above - below) / (2 * step)
    assert (gradient.double() * direction).sum().item() == pytest.approx(slope.item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["reverse", "forward", "jsd"])
def test_equal_distributions_have_no_divergence_and_no_gradient(inputs, kind):
    student, _, head, weights = inputs

    value, per_token, gradient = gradient_of(student, student, head, weights, kind)

    assert abs(value.item()) < 1e-6
    assert per_token.abs().max() < 1e-6
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["reverse", "forward", "jsd"])
def test_masked_tokens_get_exactly_no_gradient(inputs, kind):
    student, teacher, head, weights = inputs
    weights = weights.clone()
    weights[2:5] = 0

    _, _, gradient = gradient_of(student, teacher, head, weights, kind)

    assert torch.equal(gradient[2:5], torch.zeros_like(gradient[2:5]))
    assert gradient[5:].abs().min() > 0


@pytest.mark.parametrize("kind", ["reverse", "forward", "jsd"])
@pytest.mark.parametrize("chunk_tokens", [1, 4, TOKENS])
def test_chunk_size_changes_nothing(inputs, kind, chunk_tokens):
    whole = gradient_of(*inputs, kind, chunk_tokens=1000)

    parts = gradient_of(*inputs, kind, chunk_tokens=chunk_tokens)

    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_sequence_counts_the_same_however_long_it_is():
    weights = loss.token_weights([1, 4], sequences=2, tokens=5)

    assert weights.tolist() == pytest.approx([0.5, 0.125, 0.125, 0.125, 0.125])


def test_a_token_counts_the_same_in_every_sequence_if_asked():
    weights = loss.token_weights([1, 4], sequences=2, tokens=5, normalise="token")

    assert weights.tolist() == pytest.approx([0.2] * 5)


def test_passes_of_one_step_add_up_to_the_step(inputs):
    student, teacher, head, _ = inputs
    whole = loss.token_weights([4, 6, 3], sequences=3, tokens=TOKENS)
    _, _, expected = gradient_of(student, teacher, head, whole, "reverse")

    first = loss.token_weights([4], sequences=3, tokens=TOKENS)
    rest = loss.token_weights([6, 3], sequences=3, tokens=TOKENS)
    _, _, start = gradient_of(student[:4], teacher[:4], head, first, "reverse")
    _, _, end = gradient_of(student[4:], teacher[4:], head, rest, "reverse")

    torch.testing.assert_close(torch.cat([start, end]), expected, rtol=1e-5, atol=1e-7)
