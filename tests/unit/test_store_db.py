"""The database: migrations, transactions, and the values that it can store."""

import contextlib
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError as SQLError
from sqlalchemy.exc import StatementError

from store import db as store_db
from store import interactions, namespaces, operations, prompts, records
from store import upgrade as store_upgrade
from store.db import Database, DatabaseError, insert_if_absent, without_password
from store.models import Namespace, Payload
from store.schema import Base
from tests.support.factories import NOW, make_record, user

assert operations  # its tables are part of the metadata


def test_upgrading_a_blank_database_creates_the_schema_of_the_models(blank_url: str) -> None:
    database = Database(blank_url)
    store_upgrade.upgrade(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_the_newest_revision_is_the_one_that_alembic_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(store_upgrade.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [store_upgrade.HEAD]


def test_an_upgrade_can_be_repeated(any_db: Database) -> None:
    store_upgrade.upgrade(any_db)
    store_upgrade.upgrade(any_db)
    any_db.check()


def test_a_newer_schema_is_rejected(blank_url: str) -> None:
    database = Database(blank_url)
    store_upgrade.upgrade(database)
    with database.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999_future'"))
    with pytest.raises(DatabaseError, match="newer byheart"):
        store_upgrade.upgrade(database)
    database.close()


def test_a_failing_upgrade_changes_nothing(blank_url: str) -> None:
    database = Database(blank_url)
    with database.begin() as session:
        session.execute(text("CREATE TABLE jobs (id INTEGER)"))  # in the way of the revision
    with pytest.raises(SQLError, match="jobs"):
        store_upgrade.upgrade(database)
    with database.begin() as session:
        session.execute(text("DROP TABLE jobs"))
    store_upgrade.upgrade(database)
    database.close()


def test_a_read_transaction_cannot_write(any_db: Database) -> None:
    with pytest.raises(SQLError, match=r"read-?only"), any_db.read() as session:
        namespaces.ensure(session, "shop", NOW)
    with any_db.begin() as session:  # the pooled connection can write again
        namespaces.ensure(session, "shop", NOW)


def test_a_read_transaction_does_not_wait_for_a_writer(any_db: Database) -> None:
    with any_db.begin() as writer:
        namespaces.ensure(writer, "shop", NOW)
        with any_db.read() as reader:
            assert namespaces.names(reader) == []


def test_a_read_transaction_sees_one_snapshot(any_db: Database) -> None:
    with any_db.read() as reader:
        before = namespaces.names(reader)
        with any_db.begin() as writer:
            namespaces.ensure(writer, "shop", NOW)
        assert namespaces.names(reader) == before == []


def test_a_writer_waits_at_its_first_statement_or_not_at_all(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_db, "BUSY_TIMEOUT_MS", 50)
    impatient = Database(db.url)
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        # Refused at the first statement, which only reads, or not at all: never half-way.
        with pytest.raises(SQLError, match="locked"), impatient.begin() as other:
            namespaces.names(other)
    with impatient.begin() as other:
        assert namespaces.names(other) == ["shop"]
    impatient.close()


def test_postgresql_has_the_same_lock_timeout_as_sqlite(
    shared_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_db, "BUSY_TIMEOUT_MS", 50)
    impatient = Database(shared_postgres.url)
    with shared_postgres.begin() as session, impatient.begin() as other:
        session.execute(text("SELECT pg_advisory_xact_lock(7)"))
        with pytest.raises(SQLError, match="lock timeout"):
            other.execute(text("SELECT pg_advisory_xact_lock(7)"))
    impatient.close()


def test_an_upgrade_waits_for_another_one(
    shared_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_db, "BUSY_TIMEOUT_MS", 1)
    impatient = Database(shared_postgres.url)
    upgrade = threading.Thread(target=store_upgrade.run_migrations, args=[impatient.engine])
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with shared_postgres.begin() as session:
        session.execute(text(f"SELECT pg_advisory_xact_lock({store_upgrade.UPGRADE_LOCK})"))
        upgrade.start()
        while not session.scalar(waiting):
            assert upgrade.is_alive()
    upgrade.join()
    impatient.close()


def test_timeouts_in_the_url_take_precedence(shared_postgres: Database) -> None:
    url = f"{shared_postgres.url}&options=-c%20statement_timeout%3D1234&connect_timeout=9"
    database = Database(url)
    with database.read() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "1234ms"
        assert session.scalar(text("SHOW lock_timeout")) == "10s"
    database.close()


@pytest.mark.parametrize("url", ["mysql://root@localhost/byheart", "byheart.db", "sqlite:/x", "?"])
def test_an_unsupported_database_is_rejected_with_the_remedy(url: str) -> None:
    with pytest.raises(DatabaseError, match=r"store\.url"):
        Database(url)


def test_an_error_rolls_everything_back(any_db: Database) -> None:
    with contextlib.suppress(ZeroDivisionError), any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        _ = 1 / 0
    with any_db.read() as session:
        assert namespaces.names(session) == []


def test_an_old_sqlite_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_db, "MIN_SQLITE", (99, 0, 0))
    with pytest.raises(DatabaseError, match="Install pysqlite3"):
        Database("sqlite://")


def test_sqlite_syncs_commits_and_checks_foreign_keys(db: Database) -> None:
    with db.begin() as session:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        values = [session.scalar(text(f"PRAGMA {pragma}")) for pragma in pragmas]
    assert values == ["wal", 2, 1]


def test_a_dangling_row_is_reported_as_corruption(db: Database) -> None:
    with db.engine.connect() as connection, store_upgrade.foreign_keys_off(connection):
        connection.execute(
            text("INSERT INTO seeds (id, namespace, messages) VALUES (1, 'x', '[]')")
        )
        connection.commit()
    with pytest.raises(DatabaseError, match="dangling row in seeds"):
        db.check()


def test_insert_if_absent_inserts_once(any_db: Database) -> None:
    values = {"name": "shop", "created_at": NOW}
    with any_db.begin() as session:
        assert insert_if_absent(session, Namespace, values)
        assert not insert_if_absent(session, Namespace, values)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.text(st.characters(exclude_categories=()), max_size=20))
