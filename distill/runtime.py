"""What the trainer's process asks of OpenMP and torch, which read it when they are loaded.

They are added to the environment before torch is imported; what is set there already stays.
"""

VARIABLES = {
    # How often a thread looks before it sleeps. Where waking is slow, as on virtual machines,
    # threads that sleep at once make two cores hardly faster than one; ones that look for longer
    # lose more beside a busy vLLM than they win on a quiet machine.
    "GOMP_SPINCOUNT": "1000",
    # Large tensors lie in huge pages: decoding reads all weights for each token.
    "THP_MEM_ALLOC_ENABLE": "1",
}
