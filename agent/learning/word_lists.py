"""Loads the word lists of this package, which are TOML files next to the modules."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path


def load(name: str) -> dict[str, list[str]]:
    """Return the word lists in `name`.toml, by key."""
    path = Path(__file__).with_name(f"{name}.toml")
    lists: dict[str, list[str]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return lists


def any_of(phrases: Iterable[str]) -> str:
    """Return a regular expression that matches each phrase; ' also matches a curly apostrophe."""
    return "(?:" + "|".join(re.escape(phrase).replace("'", "['’]") for phrase in phrases) + ")"
