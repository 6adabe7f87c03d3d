"""The divergences against naive float64 versions, and what must be exactly zero."""

import math

import pytest
import torch
from torch import Tensor

from distill import loss
from distill.loss import Objective
from distill.model.logits import logits
from tests.support.devices import EVERY_DEVICE

TOKENS, HIDDEN, VOCABULARY = 13, 8, 37


REVERSE, FORWARD, JSD = Objective("reverse"), Objective("forward"), Objective("jsd")
EVERY = pytest.mark.parametrize(
    "objective",
    [
        REVERSE,
        FORWARD,
        JSD,
        Objective("jsd", teacher_weight=0.1),
        Objective("jsd", teacher_weight=0.001),
        Objective("jsd", teacher_weight=0.999),
        Objective("reverse", top_k=3),
        Objective("forward", top_k=3),
        Objective("jsd", top_k=1, teacher_weight=0.8),
        Objective("reverse", top_k=VOCABULARY),
    ],
    ids=str,
)


def naive(
    student: Tensor, teacher: Tensor, head: Tensor, weights: Tensor, objective: Objective
) -> Tensor:
    """Textbook formulas over whole distributions, differentiated by autograd."""
    p, q = (student @ head.T).softmax(-1), (teacher @ head.T).softmax(-1)
    values = []
    for ours, theirs in zip(p, q, strict=True):
        if objective.top_k:
            ours, theirs = with_tail_bucket(ours, theirs, objective.top_k)
        b = objective.teacher_weight
        m = b * theirs + (1 - b) * ours
        values.append(
            {
                "reverse": (ours * (ours / theirs).log()).sum(),
                "forward": (theirs * (theirs / ours).log()).sum(),
                "jsd": b * (theirs * (theirs / m).log()).sum()
                + (1 - b) * (ours * (ours / m).log()).sum(),
            }[objective.kind]
        )
    return (torch.stack(values) * weights).sum()


def with_tail_bucket(p: Tensor, q: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """One position's distributions over the likeliest tokens of either, and one entry more."""
    kept = sorted({*p.topk(top_k).indices.tolist(), *q.topk(top_k).indices.tolist()})
    rest = [token for token in range(len(p)) if token not in kept]
    if not rest:
        return p, q
    return tuple(torch.cat([side[kept], side[rest].sum()[None]]) for side in (p, q))


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64)
    teacher = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64)
    head = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64)
    weights = loss.token_weights([4, 6, 3], sequences=3, tokens=TOKENS).double()
    return student, teacher, head, weights


def gradient_of(student, teacher, head, weights, objective, device="cpu", **options):
    leaf = student.float().to(device).requires_grad_()
    constant = (each.float().to(device) for each in (teacher, head, weights))
    value, per_token, _ = loss.divergence(leaf, *constant, objective, **options)
    value.backward()
    return value.detach().cpu(), per_token.cpu(), leaf.grad.cpu()


@EVERY_DEVICE
@EVERY
def test_value_and_gradient_equal_those_of_a_naive_float64_version(inputs, objective, device):
    student, teacher, head, weights = inputs
    leaf = student.clone().requires_grad_()
    expected = naive(leaf, teacher, head, weights, objective)
    expected.backward()

    value, _, gradient = gradient_of(student, teacher, head, weights, objective, device)

    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    difference = (gradient.double() - leaf.grad).norm() / leaf.grad.norm()
    assert difference < 1e-5


@pytest.mark.parametrize("b", [1e-6, 0.5, 1 - 1e-6])
@pytest.mark.parametrize("scale", [0.01, 1.0, 4.0])
def test_the_jsd_stays_precise_for_extreme_weights_and_peaked_distributions(b, scale):
    generator = torch.Generator().manual_seed(2)
    size = (TOKENS, HIDDEN)
    student = scale * torch.randn(size, generator=generator, dtype=torch.float64)
    teacher = student + scale / 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    head = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64)
    weights = torch.ones(TOKENS, dtype=torch.float64)
    objective = Objective("jsd", teacher_weight=b)
    # As the side that is computed sees them: rounded to fp32.
    student, teacher, head = (each.float().double() for each in (student, teacher, head))
    leaf = student.clone().requires_grad_()
    log_p, log_q = ((side @ head.T).log_softmax(-1) for side in (leaf, teacher))
    log_m = torch.logaddexp(log_q + math.log(b), log_p + math.log1p(-b))
    each = b * log_q.exp() * (log_q - log_m) + (1 - b) * log_p.exp() * (log_p - log_m)
    each.sum().backward()

    value, _, gradient = gradient_of(student, teacher, head, weights, objective)

    assert value.item() == pytest.approx(each.sum().item(), rel=1e-5)
    assert (gradient.double() - leaf.grad).norm() / leaf.grad.norm() < 1e-5


