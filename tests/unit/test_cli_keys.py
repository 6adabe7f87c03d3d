"""`byheart keys`: keys are created as requested, shown once, and revoked."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.errors import explain
from agent.gateway.access.api_key import digest, parse, pepper
from store import audit, keys
from store.db import Database
from store.keys import Limits, Scope
from store.schema import Trust


def test_a_created_key_has_the_requested_rights_and_is_stored_only_as_a_digest(
    db: Database, run: Any, tmp_path: Path
) -> None:
    made = run("keys", "create", "bot", "-s", "infer", "--concurrent", "3", "--trust", "operator")
    assert made.exit_code == 0
    text = made.stdout.splitlines()[0]
    presented = parse(text)
    assert presented
    with db.read() as session:
        [key] = keys.keys(session)
        assert audit.verify(session) == 1
    assert key.digest == digest(pepper(tmp_path), presented)
    assert key.grant.scopes == {Scope.INFER}
    assert (key.grant.trust, key.grant.limits) == (Trust.OPERATOR, Limits(concurrent=3))
    listed = run("keys", "ls")
    assert key.id in listed.stdout
    assert presented.secret not in listed.stdout
    assert presented.secret.encode() not in (tmp_path / "byheart.db").read_bytes()
    assert (tmp_path / "pepper").stat().st_mode & 0o77 == 0


def test_a_key_acts_in_one_namespace_or_in_all(db: Database, run: Any) -> None:
    assert run("keys", "create", "one").exit_code == 0
    assert run("keys", "create", "all", "-n", "*", "--expires-in-days", "9").exit_code == 0
    with db.read() as session:
        one, other = keys.keys(session)
    assert (one.grant.namespace, other.grant.namespace) == ("default", None)
    assert other.grant.expires_at
    assert one.grant.expires_at is None


def test_a_revoked_key_is_listed_as_such(run: Any) -> None:
    made = json.loads(run("keys", "create", "bot", "-o", "json").stdout)["key"]
    key_id = made.split("_")[1]
    assert run("keys", "revoke", key_id, "--yes").exit_code == 0
    [row] = json.loads(run("keys", "ls", "-o", "json").stdout)
    assert row["state"] == "revoked"


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", " "),
        ("create", "bot", "-n", "nowhere"),
        ("revoke", "0" * 16, "--yes"),
    ],
)
def test_invalid_key_commands_exit_with_2_and_a_message(
    run: Any, arguments: tuple[str, ...]
) -> None:
    error = run("keys", *arguments).exception
    message, code = explain(error)
    assert message
    assert code == 2


def test_an_unknown_trust_exits_with_2_and_names_the_valid_ones(run: Any) -> None:
    refused = run("keys", "create", "bot", "--trust", "model")
    assert refused.exit_code == 2
    assert "'model' is not one of 'operator', 'user'" in refused.output
