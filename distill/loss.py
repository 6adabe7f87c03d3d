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

Shapes: N completion tokens of all sequences, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Divergence = Literal["reverse", "forward", "jsd"]
Normalise = Literal["sequence", "token"]
Formula = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

CHUNK_TOKENS = 256
JSD_TEACHER_WEIGHT = 0.5


def divergence(
    student: Tensor,
    teacher: Tensor,
    head: Tensor,
    weights: Tensor,
    kind: Divergence = "reverse",
    chunk_tokens: int = CHUNK_TOKENS,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of per-token divergences, differentiable in the student's hidden states.

    Args:
        student: Float[N, D], hidden states before the output head; receives the gradient.
        teacher: Float[N, D], of the teacher at the same tokens; constant.
        head: Float[V, D], the frozen output head that both share.
        weights: Float[N] from `token_weights`; a token of weight zero is masked out.
        kind: Which divergence.
        chunk_tokens: Tokens whose logits are in memory at once; does not change the result.

    Returns:
        loss: Float[], nats.
        per_token: Float[N], the divergences without weights, detached, nats.
    """
    assert student.shape == teacher.shape, (student.shape, teacher.shape)
    assert weights.shape == student.shape[:1], (weights.shape, student.shape)
    loss, per_token = _Divergence.apply(student, teacher, head, weights, kind, chunk_tokens)
    return loss, per_token


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
    logprobs = (states @ head.T).float().log_softmax(-1)  # (C, V)
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
        kind: Divergence,
        chunk_tokens: int,
    ) -> tuple[Tensor, Tensor]:
        formula = FORMULAS[kind]
        gradient = torch.empty_like(student)
        per_token = torch.empty(len(student), dtype=torch.float32, device=student.device)
        for start in range(0, len(student), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            log_p = (student[part] @ head.T).float().log_softmax(-1)  # (chunk, V)
            log_q = (teacher[part] @ head.T).float().log_softmax(-1)  # (chunk, V)
            per_token[part], slope = formula(log_p, log_q)
            slope *= weights[part, None]
            gradient[part] = slope.to(head.dtype) @ head  # (chunk, D)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(per_token)
        return (per_token * weights).sum(), per_token

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return slopes[0] * gradient, None, None, None, None, None


def _reverse(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    p = log_p.exp()
    ratio = log_p - log_q
    kl = (p * ratio).sum(-1)
    return kl, p.mul_(ratio.sub_(kl[:, None]))


def _forward(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    q = log_q.exp()
    kl = (q * (log_q - log_p)).sum(-1)
    return kl, log_p.exp().sub_(q)


def _jsd(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    b = JSD_TEACHER_WEIGHT
    p, q = log_p.exp(), log_q.exp()
    log_m = (b * q + (1 - b) * p).log()
    value = (b * q * (log_q - log_m) + (1 - b) * p * (log_p - log_m)).sum(-1)
    slope = (1 - b) * (log_p - log_m)
    return value, p * (slope - (p * slope).sum(-1, keepdim=True))


FORMULAS: dict[Divergence, Formula] = {"reverse": _reverse, "forward": _forward, "jsd": _jsd}
