"""`cut(prompt, statements)`: the prompt with nothing but these statements and their support."""

from collections.abc import Iterable

from distill.context.sourced import SourcedStatement


def cut(prompt: str, statements: Iterable[SourcedStatement]) -> str:
    """Keep the lines that have kept words, with their indentation, and blank lines between them."""
    spans = [span for each in statements for span in (*each.spans, *each.support)]
    kept = {place for span in spans for place in range(*span)}
    lines: list[str] = []
    start, after_blank = 0, False
    for line in prompt.split("\n"):
        places = range(start, start + len(line))
        words = "".join(
            prompt[place] if place in kept or prompt[place].isspace() else "\0" for place in places
        )
        indent = line[: len(line) - len(line.lstrip())]
        left = " ".join(words.replace("\0", " ").split())
        if left:
            lines += [""] if after_blank and lines else []
            lines.append(indent + left)
        after_blank = not left and (after_blank or not line.strip())
        start += len(line) + 1
    return "\n".join(lines)