def test_every_text_that_a_client_can_send_can_be_recorded(any_db: Database, said: str) -> None:
    sent = make_record(messages=[user(said)], response=said, error=said, params={"stop": said})
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        assert records.save(session.connection(), [sent])
    with any_db.read() as session:
        payload = interactions.payload(session, sent.id)
        assert payload is not None
        assert payload.messages == [user(said)]
        assert len(payload.response) == len(said)


def test_times_are_stored_exactly_and_naive_ones_are_rejected(any_db: Database) -> None:
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    with any_db.read() as session:
        assert session.get_one(Namespace, "shop").created_at == NOW
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(StatementError, match="naive"), any_db.begin() as session:
        namespaces.ensure(session, "other", naive)


def test_an_error_does_not_contain_client_text(any_db: Database) -> None:
    secret = "my card is 4111 1111"
    lost = Payload(interaction="nope", messages=[user(secret)], params={}, response=secret)
    with pytest.raises(SQLError) as caught, any_db.begin() as session:
        session.add(lost)
    assert secret not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:s3cret@db/by", "postgresql://ann:***@db/by"),
        ("postgresql://db/by?user=ann&password=s3cret", "postgresql://db/by?password=%2A%2A%2A&u"),
        ("sqlite:////data/by.db", "sqlite:////data/by.db"),
        ("not a url: s3cret", "***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url).startswith(shown)
    assert "s3cret" not in without_password(url)


def test_nan_is_rejected_on_every_database(any_db: Database) -> None:
    anchors = [([user("?")], {"score": float("nan")})]
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    with pytest.raises((ValueError, StatementError), match="JSON"), any_db.begin() as session:
        prompts.replace_anchors(session, "shop", anchors)


@pytest.mark.parametrize("name", ["", "Shop", "a b", "-a", "a" * 65, "ä", "a\n"])
def test_an_invalid_namespace_name_is_rejected(db: Database, name: str) -> None:
    with pytest.raises(namespaces.BadName, match="letter or digit first"), db.begin() as session:
        namespaces.ensure(session, name, NOW)


def test_the_revision_of_an_unknown_namespace_cannot_be_bumped(any_db: Database) -> None:
    with pytest.raises(namespaces.UnknownNamespace), any_db.begin() as session:
        namespaces.bump_revision(session, "nowhere")


def test_a_file_that_is_not_a_database_is_reported_as_corruption(tmp_path: Path) -> None:
    (tmp_path / "byheart.db").write_bytes(b"no database" * 1000)
    database = Database(f"sqlite:///{tmp_path / 'byheart.db'}")
    try:
        with pytest.raises(DatabaseError, match="Restore a backup"):
            store_upgrade.upgrade(database)
    finally:
        database.close()
