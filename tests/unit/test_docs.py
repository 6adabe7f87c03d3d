"""The documents say what is true of the code."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from agent.cli.app import app
from agent.gateway.feedback import FeedbackRequest

README, ARCHITECTURE = Path("README.md").read_text(), Path("ARCHITECTURE.md").read_text()
DOCUMENTS = [
    Path(name) for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
]


def tree() -> list[str]:
    block = re.search(r"## The tree\n+```\n(.*?)```", README, re.DOTALL)
    assert block
    return [line.split()[0] for line in block.group(1).splitlines() if line.strip()]


def test_the_tree_in_the_readme_names_what_there_is() -> None:
    assert [path for path in tree() if not Path(path).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_test_folders_that_a_document_names_have_tests(path: Path) -> None:
    text = path.read_text()
    named = re.findall(r"\btests/(\w+)\b(?!\.py)", text)
    for line in re.findall(r"^tests/ +(.*)$", text, re.MULTILINE):
        named += [folder.strip("/") for folder in line.split()]
    assert [name for name in named if not list(Path("tests", name).glob("test_*.py"))] == []


def test_what_the_readme_tells_to_send_as_feedback_is_feedback() -> None:
    bodies = re.findall(r"/v1/feedback .*? -d '(.*?)'", README, re.DOTALL)
    assert bodies
    for body in bodies:
        FeedbackRequest.model_validate(json.loads(body.replace("int_...", "int_1")))


def test_the_readme_says_where_the_command_is() -> None:
    use = README.split("## Use it")[1]
    assert use.index(".venv/bin/activate") < use.index("byheart serve")


def test_the_tree_in_the_readme_leaves_no_package_out() -> None:
    packages = {
        str(init.parent) + "/"
        for package in ("agent", "distill", "store", "config")
        for init in Path(package).rglob("__init__.py")
    }
    assert packages <= set(tree())


def test_the_reading_path_leads_to_files_that_exist() -> None:
    section = README.split("## Read in this order")[1].split("\n## ")[0]
    named = re.findall(r"`([\w/]+\.(?:py|md|toml))`", section)
    assert len(named) >= 6
    assert [path for path in named if not Path(path).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_files_that_a_document_names_exist(path: Path) -> None:
    named = set(
        re.findall(
            r"\b((?:agent|distill|store|config|tests)/[\w/.]+\.(?:py|toml))\b", path.read_text()
        )
    )
    assert {name for name in named if not Path(name).exists()} == set()


def test_the_changelog_is_of_this_version() -> None:
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in Path("CHANGELOG.md").read_text()


def test_every_verb_stands_in_the_readme_and_there_are_at_most_twenty() -> None:
    verbs = {command.name for command in app.registered_commands}
    verbs |= {group.name for group in app.registered_groups}
    assert len(verbs) <= 20
    assert {verb for verb in verbs if f"`byheart {verb}" not in README} == set()
