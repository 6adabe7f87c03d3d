"""On-policy context distillation: from a context and prompts to a published LoRA adapter.

Read `train.py` first: one run, top to bottom; then `steps.py`. `loss.py` has the formula,
`packing.py` the one forward pass that the student, the teacher and the sampler share. The serving
side meets this package only in the adapter folder that `publish.py` writes.
"""

import os

# OpenMP reads this when torch is loaded. A thread that sleeps as soon as it waits for another costs
# half the speed where waking is slow, as on virtual machines; one that spins for long takes its
# core from vLLM. So many turns are a fraction of a millisecond.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
