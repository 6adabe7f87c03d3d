"""Logits: hidden states times the output head, which student and teacher share.

The way round matters on the CPU: the BLAS that PyTorch brings repacks one operand of every product,
and for some dozens of states and a vocabulary `head @ states.T` takes half the time of
`states @ head.T`, for the same numbers up to rounding.
"""

from torch import Tensor


def logits(states: Tensor, head: Tensor) -> Tensor:
    """Float[N, V].

    Args:
        states: Float[N, D], hidden states before the output head.
        head: Float[V, D], its weights.
    """
    return (head @ states.T).T.contiguous() if states.is_cpu else states @ head.T
