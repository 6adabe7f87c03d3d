"""Logits: hidden states times the output head, which student and teacher share.

They are summed up in fp32 whatever the weights are: a logit of 20 in bf16 is off by up to 0.06, and
a divergence is the difference of many such.

The way round matters on the CPU: the BLAS that PyTorch brings repacks one operand of every product,
and for some dozens of states and a vocabulary `head @ states.T` takes half the time of
`states @ head.T`, for the same numbers up to rounding.
"""

import torch
from torch import Tensor


def logits(states: Tensor, head: Tensor) -> Tensor:
    """Float[N, V], fp32 or, of float64, float64.

    Args:
        states: Float[N, D], hidden states before the output head.
        head: Float[V, D], its weights.
    """
    if states.is_cuda and states.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(states, head.T, out_dtype=torch.float32)
    wide = torch.promote_types(states.dtype, torch.float32)
    states, head = states.to(wide), head.to(wide)
    return (head @ states.T).T.contiguous() if states.is_cpu else states @ head.T
