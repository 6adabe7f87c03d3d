"""How many tokens a text has for the base model, also where no engine runs."""

from pathlib import Path

CHARS_PER_TOKEN = 3
"""Of plain English, on the safe side; where the model is not unpacked yet."""


def count(model: Path, text: str) -> int:
    """Tokens of a text, by the tokenizer in the model's folder, or estimated without one."""
    file = model / "tokenizer.json"
    if not file.exists():
        return len(text) // CHARS_PER_TOKEN + 1
    from tokenizers import Tokenizer  # the daemon runs for weeks, and counts now and then

    return len(Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids)
