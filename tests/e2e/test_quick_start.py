"""README's quick start against a real daemon with the embedded model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import blocks
from tests.support.running_daemon import RunningDaemon, run_daemon
from tests.support.until import until_sync


@pytest.fixture(scope="module")
def daemon(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    settings = {"BYHEART_ENGINE__MODEL": str(base_model)}
    with run_daemon(tmp_path_factory.mktemp("quick"), settings, timeout_s=300) as running:
        yield running


def test_the_quick_start_of_the_readme_corrects_an_answer(daemon, capsys):
    [code] = blocks(Path("README.md"), "python")

    def wait() -> None:
        until_sync(lambda: daemon.cli("lessons", "ls", "-o", "json"), 120, daemon.logfile.read_text)

    here = {
        "http://127.0.0.1:8080": daemon.url,
        "SmolLM2-135M-Instruct": daemon.model,
        "time.sleep(60)": "wait()",
    }
    for there, ours in here.items():
        assert code.count(there) == 1
        code = code.replace(there, ours)
    names = {"wait": wait}
    exec(code, names)
    names["client"].close()

    *wrong, right = filter(None, map(str.strip, capsys.readouterr().out.splitlines()))
    assert "6 years" not in " ".join(wrong)
    assert "6 years" in right
