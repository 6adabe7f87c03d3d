"""Saving records: once, in any order and batches, and aborting interrupted ones."""

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from store import conversations, interactions, namespaces, records
from store.db import Database, Session
from store.models import Interaction
from store.records import INTERRUPTED, Record
from store.schema import MIN_COMPRESSED_BYTES, InteractionStatus
from store.upgrade import run_migrations, upgrade
from tests.support.factories import NOW, assistant, make_record, user

RUNNING, DONE, ABORTED = (
    InteractionStatus.RUNNING,
    InteractionStatus.DONE,
    InteractionStatus.ABORTED,
)


def begun(ended: Record) -> Record:
    """The beginning of an interaction that ends like this."""
    return dataclasses.replace(ended, status=RUNNING, response="", params={}, total_ms=0.0)


def kept(session: Session, one: Record) -> dict[str, Any]:
    row = session.get_one(Interaction, one.id, populate_existing=True)
    texts = interactions.payload(session, one.id)
    assert texts
    session.refresh(texts)
    columns = {one.key: getattr(row, one.key) for one in Interaction.__table__.columns}
    return columns | {"texts": (texts.messages, texts.params, texts.response)}


def test_a_running_interaction_is_listed_but_is_not_a_turn(shop: Database) -> None:
    ended = make_record()
    with shop.begin() as session:
        assert records.save(session.connection(), [begun(ended)]) == 1
        row = session.get_one(Interaction, ended.id)
        assert row.status is RUNNING
        assert interactions.turns(session, row.conversation) == []
        assert conversations.count_entries(session, row.conversation) == 0
        assert records.save(session.connection(), [ended]) == 1
        session.expire_all()
        (turn,) = interactions.turns(session, row.conversation)
        assert (turn.interaction.status, turn.response) == (DONE, "Yes.")
        assert conversations.count_entries(session, row.conversation) == 1


@pytest.mark.parametrize(
    "length",
    [
        0,
        MIN_COMPRESSED_BYTES - 3,
        MIN_COMPRESSED_BYTES - 2,
        MIN_COMPRESSED_BYTES - 1,
        9 * MIN_COMPRESSED_BYTES,
    ],
)
def test_texts_of_every_length_round_trip(shop: Database, length: int) -> None:
    said = make_record(messages=[user("x" * length)], response="x" * length)
    with shop.begin() as session:
        records.save(session.connection(), [said])
        assert kept(session, said)["texts"] == (said.messages, said.params, said.response)


BATCHES = st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=5)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_a_final_record_is_counted_once_and_kept_in_every_order_of_arrival(
    shop: Database, batches: list[list[bool]]
) -> None:
    ended, alone = make_record(), make_record()
    alone = dataclasses.replace(ended, id=alone.id)
    with shop.begin() as session:
        for batch in batches:
            records.save(
                session.connection(), [ended if is_end else begun(ended) for is_end in batch]
            )
        records.save(session.connection(), [ended])
        records.save(session.connection(), [begun(ended)])
        records.save(session.connection(), [alone])
        differ = {"id", "conversation"}
        one, other = kept(session, ended), kept(session, alone)
        assert {key: one[key] for key in one.keys() - differ} == {
            key: other[key] for key in other.keys() - differ
        }
        assert conversations.count_entries(session, one["conversation"]) == 1


def test_turns_in_one_batch_are_one_conversation(shop: Database) -> None:
    said: list[dict[str, Any]] = []
    batch = []
    for turn in range(3):
        said = [*said, user(f"Question {turn}?")]
        batch.append(make_record(messages=said, response=f"Answer {turn}."))
        said = [*said, assistant(f"Answer {turn}.")]
    with shop.begin() as session:
        assert records.save(session.connection(), batch) == 3
        found = {session.get_one(Interaction, one.id).conversation for one in batch}
    assert len(found) == 1


def test_a_daemon_aborts_only_its_orphaned_interactions(shop: Database) -> None:
    dead, fresh, elsewhere, over = (
        make_record(server=server, status=status)
        for server, status in (
            ("here", RUNNING),
            ("here", RUNNING),
            ("there", RUNNING),
            ("here", DONE),
        )
    )
    with shop.begin() as session:
        records.save(session.connection(), [dead, fresh, elsewhere, over])
        assert records.abort_running(session, "here", {fresh.id}) == 1
        states = [session.get_one(Interaction, one.id) for one in (dead, fresh, elsewhere, over)]
        assert [row.status for row in states] == [ABORTED, RUNNING, RUNNING, DONE]
        assert states[0].error == INTERRUPTED


def test_a_late_final_record_replaces_an_abort(shop: Database) -> None:
    late, left = (make_record(server="here", status=status) for status in (RUNNING, ABORTED))
    with shop.begin() as session:
        records.save(session.connection(), [late, left])
        records.abort_running(session, "here", ())
    with shop.begin() as session:
        ends = [dataclasses.replace(one, status=DONE, response="End.") for one in (late, left)]
        assert records.save(session.connection(), ends) == 1
        assert records.save(session.connection(), ends) == 0
        states = [session.get_one(Interaction, one.id) for one in (late, left)]
        assert [row.status for row in states] == [DONE, ABORTED]
        assert states[0].error is None
        payload = interactions.payload(session, late.id)
        assert payload
        assert payload.response == "End."


@pytest.mark.parametrize("rows", [0, 3, 1203])
def test_texts_of_an_older_release_are_readable(blank_url: str, rows: int) -> None:
    database = Database(blank_url)
    run_migrations(database.engine, "0001_first")
    with database.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        session.execute(
            text("INSERT INTO conversations VALUES ('c', false, :at, 0, 0, 'shop')"),
            {"at": str(NOW)},
        )
        for number in range(rows):
            _insert_old(session, f"int_{number:05}", f"Answer {number} \N{SNOWMAN}")
    upgrade(database)
    database.check()
    with database.read() as session:
        for number in range(rows):
            texts = interactions.payload(session, f"int_{number:05}")
            assert texts
            assert texts.response == f"Answer {number} \N{SNOWMAN}"
            assert (texts.messages, texts.params) == ([user("Hi")], {"n": 1})
            row = session.get_one(Interaction, f"int_{number:05}")
            assert (row.arm, row.auxiliary) == ("live", False)
    database.close()


def test_a_record_spooled_by_an_older_release_is_read_with_current_names() -> None:
    record = make_record(arm="live", auxiliary=True)
    values = record.to_json() | {"arm": "champion"}
    values["side"] = values.pop("auxiliary")
    assert Record.from_json(values) == record


def _insert_old(session: Session, key: str, response: str) -> None:
    values = {
        "id": key,
        "at": str(NOW),
        "messages": '[{"role": "user", "content": "Hi"}]',
        "params": '{"n": 1}',
        "response": response,
    }
    session.execute(
        text(
            "INSERT INTO interactions (id, principal, version, arm, context_hash, prefix_hash, "
            "trust, status, learn, created_at, tokens_saved, total_ms, namespace, conversation) "
            "VALUES (:id, 'p', 'base', 'champion', '', '', 'user', 'done', true, :at, 0, 1.0, "
            "'shop', 'c')"
        ),
        values,
    )
    session.execute(
        text("INSERT INTO payloads VALUES (:messages, :params, :response, :id)"), values
    )