@EVERY
def test_gradient_equals_the_finite_difference(inputs, objective):
    student, teacher, head, weights = inputs
    direction = torch.randn_like(student)
    _, _, gradient = gradient_of(student, teacher, head, weights, objective)
    step = 1e-5

    above = naive(student + step * direction, teacher, head, weights, objective)
    below = naive(student - step * direction, teacher, head, weights, objective)

    slope = (above - below) / (2 * step)
    assert (gradient.double() * direction).sum().item() == pytest.approx(slope.item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["reverse", "forward", "jsd"])
def test_gradient_in_float64_passes_gradcheck(inputs, kind):
    student, teacher, head, weights = inputs

    def value(states: Tensor) -> Tensor:
        return loss.divergence(states, teacher, head, weights, loss.Objective(kind))[0]

    assert torch.autograd.gradcheck(value, student.clone().requires_grad_())


@EVERY_DEVICE
def test_logits_of_bf16_weights_are_not_rounded_to_bf16(device):
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(8, 512, generator=generator).bfloat16()
    head = torch.randn(4096, 512, generator=generator).bfloat16()

    found = logits(states.to(device), head.to(device)).cpu()

    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), states.double() @ head.double().T, rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", ["reverse", "forward", "jsd"])
def test_value_is_exact_where_student_and_teacher_nearly_agree(kind):
    generator = torch.Generator().manual_seed(2)
    student = torch.randn(8, 64, generator=generator)
    teacher = student + 0.005 * torch.randn(8, 64, generator=generator)
    head = torch.randn(20_000, 64, generator=generator)
    weights = torch.full((8,), 1 / 8)
    objective = loss.Objective(kind)

    value, _, _ = loss.divergence(student, teacher, head, weights, objective)

    states = (side.double() for side in (student, teacher, head, weights))
    expected = naive(*states, objective)
    assert expected < 1e-3
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)


@EVERY
def test_equal_distributions_have_zero_divergence_and_gradient(inputs, objective):
    student, _, head, weights = inputs

    value, per_token, gradient = gradient_of(student, student, head, weights, objective)

    assert abs(value.item()) < 1e-6
    assert per_token.abs().max() < 1e-6
    assert gradient.abs().max() < 1e-6


@EVERY
def test_masked_tokens_have_exactly_zero_gradient(inputs, objective):
    student, teacher, head, weights = inputs
    weights = weights.clone()
    weights[2:5] = 0

    _, _, gradient = gradient_of(student, teacher, head, weights, objective)

    assert torch.equal(gradient[2:5], torch.zeros_like(gradient[2:5]))
    assert gradient[5:].abs().min() > 0


@EVERY
@pytest.mark.parametrize("chunk_tokens", [1, 4, TOKENS])
def test_the_result_does_not_depend_on_the_chunk_size(inputs, objective, chunk_tokens):
    whole = gradient_of(*inputs, objective, chunk_tokens=1000)

    parts = gradient_of(*inputs, objective, chunk_tokens=chunk_tokens)

    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_by_default_every_sequence_has_the_same_weight():
    weights = loss.token_weights([1, 4], sequences=2, tokens=5)

    assert weights.tolist() == pytest.approx([0.5, 0.125, 0.125, 0.125, 0.125])


def test_normalised_by_token_every_token_has_the_same_weight():
    weights = loss.token_weights([1, 4], sequences=2, tokens=5, normalise="token")

    assert weights.tolist() == pytest.approx([0.2] * 5)


def test_gradients_of_microbatches_add_up_to_that_of_the_step(inputs):
    student, teacher, head, _ = inputs
    whole = loss.token_weights([4, 6, 3], sequences=3, tokens=TOKENS)
    _, _, expected = gradient_of(student, teacher, head, whole, REVERSE)

    first = loss.token_weights([4], sequences=3, tokens=TOKENS)
    rest = loss.token_weights([6, 3], sequences=3, tokens=TOKENS)
    _, _, start = gradient_of(student[:4], teacher[:4], head, first, REVERSE)
    _, _, end = gradient_of(student[4:], teacher[4:], head, rest, REVERSE)

    torch.testing.assert_close(torch.cat([start, end]), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["reverse", "forward", "jsd"])
@pytest.mark.parametrize("top_k", [1, 4, 16])
def test_coarsening_the_tail_never_increases_the_divergence(inputs, kind, top_k):
    _, exact, _ = gradient_of(*inputs, Objective(kind))
    _, coarse, _ = gradient_of(*inputs, Objective(kind, top_k=top_k))

    assert (coarse <= exact + 1e-6).all()
    assert (coarse >= -1e-6).all()


@EVERY
def test_probabilities_that_underflow_fp32_give_finite_values(inputs, objective):
    student, teacher, head, weights = inputs

    value, _, gradient = gradient_of(student, teacher, head * 100, weights, objective)

    assert value.isfinite()
    assert gradient.isfinite().all()


def test_the_returned_entropy_is_the_students(inputs):
    student, teacher, head, weights = inputs

    _, _, entropy = loss.divergence(student, teacher, head, weights)

    expected = torch.distributions.Categorical(logits=student @ head.T).entropy()
    torch.testing.assert_close(entropy.double(), expected, rtol=1e-5, atol=1e-6)
