"""Count the tokens of a text without a running engine."""

from pathlib import Path

CHARS_PER_TOKEN = 3
"""A conservative estimate for plain English, used while the model is not unpacked yet."""


def count(model: Path, text: str) -> int:
    """Count a text's tokens with the tokenizer in the model's folder; estimate if it has none."""
    file = model / "tokenizer.json"
    if not file.exists():
        return len(text) // CHARS_PER_TOKEN + 1
    from tokenizers import Tokenizer  # seldom needed, so not imported at start

    return len(Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids)
