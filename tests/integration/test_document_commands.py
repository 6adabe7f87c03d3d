"""Every command in a document exists, takes the options it has there, and is run by a test.

Quick commands run here, on an empty data folder. `RUN_BY` names the test that runs each of the
others.
"""

import ast
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from agent.cli.app import app
from agent.gateway.apis import APIS
from agent.gateway.app import find
from agent.gateway.feedback import FeedbackRequest
from distill.__main__ import _parser
from tests.integration.test_cli import Shell
from tests.support.documents import DOCUMENTS, Command, commands

COMMANDS = [command for path in DOCUMENTS for command in commands(path)]
PLACEHOLDER = re.compile(r"\.\.\.|^[A-Z_]+$")
RUN_BY = {
    "byheart serve": "tests/support/running_daemon.py",
    "byheart worker": "tests/integration/test_cli.py",
    "byheart demo": "Makefile",
    "byheart compile": "tests/integration/test_cli.py",
    "byheart train now": "tests/integration/test_cli.py",
    "byheart train show": "tests/unit/test_cli_show.py",
    "byheart train cancel": "tests/unit/test_cli_audit.py",
    "byheart adapters show": "tests/unit/test_cli_show.py",
    "byheart rollout promote": "tests/unit/test_cli_audit.py",
    "byheart rollback": "tests/e2e/test_loop.py",
    "byheart why": "tests/unit/test_cli_interactions.py",
    "byheart lessons add": "tests/integration/test_cli.py",
    "byheart lessons show": "tests/unit/test_cli_lessons.py",
    "byheart lessons edit": "tests/unit/test_cli_lessons.py",
    "byheart lessons approve": "tests/unit/test_cli_lessons.py",
    "byheart lessons retire": "tests/integration/test_daemon.py",
    "byheart keys revoke": "tests/unit/test_cli_keys.py",
    "byheart namespaces clear": "tests/integration/test_cli.py",
    "python -m distill train": "tests/integration/test_distill_train.py",
    "python -m distill embed": "tests/e2e/conftest.py",
    "python -m distill run": "tests/integration/test_distill_daemon_run.py",
}
"""The test that runs a command which needs a daemon, a model or an id."""


def of(program: str) -> list[Command]:
    return [command for command in COMMANDS if " ".join(command.words).startswith(program)]


def resolved(words: tuple[str, ...]) -> tuple[TyperCommand | TyperGroup, str, list[str]]:
    """The verb that `byheart WORDS` runs, its full name, and its arguments."""
    verb, name, rest = typer.main.get_command(app), "byheart", list(words[1:])
    while isinstance(verb, TyperGroup) and rest and not rest[0].startswith("-"):
        name, word = f"{name} {rest[0]}", rest.pop(0)
        assert word in verb.commands, f"{name} is no verb"
        verb = verb.commands[word]
    return verb, name, rest


@pytest.mark.parametrize("command", of("byheart"), ids=str)
def test_documented_arguments_of_byheart_verbs_are_valid(command):
    verb, name, rest = resolved(command.words)
    if rest:
        with verb.make_context(name, rest):
            pass


def runnable(command: Command) -> bool:
    verb, name, rest = resolved(command.words)
    is_whole = not isinstance(verb, TyperGroup) and name not in RUN_BY
    needs = any(one.required for one in verb.params)
    return is_whole and (bool(rest) or not needs) and not any(map(PLACEHOLDER.search, rest))


QUICK = {command.words: command for command in of("byheart") if runnable(command)}


@pytest.fixture(scope="module")
def byheart(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell(tmp_path_factory.mktemp("documents"))
    assert shell("namespaces", "add", "shop").returncode == 0
    return shell


@pytest.mark.parametrize("command", QUICK.values(), ids=str)
def test_documented_quick_verbs_run(command, byheart):
    done = byheart(*command.words[1:])
    assert done.returncode == 0, done.stderr


def test_every_other_documented_verb_is_run_by_an_existing_test():
    others = [command for command in of("byheart") if command.words not in QUICK]
    verbs = [resolved(command.words)[:2] for command in others]
    names = {name for verb, name in verbs if not isinstance(verb, TyperGroup)}
    quick = {resolved(words)[1] for words in QUICK}
    assert names - quick - RUN_BY.keys() == set()
    for name, place in RUN_BY.items():
        call = f"byheart {name.split()[1]}" if place == "Makefile" else arguments(name)
        assert call in Path(place).read_text(), f"{place} does not run {name}"


def arguments(name: str) -> str:
    """How a test spells a verb: as arguments of a process."""
    words = name.split()[1:] if name.startswith("byheart") else name.split()[-1:]
    return ", ".join(f'"{word}"' for word in words)


@pytest.mark.parametrize("command", of("python -m distill"), ids=str)
def test_documented_options_of_the_trainer_are_valid(command):
    if len(command.words) > 4:
        assert _parser().parse_args(command.words[3:]).command == command.words[3]


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_documented_make_targets_exist(command):
    makefile = Path("Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    target = command.words[1]
    assert target in phony.group(1).split() or target == "bench-..."


@pytest.mark.parametrize("command", of("curl"), ids=str)
def test_documented_requests_are_valid_for_the_gateway(command):
    data = command.words[command.words.index("-d") + 1] if "-d" in command.words else ""
    [url] = [word for word in command.words if word.startswith("localhost")]
    path = urlsplit(f"http://{url}").path
    find(path, "POST" if data else "GET")
    if data:
        schemas = {api.path: api.request for api in APIS} | {"/v1/feedback": FeedbackRequest}
        schemas[path].model_validate(json.loads(data.replace("...", "1")))


def test_the_documents_have_commands_of_every_program():
    assert all(of(program) for program in ("byheart", "python -m distill", "make", "curl"))


def test_python_blocks_in_the_documents_parse():
    for path in DOCUMENTS:
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            ast.parse(block)
