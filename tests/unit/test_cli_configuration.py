"""`byheart config`: what it shows, and what it must not show."""

import json

import pytest

from agent.cli import configuration


def test_secrets_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BYHEART_STORE__URL", "postgresql://ann:s3cret@db/byheart")
    monkeypatch.setenv("BYHEART_ENGINE__API_KEY", "s3cret")
    configuration.print_settings(None)
    printed = capsys.readouterr().out
    assert json.loads(printed)["store"]["url"] == "postgresql://ann:***@db/byheart"
    assert "s3cret" not in printed
