"""General prompts that a run must leave unchanged, and that measure whether it did.

A share of each batch repeats `PROMPTS` against the base without context (LLM-as-a-Coach, arXiv
2607.18110, replays a quarter); `HELD_OUT` measures retention and is never trained on.
"""

import tomllib
from pathlib import Path

_PROMPTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
PROMPTS: tuple[str, ...] = tuple(_PROMPTS["prompts"])
HELD_OUT: tuple[str, ...] = tuple(_PROMPTS["held_out"])
