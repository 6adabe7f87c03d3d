"""The loss: exact full-vocabulary KL divergences, computed from hidden states.

At one position, p is the student's distribution, q the teacher's, z the student's logits, and
b = `teacher_weight`. Each divergence has a closed-form gradient dz:

    reverse  KL(p || q)    dz = p * (log p - log q - KL)        OPCD, arXiv 2602.12275, eq. 1
    forward  KL(q || p)    dz = p - q                           teacher-sampled trajectories
    jsd      b KL(q || m) + (1-b) KL(p || m), m = b q + (1-b) p    GKD, arXiv 2306.13649
             dz = p * (g - sum(p g)), g = (1-b) (log p - log m)

The reference implementation of OPCD keeps the student's top 256 tokens without renormalising, which
is not stationary where student and teacher agree. Here the sum runs over the whole vocabulary.
Hidden states go through the shared output head in chunks of tokens, divergence and dz are computed
in fp32, and only d loss / d hidden is stored. Peak memory is chunk x V for any batch size, and
autograd traverses the backbone once.

With `top_k`, both distributions are coarsened first: the top tokens of either side keep their own
probabilities and the rest form one bucket. The coarsened divergence is a lower bound, is zero where
the two agree, and still accounts for the mass of the tail.

Shapes: N completion tokens of all sequences, C tokens of a chunk, D hidden size, V vocabulary.
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
"""Maps (log p, log q, b) to the divergence, Float[C], and dz, Float[C, V].

It may overwrite log p and log q, which saves a buffer of chunk x V.
"""

# Tokens whose logits are in memory at the same time. On two cores, 32 is slower and 256 is faster
# only for thousands of tokens (BENCHMARKS.md). The accelerator's value has not been tuned.
CHUNK_TOKENS = {"cpu": 64, "accelerator": 512}
NEAR = 1.0
"""Log-ratios up to this size use `log1p(expm1)`, which is exact around zero."""


@dataclass(frozen=True)
class Objective:
    """A divergence and its parameters."""

    kind: Divergence = "reverse"
    top_k: int = 0
    """Top tokens of either side that keep their own probability; 0 means the whole vocabulary."""
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
    """Return the weighted sum of per-token divergences, differentiable in the student's states.

    Args:
        student: Float[N, D], the student's hidden states before the output head.
        teacher: Float[N, D], the teacher's at the same tokens; constant.
        head: Float[V, D], the frozen output head that both share; all logits must be finite.
        weights: Float[N] from `token_weights`; zero masks a token out.
        objective: The divergence and its parameters.
        chunk_tokens: Tokens per chunk; 0 selects the device's default. Does not affect the result.

    Returns:
        loss: Float[], in nats.
        per_token: Float[N], unweighted divergences in nats, detached.
        entropy: Float[N], entropy of the student in nats, detached.
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
    """Return weights that turn the sum over tokens into a mean over the whole optimiser step.

    Args:
        lengths: Completion tokens of each sequence of the microbatch.
        sequences: Sequences in the step; the global denominator of `sequence`.
        tokens: Completion tokens in the step; the global denominator of `token`.
        normalise: "sequence" averages per-sequence means (the paper), "token" averages tokens.

    Returns:
        Float[N], concatenated over sequences.
    """
    counts = torch.tensor(list(lengths))
    weights = (
        1.0 / (counts * sequences) if normalise == "sequence" else torch.ones(len(counts)) / tokens
    )
    return weights.float().repeat_interleave(counts)


def token_logprobs(states: Tensor, head: Tensor, completion: Sequence[int]) -> Tensor:
    """Return Float[N], the log-probability of each completion token, in nats.

    Args:
        states: Float[N, D], the hidden states that predict the tokens.
        head: Float[V, D], the output head.
        completion: The N token ids.
    """
    logprobs = logits(states, head).log_softmax(-1)  # (N, V)
    ids = torch.tensor(list(completion), device=states.device)
    return logprobs.gather(1, ids[:, None])[:, 0]


class _Divergence(torch.autograd.Function):  # type: ignore[misc]
    """Computes loss and gradient in the forward pass; backward scales the stored gradient."""

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
        """Return the loss, per-token divergences and entropies; save d loss / d student."""
        gradient = torch.empty_like(student)  # (N, D)
        precise = torch.promote_types(student.dtype, torch.float32)
        if student.is_cpu:  # no bf16 matmul with fp32 accumulation: convert once, not per chunk
            head = head.to(precise)
        per_token = torch.empty(len(student), dtype=precise, device=student.device)
        entropy = torch.empty_like(per_token)
        for start in range(0, len(student), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            per_token[chunk], entropy[chunk], dz = _chunk(
                student[chunk], teacher[chunk], head, objective
            )
            if ctx.needs_input_grad[0]:
                dz *= weights[chunk, None]
                gradient[chunk] = dz.to(head.dtype) @ head  # (C, V) @ (V, D)
            del dz  # free it before the next chunk's logits
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(per_token, entropy)
        return (per_token * weights).sum(), per_token, entropy

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0] * gradient, None, None, None, None, None


