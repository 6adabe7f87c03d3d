"""On-policy context distillation: from a context and prompts to a published LoRA adapter.

Read `train.py` first: one run, top to bottom; then `steps.py`. `loss.py` has the formula,
`packing.py` the one forward pass that the student, the teacher and the sampler share. The serving
side meets this package only in the adapter folder that `publish.py` writes.
"""
