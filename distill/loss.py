"""Exact full-vocabulary divergences from hidden states: the objective of a run.

The reference implementation of OPCD keeps the student's top 256 tokens without renormalising, which
is not stationary where student and teacher agree. Here nothing is cut off: chunk by chunk, hidden
states go through the shared output head, the divergence and its analytic gradient are taken in
fp32, and only d loss / d hidden is kept. Memory is chunk x vocabulary, whatever the batch, and the
backbone is traversed backwards once.

With p the student's and q the teacher's distribution at one position, z the student's logits:

    reverse  KL(p || q)    dz = p * (log p - log q - KL)        OPCD, arXiv 2602.12275, eq. 1
    forward  KL(q || p)    dz = p - q                           guided trajectories
    jsd      b KL(q || m) + (1-b) KL(p || m), m = b q + (1-b) p    GKD, arXiv 2306.13649
             dz = p * (g - sum(p g)), g = (1-b) (log p - log m)

With `top_k`, both distributions are coarsened first: the likeliest tokens of either side keep their
probabilities, and the rest is one bucket. A coarsened divergence is a bound from below, is zero
where the two agree, and still sees how much mass lies outside.

Shapes: N completion tokens of all sequences, D hidden size, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from distill.model.logits import logits

Divergence = Literal["reverse", "forward", "jsd"]
Normalise = Literal["sequence", "token"]
Formula = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Value and slope by log p, log q and b. It may write into log p and log q: no buffer of a chunk's
logits more than it takes."""

# Tokens whose logits are in memory at once. On two cores 32 were slower, and 256 were faster for
# thousands of tokens only (BENCHMARKS.md). What is best on an accelerator has not been measured.
CHUNK_TOKENS = {"cpu": 64, "accelerator": 512}
NEAR = 1.0
"""Of logarithms of ratios: e to the power of it is near 1."""


@dataclass(frozen=True)
class Objective:
    """Which divergence, and on what."""

    kind: Divergence = "reverse"
    top_k: int = 0
    """Tokens of each side that keep a probability of their own; 0 means the whole vocabulary."""
    teacher_weight: float = 0.5
    """b of the generalised JSD, between 0 and 1."""


REVERSE, FORWARD = Objective("reverse"), Objective("forward")


