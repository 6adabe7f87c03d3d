"""The documents agree with the code."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from agent.cli.app import app
from agent.gateway.metrics import Metrics
from distill.__main__ import OPTIONS
from tests.support.documents import DOCUMENTS

README, ARCHITECTURE = Path("README.md").read_text(), Path("ARCHITECTURE.md").read_text()
OPERATIONS, TRAINER = Path("OPERATIONS.md").read_text(), Path("TRAINER.md").read_text()
MAX_README, MAX_BEFORE_QUICK_START, MAX_READING = 120, 40, 550
READING = re.compile(r"`([\w/]+\.py)` ((?:`[\w.]+`(?:, )?)+)")


def tree() -> set[str]:
    """The names of the folders in the tree."""
    return set(re.findall(r"\b(\w+)/(?=[\s,;:.]|$)", README.rstrip().split("```")[-2]))


def names(path: Path) -> set[str]:
    """The last parts of the packages under a folder."""
    return {init.parent.name for init in path.rglob("__init__.py")}


def test_the_readme_is_short_and_begins_with_the_quick_start():
    lines = README.splitlines()
    assert len(lines) <= MAX_README
    assert README[: README.index("## ")].count("```python") == 1
    end = README.index("```", README.index("```python") + 3)
    assert README[:end].count("\n") < MAX_BEFORE_QUICK_START


def test_the_tree_in_the_readme_leaves_no_package_out():
    packages = set().union(*(names(Path(top)) for top in ("agent", "distill", "store", "config")))
    assert packages - tree() == set()


def test_the_tree_in_the_readme_names_folders_that_exist():
    tops = ("agent", "distill", "store", "config", "tests")
    folders = {path.name for top in tops for path in Path(top).rglob("*") if path.is_dir()}
    assert tree() - folders - {*tops} == set()


def reading_path() -> list[tuple[Path, str]]:
    return [
        (Path(path), name)
        for path, listed in READING.findall(README)
        for name in re.findall(r"`([\w.]+)`", listed)
    ]


def length(path: Path, name: str) -> int:
    """The lines of a function, class or method; an error if the file has none of that name."""
    body = ast.parse(path.read_text()).body
    for part in name.split("."):
        [node] = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and node.name == part
        ]
        body = node.body
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_the_reading_path_names_functions_that_exist_and_is_short():
    places = reading_path()
    assert len(places) > 15
    assert sum(length(path, name) for path, name in places) <= MAX_READING


def test_the_reading_path_takes_a_quarter_of_an_hour():
    table = README.split("| minutes | read |")[1].split("\n\n")[0]
    assert sum(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == 15


def test_every_guarantee_names_a_test_that_exists():
    table = README.split("| guarantee | shown by |")[1].split("\n\n")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")]
    assert len(rows) >= 5
    for row in rows:
        paths = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert paths
        assert [path for path in paths if not Path(path).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_test_folders_that_a_document_names_have_tests(path):
    named = re.findall(r"\btests/(\w+)\b(?!\.py)", path.read_text())
    folders = [name for name in named if name not in ("support", "bench")]
    assert [name for name in folders if not list(Path("tests", name).glob("test_*.py"))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_files_that_a_document_names_exist(path):
    text = path.read_text()
    named = re.findall(r"\b((?:agent|distill|store|config|tests)/[\w/.]+\.(?:py|toml))\b", text)
    named += re.findall(r"\]\(([\w./]+\.md)\)", text)
    assert {name for name in named if not Path(name).exists()} == set()


def test_the_changelog_is_of_this_version():
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in Path("CHANGELOG.md").read_text()


def test_every_verb_is_documented_and_there_are_at_most_twenty():
    verbs = {command.name for command in app.registered_commands}
    verbs |= {group.name for group in app.registered_groups}
    text = "".join(path.read_text() for path in DOCUMENTS if path.name != "CHANGELOG.md")
    assert len(verbs) <= 20
    assert {verb for verb in verbs if f"byheart {verb}" not in text} == set()


def test_every_metric_is_explained_to_operators():
    metrics = Metrics()
    for watch in (metrics.watch_queue, metrics.watch_spool, metrics.watch_inflight):
        watch(lambda: 0)
    exported = re.findall(r"^# HELP (\w+) ", metrics.render().decode(), re.MULTILINE)
    kept = [name for name in exported if not name.endswith("_created")]
    assert len(kept) > 10
    assert [name for name in kept if f"`{name}" not in OPERATIONS] == []


def test_every_option_of_the_trainer_is_documented():
    options = [f"`--{name.replace('_', '-')}`" for name in OPTIONS]
    assert [option for option in options if option not in TRAINER] == []


def test_the_layers_in_the_architecture_are_those_that_import_linter_checks():
    settings = tomllib.loads(Path("pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    for house in ("agent", "distill"):
        [layers] = [each["layers"] for each in contracts if each.get("containers") == [house]]
        floors = [layer.split(" | ") for layer in layers]
        drawn = ARCHITECTURE.split(f"    {house} ")[1].split("\n    distill")[0].split("\n\n")[0]
        told = re.findall(r"\w+", drawn.replace(" and ", " "))
        heights = [next(i for i, floor in enumerate(floors) if name in floor) for name in told]
        assert heights == sorted(heights)
