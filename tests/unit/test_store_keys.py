"""Keys: created once, valid until revoked or expired."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from agent.gateway.access.api_key import (
    digest,
    first_admin_key,
    format_key,
    generate_key,
    issue_key,
    parse,
)
from store import audit, keys
from store.db import Database
from store.keys import Grant, Limits, Scope, TrustConflict, UnknownKey
from store.namespaces import UnknownNamespace
from store.schema import Trust
from tests.support.factories import NOW, later

PEPPER = "pepper"
APP = Grant("app", "shop", Trust.USER, frozenset({Scope.INFER}), Limits(2, 60, 1000))


def test_a_stored_key_equals_the_created_one_without_its_secret(shop: Database) -> None:
    with shop.begin() as session:
        held = issue_key(session, PEPPER, APP, "operator", NOW)
    presented = parse(held)
    assert presented
    with shop.read() as session:
        (key,) = keys.keys(session)
        tables = [session.execute(text(f"SELECT * FROM {name}")).all() for name in TABLES]
    assert (key.id, key.grant, key.is_valid(NOW)) == (presented.id, APP, True)
    assert key.digest == digest(PEPPER, presented)
    assert presented.secret not in repr(tables)
    assert PEPPER not in repr(tables)


TABLES = ("api_keys", "principals", "audit")


def test_the_digest_depends_on_secret_and_pepper() -> None:
    key = generate_key()
    other = parse(f"bh_{key.id}_{'0' * 64}")
    assert other
    assert len({digest(PEPPER, key), digest(PEPPER, other), digest("salt", key)}) == 3


@pytest.mark.parametrize("change", ["{}0", "{} ", "b{}", "{}\n"])
def test_a_malformed_key_is_not_parsed(change: str) -> None:
    held = format_key(generate_key())
    assert parse(held)
    assert parse(change.format(held)) is None
    assert parse(held.upper()) is None


def test_a_key_is_valid_until_it_expires_or_is_revoked(shop: Database) -> None:
    short = Grant("app", "shop", Trust.USER, APP.scopes, expires_at=NOW + timedelta(seconds=5))
    with shop.begin() as session:
        issue_key(session, PEPPER, short, "operator", NOW)
        (key,) = keys.keys(session)
        assert key.is_valid(later(4))
        assert not key.is_valid(later(5))
        for _ in range(2):
            keys.revoke(session, key.id, "operator", later(1))
        (key,) = keys.keys(session)
        assert not key.is_valid(NOW)
        assert audit.verify(session) == 2
        assert keys.count(session) == (1, 1)


def test_two_keys_of_one_principal_count_as_one_supporter(shop: Database) -> None:
    with shop.begin() as session:
        for grant in (APP, Grant("app", "shop", Trust.USER, frozenset({Scope.FEEDBACK}))):
            issue_key(session, PEPPER, grant, "operator", NOW)
        issue_key(session, PEPPER, Grant("app", "bank", Trust.USER, APP.scopes), "operator", NOW)
        made = {key.grant.namespace: key.principal for key in keys.keys(session)}
        assert len({key.principal for key in keys.keys(session)}) == 2
        assert made["shop"] != made["bank"]


def test_another_key_cannot_raise_the_trust_of_a_principal(shop: Database) -> None:
    with shop.begin() as session:
        issue_key(session, PEPPER, APP, "operator", NOW)
        more = Grant("app", "shop", Trust.OPERATOR, APP.scopes)
        with pytest.raises(TrustConflict, match="another name"):
            issue_key(session, PEPPER, more, "operator", NOW)


def test_an_unknown_namespace_or_key_id_is_an_error(shop: Database) -> None:
    nowhere = Grant("app", "nowhere", Trust.USER, APP.scopes)
    with pytest.raises(UnknownNamespace), shop.begin() as session:
        issue_key(session, PEPPER, nowhere, "operator", NOW)
    with pytest.raises(UnknownKey), shop.begin() as session:
        keys.revoke(session, "0" * 16, "operator", NOW)


def test_the_first_admin_key_is_created_once_and_again_when_it_is_revoked(shop: Database) -> None:
    in_one = Grant("boss", "shop", Trust.OPERATOR, frozenset(Scope))
    with shop.begin() as session:
        issue_key(session, PEPPER, in_one, "operator", NOW)
    held = first_admin_key(shop, PEPPER, NOW)
    assert held
    presented = parse(held)
    assert presented
    assert first_admin_key(shop, PEPPER, NOW) is None
    with shop.begin() as session:
        key = keys.find(session, presented.id)
        assert key
        assert key.grant.namespace is None
        assert key.grant.scopes == set(Scope)
        keys.revoke(session, presented.id, "operator", NOW)
    assert first_admin_key(shop, PEPPER, NOW)
