"""`record_calls()`: the calls of a method, so that a test can wait until one happens."""

from typing import Any

import pytest


def record_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[tuple[Any, ...]]:
    """Return a list to which every call of the method adds its positional arguments."""
    calls: list[tuple[Any, ...]] = []
    method = getattr(owner, name)

    def recorded(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return method(self, *arguments, **options)

    monkeypatch.setattr(owner, name, recorded)
    return calls
