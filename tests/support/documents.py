"""`DOCUMENTS` and their contents: `blocks()` of code and `commands()`."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

NAMES = (
    "README.md",
    "TUTORIAL.md",
    "OPERATIONS.md",
    "TRAINER.md",
    "CONFIGURATION.md",
    "HTTP.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
DOCUMENTS = [Path(name) for name in NAMES]
PROGRAMS = ("byheart", "python -m distill", "make", "curl")
CONTINUED = re.compile(r"\\\n\s*")
INDENTED = re.compile(r"(?:^    \S.*\n(?:(?:    .*)?\n)*)+", re.MULTILINE)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command in a document, as a shell would split it."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {shlex.join(self.words)}"


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced code blocks in a language."""
    return [code for kind, code in FENCED.findall(path.read_text()) if kind == language]


def commands(path: Path) -> list[Command]:
    """Return every command in indented blocks, in `console` blocks and between backticks."""
    text = path.read_text()
    lines = [line for block in INDENTED.findall(FENCED.sub("", text)) for line in _lines(block)]
    for block in blocks(path, "console"):
        lines += [line[2:] for line in _lines(block) if line.startswith("$ ")]
    lines += re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", FENCED.sub("", text))
    found = [part for line in lines for part in _parts(line)]
    return list(dict.fromkeys(Command(path.name, words) for words in found))


def _lines(block: str) -> list[str]:
    """Return the logical lines: joined after a backslash and inside a quotation."""
    joined: list[str] = []
    for line in CONTINUED.sub(" ", block).splitlines():
        if joined and joined[-1].count("'") % 2:
            joined[-1] += " " + line.strip()
        else:
            joined.append(line.strip())
    return joined


def _parts(line: str) -> list[tuple[str, ...]]:
    """Return the commands in a line that start one of our programs."""
    line = " ".join(line.split())
    if not any(program in line for program in PROGRAMS):
        return []
    parts = re.split(r"\s*(?:&&|\|)\s*", line)
    split = [tuple(shlex.split(part, comments=True)) for part in parts if _is_ours(part)]
    return [words for words in split if len(words) > 1]


def _is_ours(part: str) -> bool:
    return any(part == program or part.startswith(f"{program} ") for program in PROGRAMS)
