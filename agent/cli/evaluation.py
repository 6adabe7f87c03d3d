"""Prints what a run has measured, and what an adapter knows, as lines of a table."""

from collections.abc import Sequence
from typing import Any

from store.knowledge import Knowledge


def numbers(measured: dict[str, Any]) -> list[str]:
    """Return the numbers of an evaluation, one per line; prompts and answers fill pages."""
    found = {key: value for key, value in measured.items() if isinstance(value, int | float)}
    lines = [f"{key.replace('_', ' ')} {round(value, 3)}" for key, value in found.items()]
    return [*lines, "prompts and answers: -o json"]


def statement_counts(measured: dict[str, Any]) -> dict[str, int]:
    """Return how many statements were measured, and how many of them are learned."""
    listed = measured.get("statements", [])
    return {"learned": sum(bool(each["learned"]) for each in listed), "total": len(listed)}


def frontier_lines(frontier: Sequence[dict[str, Any]]) -> list[str]:
    """Return right answers against prompt tokens, a line for each context in front."""
    return [
        f"{point['context']}: {point['right']} of {point['total']} right, "
        f"{point['prompt_tokens']} prompt tokens"
        for point in frontier
    ]


def knowledge_line(known: Knowledge, subject: str) -> str:
    """Return whether a statement is internalised, and why not.

    Args:
        known: What an adapter knows of the statement.
        subject: What the line is about: the statement or the adapter.
    """
    if known.internalised:
        return f"internalised   {subject}"
    line = f"in the prompt  {subject} ({known.reason})"
    if known.relapsed_at is None:
        return line
    return f"{line} at {known.relapsed_at:%F %T} in {known.relapse_interaction or 'no interaction'}"
