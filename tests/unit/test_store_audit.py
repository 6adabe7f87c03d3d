"""The audit chain detects every change except a rewrite of the whole chain."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from store import audit
from store.audit import Tampered
from store.db import Database
from tests.support.factories import later

ROWS = 5
COLUMNS = ["at", "actor", "action", "subject", "detail", "prev_hash", "hash"]


@pytest.fixture
def log(any_db: Database) -> Database:
    with any_db.begin() as session:
        for row in range(ROWS):
            audit.append(session, "op", "promote", f"bh-{row}", {"row": row, "x": 0.1}, later(row))
    return any_db


def _tampered(log: Database, statement: str) -> int:
    """Where `verify` stops after the statement, which is undone."""
    found = 0
    with contextlib.suppress(_Undo), log.begin() as session:
        session.execute(text(statement))
        with pytest.raises(Tampered) as caught:
            audit.verify(session)
        found = caught.value.seq
        raise _Undo
    return found


class _Undo(Exception):
    pass


def test_an_untouched_log_verifies(log: Database) -> None:
    with log.read() as session:
        assert audit.verify(session) == ROWS


def test_an_empty_log_verifies(any_db: Database) -> None:
    with any_db.read() as session:
        assert audit.verify(session) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.sampled_from(COLUMNS), seq=st.integers(1, ROWS))
def test_any_modified_row_is_detected(log: Database, column: str, seq: int) -> None:
    forged = {"at": "2020-01-01 00:00:00.000000", "detail": '{"row": 99}'}.get(column, "forged")
    found = _tampered(log, f"UPDATE audit SET {column} = '{forged}' WHERE seq = {seq}")
    assert found in (seq, seq + 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gone=st.sets(st.integers(1, ROWS), min_size=1))
def test_any_deleted_rows_are_detected(log: Database, gone: set[int]) -> None:
    rows = ", ".join(map(str, gone))
    assert _tampered(log, f"DELETE FROM audit WHERE seq IN ({rows})")


def test_a_row_inserted_past_the_end_is_detected(log: Database) -> None:
    with log.begin() as session:
        session.execute(
            text(
                "INSERT INTO audit (seq, at, actor, action, subject, detail, prev_hash, hash) "
                f"SELECT {ROWS} + 1, at, actor, action, subject, detail, hash, hash FROM audit "
                f"WHERE seq = {ROWS}"
            )
        )
    with pytest.raises(Tampered), log.read() as session:
        audit.verify(session)


def test_a_missing_head_is_detected(log: Database) -> None:
    with log.begin() as session:
        session.execute(text("DELETE FROM audit_head"))
    with pytest.raises(Tampered), log.read() as session:
        audit.verify(session)


def test_replaced_unstorable_text_is_not_mistaken_for_tampering(any_db: Database) -> None:
    with any_db.begin() as session:
        audit.append(session, "a\x00\ud800", "b", "c", {"d": "\x00\ud800"}, later(0))
    with any_db.read() as session:
        assert audit.verify(session) == 1