def divergence(
    student: Tensor,
    teacher: Tensor,
    head: Tensor,
    weights: Tensor,
    objective: Objective = REVERSE,
    chunk_tokens: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted sum of per-token divergences, differentiable in the student's hidden states.

    Args:
        student: Float[N, D], hidden states before the output head; receives the gradient.
        teacher: Float[N, D], of the teacher at the same tokens; constant.
        head: Float[V, D], the frozen output head that both share; all logits are finite.
        weights: Float[N] from `token_weights`; a token of weight zero is masked out.
        objective: Which divergence.
        chunk_tokens: Tokens whose logits are in memory at once, 0 for what suits the device; does
            not change the result.

    Returns:
        loss: Float[], nats.
        per_token: Float[N], the divergences without weights, detached, nats.
        entropy: Float[N], the student's, detached, nats.
    """
    assert student.shape == teacher.shape, (student.shape, teacher.shape)
    assert weights.shape == student.shape[:1], (weights.shape, student.shape)
    chunk_tokens = chunk_tokens or CHUNK_TOKENS["cpu" if student.is_cpu else "accelerator"]
    result: tuple[Tensor, Tensor, Tensor] = _Divergence.apply(
        student, teacher, head, weights, objective, chunk_tokens
    )
    return result


def token_weights(
    lengths: Sequence[int], sequences: int, tokens: int, normalise: Normalise = "sequence"
) -> Tensor:
    """Weights that make the sum over tokens a mean over the whole optimiser step.

    Args:
        lengths: Completion tokens of each sequence in this pass.
        sequences: Sequences in the optimiser step: the global denominator of `sequence`.
        tokens: Completion tokens in the optimiser step: the global denominator of `token`.
        normalise: Mean over sequences of their mean (the paper), or mean over tokens.

    Returns:
        Float[N], sequence after sequence.
    """
    counts = torch.tensor(list(lengths))
    each = (
        1.0 / (counts * sequences) if normalise == "sequence" else torch.ones(len(counts)) / tokens
    )
    return each.float().repeat_interleave(counts)


def token_logprobs(states: Tensor, head: Tensor, completion: Sequence[int]) -> Tensor:
    """Float[C]: log-probability, in nats, of each completion token.

    Args:
        states: Float[C, D], the hidden states that predict the tokens.
        head: Float[V, D], the output head.
        completion: The C token ids.
    """
    logprobs = logits(states, head).log_softmax(-1)  # (C, V)
    chosen = torch.tensor(list(completion), device=states.device)
    return logprobs.gather(1, chosen[:, None])[:, 0]


class _Divergence(torch.autograd.Function):  # type: ignore[misc]
    """Loss and gradient in one forward sweep; backward only scales the stored gradient."""

    @staticmethod
    def forward(  # noqa: PLR0913 - the signature autograd calls
        ctx: Any,  # noqa: ANN401
        student: Tensor,
        teacher: Tensor,
        head: Tensor,
        weights: Tensor,
        objective: Objective,
        chunk_tokens: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradient = torch.empty_like(student)
        precise = torch.promote_types(student.dtype, torch.float32)
        if student.is_cpu:  # which has no product of bf16 that is summed up in fp32: once for all
            head = head.to(precise)
        per_token = torch.empty(len(student), dtype=precise, device=student.device)
        entropy = torch.empty_like(per_token)
        for start in range(0, len(student), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            per_token[part], entropy[part], slope = _chunk(
                student[part], teacher[part], head, objective
            )
            if ctx.needs_input_grad[0]:
                slope *= weights[part, None]
                gradient[part] = slope.to(head.dtype) @ head  # (chunk, D)
            del slope  # not beside the next chunk's logits
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(per_token, entropy)
        return (per_token * weights).sum(), per_token, entropy

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return slopes[0] * gradient, None, None, None, None, None


def _chunk(
    student: Tensor, teacher: Tensor, head: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Divergences and the student's entropies, Float[chunk], and d divergence / d logits."""
    log_p = logits(student, head).log_softmax(-1)  # (chunk, V)
    entropy = -torch.linalg.vecdot(log_p.exp(), log_p)
    log_q = logits(teacher, head).log_softmax(-1)  # (chunk, V)
    if objective.top_k:
        log_q = _coarsened(log_p, log_q, objective.top_k)
    value, slope = FORMULAS[objective.kind](log_p, log_q, objective.teacher_weight)
    return value, entropy, slope


def _coarsened(log_p: Tensor, log_q: Tensor, top_k: int) -> Tensor:
    """The teacher with its tail spread as the student's is: Float[chunk, V], log-probabilities.

    With all tail tokens in the same ratio, each formula over the vocabulary has the value and the
    gradient that it has over the support and one bucket.
    """
    support = torch.zeros_like(log_p, dtype=torch.bool)
    for side in (log_p, log_q):
        support.scatter_(1, side.topk(min(top_k, side.shape[1])).indices, value=True)
    p_tail, q_tail = (
        side.masked_fill(support, -torch.inf).logsumexp(-1) for side in (log_p, log_q)
    )
    return torch.where(support, log_q, log_p + (q_tail - p_tail)[:, None])


def _reverse(log_p: Tensor, log_q: Tensor, _: float) -> tuple[Tensor, Tensor]:
    p = log_p.exp()
    ratio = log_p.sub_(log_q)
    mean = torch.linalg.vecdot(p, ratio)
    # p and q sum to one only up to rounding. The rest is of the size of the divergence of two
    # models that nearly agree, and cancels in KL + sum(q - p).
    value = mean + log_q.exp_().sub_(p).sum(-1)
    return value, p.mul_(ratio.sub_(mean[:, None]))


def _forward(log_p: Tensor, log_q: Tensor, _: float) -> tuple[Tensor, Tensor]:
    q = log_q.exp()
    slope = log_p.exp().sub_(q)
    value = (q * (log_q - log_p)).sum(-1) + slope.sum(-1)
    return value, slope


def _jsd(log_p: Tensor, log_q: Tensor, b: float) -> tuple[Tensor, Tensor]:
    p, q, ratio = log_p.exp(), log_q.exp(), log_q - log_p
    # Of the mixture to p and to q, each by itself: their difference to the ratio would lose digits
    # where b is near 0 or 1, and where both sides nearly agree.
    to_p, to_q = _log_mixture(ratio, b), _log_mixture(-ratio, 1 - b)
    value = -(b * q * to_q + (1 - b) * p * to_p).sum(-1)
    slope = (b - 1) * to_p
    # From the likeliest token's: its own gradient is the sum of the others', which are small.
    slope = slope - slope.gather(1, p.argmax(-1, keepdim=True))
    return value, p * (slope - (p * slope).sum(-1, keepdim=True))


def _log_mixture(ratio: Tensor, weight: float) -> Tensor:
    """log(1 - weight + weight e^ratio): finite also where e^ratio is not.

    Near 1 by what it is more or less than 1, and far from it by the larger of its two parts: each
    loses its digits where the other is right.
    """
    near = torch.log1p(weight * torch.expm1(ratio.clamp(-NEAR, NEAR)))
    far = (
        torch.logaddexp(ratio.new_tensor(math.log1p(-weight)), ratio + math.log(weight))
        if 0 < weight < 1
        else weight * ratio
    )
    return torch.where(ratio.abs() <= NEAR, near, far)


FORMULAS: dict[Divergence, Formula] = {"reverse": _reverse, "forward": _forward, "jsd": _jsd}
