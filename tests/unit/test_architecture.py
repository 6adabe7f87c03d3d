"""The shape of the code, as CONTRIBUTING.md states it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("agent", "distill", "store", "config")
MODULES = sorted(
    path
    for package in PACKAGES
    for path in Path(package).rglob("*.py")
    if "versions" not in path.parts
)
BANNED = {"utils", "helpers", "misc", "common", "manager", "handler", "service_base", "core"}
TRAINING = ("torch", "transformers", "peft", "vllm")


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_has_at_most_300_lines_and_its_functions_60(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
    assert [node.name for node in functions(path) if lines(node) > 60] == []


def test_functions_are_mostly_under_15_lines() -> None:
    lengths = sorted(lines(node) for path in MODULES for node in functions(path))
    assert lengths[len(lengths) // 2] < 15
    assert lengths[int(len(lengths) * 0.9)] <= 35


def test_no_module_has_a_meaningless_name() -> None:
    assert [path for path in MODULES if path.stem in BANNED] == []


def test_every_module_has_a_docstring() -> None:
    assert [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize("module", ["agent.daemon", "agent.cli.app", "store.db", "config.settings"])
def test_serving_starts_without_the_training_stack(module: str) -> None:
    script = f"import sys, {module}; print([name for name in {TRAINING!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
