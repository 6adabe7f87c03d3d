"""One word per thing: the glossary's terms are in use, and retired words are in no text.

Text is what people read: documents, docstrings, strings of several words, which are messages, log
lines and help, and the names of tests. Names between backticks do not count: settings keep old
names as aliases.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS

PACKAGES = ("agent", "distill", "store", "config")
MODULES = [
    path
    for package in PACKAGES
    for path in sorted(Path(package).rglob("*.py"))
    if "migrations" not in path.parts
]
RETIRED = {
    r"passages?": "statement",
    r"guided|guidance": "teacher-sampled",
    r"recit(?:e|es|ed|ing|ation)": "context-verbatim",
    r"side (?:traffic|requests?)": "auxiliary request",
    r"champion": "live",
    r"(?:is|are|was|being) away": "unavailable",
    r"spoil(?:ed|t)": "corrupt",
    r"begun anew": "starts over",
    r"litter": "leftovers",
    r"resume[ -]points?": "checkpoint",
    r"(?:word )?triples?": "trigram",
    r"phases?": "stage",
}
"""Words that have been replaced, and what they are called."""
QUOTED = re.compile(r"`[^`]*`")


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings, and the other strings of several words, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, QUOTED.sub("", node.value)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    if path.suffix == ".py":
        yield from strings(path)
        return
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        yield number, QUOTED.sub("", line)


def names(path: Path) -> Iterator[tuple[int, str]]:
    """The names of a module's tests as words, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")


def retired_words(path: Path, lines: Iterable[tuple[int, str]]) -> list[str]:
    return [
        f"{path}:{number}: {word.group()!r} is called {replacement!r}"
        for number, text in lines
        for retired, replacement in RETIRED.items()
        if (word := re.search(rf"\b(?:{retired})\b", text, re.IGNORECASE))
    ]


@pytest.mark.parametrize("path", [*DOCUMENTS, Path("config/default.toml"), *MODULES], ids=str)
def test_no_retired_word_is_in_a_text(path):
    assert retired_words(path, texts(path)) == []


@pytest.mark.parametrize("path", sorted(Path("tests").rglob("*.py")), ids=str)
def test_no_retired_word_is_in_the_name_of_a_test(path):
    assert retired_words(path, names(path)) == []


def glossary() -> str:
    return Path("ARCHITECTURE.md").read_text().split("## Glossary")[1].split("\n## ")[0]


def test_every_term_of_the_glossary_is_used():
    cells = re.findall(r"^\| ([\w ,/-]+?) \|", glossary(), re.MULTILINE)
    terms = [term for cell in cells[1:] for term in re.split(r" / |, ", cell)]
    used = "\n".join(path.read_text() for path in [*DOCUMENTS, *MODULES])
    used = used.replace(glossary(), "").lower()
    assert len(terms) > 20
    assert [term for term in terms if not re.search(rf"\b{term}s?\b", used)] == []