def _chunk(
    student: Tensor, teacher: Tensor, head: Tensor, objective: Objective
) -> tuple[Tensor, Tensor, Tensor]:
    """Return divergences Float[C], student entropies Float[C], and dz Float[C, V]."""
    log_p = logits(student, head).log_softmax(-1)  # (C, V)
    entropy = -torch.linalg.vecdot(log_p.exp(), log_p)
    log_q = logits(teacher, head).log_softmax(-1)  # (C, V)
    if objective.top_k:
        log_q = _coarsen(log_p, log_q, objective.top_k)
    kl, dz = FORMULAS[objective.kind](log_p, log_q, objective.teacher_weight)
    return kl, entropy, dz


def _coarsen(log_p: Tensor, log_q: Tensor, top_k: int) -> Tensor:
    """Return log q with the tail's total mass spread in proportion to p.

    All tail tokens then have the same ratio q / p, so each formula over the vocabulary has the
    value and the gradient that it has over the support and one bucket.

    Returns:
        Float[C, V].
    """
    support = torch.zeros_like(log_p, dtype=torch.bool)
    for side in (log_p, log_q):
        support.scatter_(1, side.topk(min(top_k, side.shape[1])).indices, value=True)
    p_tail, q_tail = (
        side.masked_fill(support, -torch.inf).logsumexp(-1) for side in (log_p, log_q)
    )
    return torch.where(support, log_q, log_p + (q_tail - p_tail)[:, None])


def _reverse_kl(log_p: Tensor, log_q: Tensor, _: float) -> tuple[Tensor, Tensor]:
    """KL(p || q) = sum p (log p - log q), and dz = p (log p - log q - KL); in place."""
    p = log_p.exp()
    log_ratio = log_p.sub_(log_q)
    kl = torch.linalg.vecdot(p, log_ratio)
    # p and q sum to one only up to rounding. That error is as large as the divergence of two models
    # that nearly agree; adding sum(q - p) cancels it.
    value = kl + log_q.exp_().sub_(p).sum(-1)
    return value, p.mul_(log_ratio.sub_(kl[:, None]))


def _forward_kl(log_p: Tensor, log_q: Tensor, _: float) -> tuple[Tensor, Tensor]:
    """KL(q || p) = sum q (log q - log p), and dz = p - q."""
    q = log_q.exp()
    dz = log_p.exp().sub_(q)
    value = (q * (log_q - log_p)).sum(-1) + dz.sum(-1)  # cancels rounding as in `_reverse_kl`
    return value, dz


def _jsd(log_p: Tensor, log_q: Tensor, b: float) -> tuple[Tensor, Tensor]:
    """The generalised JSD with mixture m = b q + (1 - b) p, and dz = p (g - sum p g)."""
    p, q, log_ratio = log_p.exp(), log_q.exp(), log_q - log_p
    # log(m / p) and log(m / q) are computed separately: subtracting log_ratio from one to get the
    # other loses digits where b is near 0 or 1, and where both sides nearly agree.
    log_m_p, log_m_q = _log_mixture(log_ratio, b), _log_mixture(-log_ratio, 1 - b)
    value = -(b * q * log_m_q + (1 - b) * p * log_m_p).sum(-1)
    g = (b - 1) * log_m_p
    # Shifting g leaves dz unchanged. Relative to the likeliest token, whose gradient is minus the
    # sum of the others', the small terms keep their digits.
    g = g - g.gather(1, p.argmax(-1, keepdim=True))
    return value, p * (g - (p * g).sum(-1, keepdim=True))


def _log_mixture(ratio: Tensor, weight: float) -> Tensor:
    """Return log(1 - weight + weight e^ratio), finite even where e^ratio overflows.

    Small ratios use log1p(expm1), large ones logaddexp: each is inaccurate where the other is used.
    """
    near = torch.log1p(weight * torch.expm1(ratio.clamp(-NEAR, NEAR)))
    far = (
        torch.logaddexp(ratio.new_tensor(math.log1p(-weight)), ratio + math.log(weight))
        if 0 < weight < 1
        else weight * ratio
    )
    return torch.where(ratio.abs() <= NEAR, near, far)


FORMULAS: dict[Divergence, Formula] = {"reverse": _reverse_kl, "forward": _forward_kl, "jsd": _jsd}
