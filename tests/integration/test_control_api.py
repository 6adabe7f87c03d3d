"""The control API: what each key may see and change, and the separation of namespaces."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.control import interactions as control_interactions
from agent.gateway.access.api_key import issue_key
from config.sections import Server
from store import audit, feedback, keys, prompts
from store.contexts import Message
from store.feedback import NewFeedback
from store.keys import Grant, Limits, Scope
from store.schema import Trust
from tests.support.factories import NOW, add_adapter, add_lesson, assistant, go_live, record, user
from tests.support.running_control_api import API, create_key, pages, run_control_api
from tests.support.running_gateway import PEPPER, RunningGateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway with the control API."""
    async with run_control_api(tmp_path) as gateway:
        yield gateway


async def test_interactions_are_searched_page_by_page(gateway: RunningGateway) -> None:
    with gateway.state.db.begin() as session:
        made = [
            record(
                session,
                namespace="default",
                conversation=f"c{number % 3}",
                messages=[user(f"Question {number}?")],
                response="Lamps." if number % 5 == 0 else "Chairs.",
            )
            for number in range(23)
        ]
    ids = [one.id for one in made][::-1]
    assert [row["id"] for row in await pages(gateway, "/interactions", limit=5)] == ids
    lamps = await pages(gateway, "/interactions", contains="LAMPS", limit=2)
    assert [row["id"] for row in lamps] == [made[n].id for n in (20, 15, 10, 5, 0)]
    asked = await pages(gateway, "/interactions", contains="question 7?")
    assert [row["id"] for row in asked] == [made[7].id]
    conversations = await pages(gateway, "/conversations", limit=2)
    assert sorted(row["interactions"] for row in conversations) == [7, 8, 8]
    status, said = await gateway.fetch("GET", f"{API}/conversations/{conversations[0]['id']}")
    assert (status, len(said["turns"])) == (200, conversations[0]["interactions"])
    path = f"{API}/conversations/{conversations[0]['id']}"
    first = (await gateway.fetch("GET", path, params={"limit": 4}))[1]
    rest = (await gateway.fetch("GET", path, params={"after": first["next"]}))[1]
    assert [len(first["turns"]), rest["next"]] == [4, None]
    assert first["turns"] + rest["turns"] == said["turns"]
    status, said = await gateway.fetch("GET", f"{API}/interactions/{made[3].id}")
    assert said["messages"] == [user("Question 3?")]


async def test_explain_shows_the_lessons_in_an_answers_prompt_and_those_learned_from_it(
    gateway: RunningGateway,
) -> None:
    gateway.add_lesson("We open at nine.")
    async with gateway.client() as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="small", messages=[{"role": "user", "content": "When do you open?"}]
        )
    interaction = raw.headers["X-Byheart-Interaction"]
    status, said = await gateway.fetch("GET", f"{API}/interactions/{interaction}/explain")
    assert status == 200
    assert said["version"] == "base"
    assert said["lessons_in_prompt"] == ["We open at nine."]
    assert said["learned"] == []


async def test_a_lesson_is_pinned_and_given_an_expiry(gateway: RunningGateway) -> None:
    new = {"do": "We open at nine.", "pinned": True, "expires_at": "2999-01-31T00:00:00Z"}
    status, lesson = await gateway.fetch("POST", f"{API}/lessons", json=new)
    assert (status, lesson["pinned"]) == (201, True)
    assert lesson["expires_at"].startswith("2999-01-31T00:00:00")
    path = f"{API}/lessons/{lesson['id']}"
    change = {"pinned": False, "expires_at": None}
    status, changed = await gateway.fetch("PATCH", path, json=change)
    assert (changed["id"], changed["pinned"]) == (lesson["id"], False)
    assert changed["expires_at"] is None
    past = {"expires_at": "2001-01-31T00:00:00Z"}
    status, _ = await gateway.fetch("PATCH", path, json=past)
    assert status == 400


async def test_a_lesson_is_added_edited_and_retired(gateway: RunningGateway) -> None:
    status, made = await gateway.fetch(
        "POST", f"{API}/lessons", json={"do": "We open at nine.", "kind": "fact"}
    )
    assert (status, made["status"]) == (201, "active")
    status, _ = await gateway.fetch("POST", f"{API}/lessons", json={"do": "We open at nine."})
    assert status == 409
    path = f"{API}/lessons/{made['id']}"
    status, other = await gateway.fetch("PATCH", path, json={"do": "We open at ten."})
    assert (status, other["supersedes"]) == (200, made["id"])
    path = f"{API}/lessons/{other['id']}"
    status, gone = await gateway.fetch("PATCH", path, json={"status": "retired"})
    assert (status, gone["status"]) == (200, "retired")
    assert [row["status"] for row in await pages(gateway, "/lessons")] == ["retired"] * 2
    status, one = await gateway.fetch("GET", path)
    assert one["support"][0]["principal"] == "local"
    entries = await pages(gateway, "/audit")
    assert [row["action"] for row in entries] == [
        "lesson retired",
        "lesson edited",
        "lesson added",
    ]


async def test_a_lesson_that_the_adapter_should_know_returns_to_the_prompt(
    gateway: RunningGateway,
) -> None:
    with gateway.state.db.begin() as session:
        known = add_lesson(session, "We open at nine.", "default").id
        go_live(session, "default")
    new = {"do": "We open at nine."}
    status, said = await gateway.fetch("POST", f"{API}/lessons", json=new)
    assert (status, said["id"], said["status"]) == (200, known, "active")
    assert "in the prompt again" in said["message"]
    assert (await gateway.fetch("POST", f"{API}/lessons", json=new))[0] == 409
    status, said = await gateway.fetch("POST", f"{API}/lessons", json={"do": "We close at five."})
    assert (status, said["message"]) == (201, None)


async def test_a_relapse_is_told_by_its_lesson_its_adapter_and_its_answer(
    gateway: RunningGateway,
) -> None:
    with gateway.state.db.begin() as session:
        lesson = add_lesson(session, "We open at nine.", "default").id
        name = go_live(session, "default")
        texts = {"messages": [user("When do you open?")], "response": "At ten."}
        answer = record(session, namespace="default", version=name, **texts).id
    _, before = await gateway.fetch("GET", f"{API}/lessons/{lesson}")
    given = {"target_id": answer, "name": "comment", "comment": "We open at nine."}
    await gateway.fetch("POST", "/v1/feedback", json=given)
    _, after = await gateway.fetch("GET", f"{API}/lessons/{lesson}")
    _, adapter = await gateway.fetch("GET", f"{API}/adapters/{name}")
    _, said = await gateway.fetch("GET", f"{API}/interactions/{answer}/explain")

    [known] = before["adapters"]
    assert (known["adapter"], known["internalised"], known["reason"]) == (name, True, "")
    [known] = after["adapters"]
    assert adapter["statements"] == [known]
    assert (known["learned"], known["internalised"], after["learnable"]) == (True, False, True)
    assert (known["relapse_cause"], known["relapse_interaction"]) == (
        "local corrected the answer.",
        answer,
    )
    assert said["internalised"] == ["We open at nine."]
    assert [relapse["text"] for relapse in said["relapses"]] == ["We open at nine."]


async def test_a_run_is_started_listed_and_cancelled(gateway: RunningGateway) -> None:
    assert (await gateway.fetch("POST", f"{API}/runs"))[0] == 409
    prompt = {"text": "You are kind."}
    status, _ = await gateway.fetch("PUT", f"{API}/context/system_prompt", json=prompt)
    assert status == 200
    status, begun = await gateway.fetch("POST", f"{API}/runs", json={"reason": "A test."})
    assert (status, begun["status"], begun["trigger"]) == (202, "queued", "A test.")
    status, ended = await gateway.fetch("POST", f"{API}/runs/{begun['id']}/cancel")
    assert (status, ended["status"]) == (200, "cancelled")
    assert (await gateway.fetch("POST", f"{API}/runs/{begun['id']}/cancel"))[0] == 409
    assert [row["id"] for row in await pages(gateway, "/runs", limit=1)] == [begun["id"]]
    _, context = await gateway.fetch("GET", f"{API}/context")
    assert context["system_prompt"] == "You are kind."
    assert (await gateway.fetch("POST", f"{API}/rollback"))[0] == 409


async def test_the_context_says_what_is_still_in_prompts(gateway: RunningGateway) -> None:
    with gateway.state.db.begin() as session:
        prompts.register_system_prompt(session, "default", "Be kind.\nBe brief.", 6, NOW)
        add_lesson(session, "We open at nine.", "default")
        add_lesson(session, "We close at five.", "default")
        go_live(session, "default", missed=["Be brief.", "We close at five."])
    _, context = await gateway.fetch("GET", f"{API}/context")
    assert context["system_prompt"] == "Be kind.\nBe brief."
    assert (context["system_prompt_internalised"], context["residual_system_prompt"]) == (
        False,
        "Be brief.",
    )
    assert {each["text"]: each["internalised"] for each in context["lessons"]} == {
        "We open at nine.": True,
        "We close at five.": False,
    }


async def test_adapters_are_listed_and_only_candidates_can_be_promoted(
    gateway: RunningGateway,
) -> None:
    with gateway.state.db.begin() as session:
        add_lesson(session, "We open at nine.", "default")
        names = [add_adapter(session, "default").name for _ in range(3)]
    assert [row["name"] for row in await pages(gateway, "/adapters", limit=2)] == names[::-1]
    status, said = await gateway.fetch("POST", f"{API}/adapters/{names[0]}/promote")
    assert (status, said["status"]) == (202, "candidate")
    assert (await gateway.fetch("GET", f"{API}/adapters/{names[0]}"))[1]["passed"] is None
    assert (await gateway.fetch("POST", f"{API}/adapters/nothing/promote"))[0] == 404


@pytest.mark.parametrize("path", [f"{API}/interactions", f"{API}/savings", "/v1/feedback"])
async def test_an_unknown_query_parameter_is_rejected(gateway: RunningGateway, path: str) -> None:
    assert (await gateway.fetch("GET", path))[0] == 200
    status, said = await gateway.fetch("GET", path, params={"limt": "1"})
    assert (status, said["error"]["code"]) == (400, "unknown_parameter")
    assert "'limt'" in said["error"]["message"]


async def test_bodies_must_be_uncompressed_json(tmp_path: Path) -> None:
    async with run_control_api(tmp_path) as gateway, gateway.http() as http:
        for wrong in ({"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}):
            headers = {"Content-Type": "application/json"} | wrong
            for path in (f"{API}/lessons", "/v1/feedback"):
                async with http.post(path, data=b"{}", headers=headers) as answer:
                    assert answer.status == 415
                    assert next(iter(wrong)) in (await answer.json())["error"]["message"]
        async with http.head("/healthz") as answer:
            assert (answer.status, await answer.read()) == (200, b"")


async def test_a_long_conversation_is_paged_and_each_turn_has_only_its_new_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_interactions, "PAGE_BYTES", 1000)

    async with run_control_api(tmp_path) as gateway:
        said: list[Message] = []
        with gateway.state.db.begin() as session:
            for number in range(6):
                said = [*said, user(f"{number} {'x' * 700}")]
                record(session, namespace="default", conversation="c", messages=said)
                said = [*said, assistant("Yes.")]
        [conversation] = await pages(gateway, "/conversations")
        path, after = f"{API}/conversations/{conversation['id']}", {}
        turns, sizes = [], []
        while after is not None:
            page = (await gateway.fetch("GET", path, params=after))[1]
            turns += page["turns"]
            sizes.append(len(page["turns"]))
            after = {"after": page["next"]} if page["next"] else None
        assert sizes == [2, 2, 2]
        assert [turn["messages"] for turn in turns] == [[each] for each in said[::2]]


async def test_keys_are_created_listed_and_revoked(tmp_path: Path) -> None:
    async with run_control_api(tmp_path, needs_key=True) as gateway:
        boss = create_key(gateway, None, *Scope)
        status, made = await gateway.fetch("POST", f"{API}/keys", boss, json={"name": "app"})
        assert status == 201
        assert (await gateway.fetch("GET", "/v1/models", made["key"]))[0] == 200
        rows = await pages(gateway, "/keys", boss, limit=1)
        assert len(rows) == 2
        [row] = [row for row in rows if row["name"] == "app"]
        assert made["key"].rsplit("_", 1)[1] not in str(rows)
        assert (await gateway.fetch("DELETE", f"{API}/keys/{row['id']}", boss))[0] == 200
        assert (await gateway.fetch("DELETE", f"{API}/keys/nothing", boss))[0] == 404
        for odd in ({"trust": "model"}, {"expires_at": "2001-01-01T00:00:00Z"}):
            body = {"name": "app"} | odd
            assert (await gateway.fetch("POST", f"{API}/keys", boss, json=body))[0] == 400
        with gateway.state.db.read() as session:
            assert audit.verify(session) == 3


async def test_a_key_creates_keys_with_at_most_its_own_rights(gateway: RunningGateway) -> None:
    until = datetime.now(UTC) + timedelta(days=2)
    scopes = frozenset({Scope.ADMIN, Scope.INFER})
    grant = Grant("lead", "shop", Trust.USER, scopes, Limits(), until)
    limited = replace(grant, name="limited", limits=Limits(None, 30, 100))
    with gateway.state.db.begin() as session:
        lead, bounded = (
            issue_key(session, PEPPER, each, "operator", datetime.now(UTC))
            for each in (grant, limited)
        )

    async def made(key: str = lead, **asked: Any) -> tuple[int, Any]:
        body = {"name": "new", "scopes": ["infer"]} | asked
        return await gateway.fetch("POST", f"{API}/keys", key, json=body)

    for more in (
        {"scopes": ["infer", "read"]},
        {"trust": "operator"},
        {"key": bounded, "requests_per_minute": 1},
        {"expires_at": (until + timedelta(days=1)).isoformat()},
    ):
        status, answer = await made(**more)
        assert (status, answer["error"]["code"]) == (403, "grant_exceeded"), more
    status, _ = await made(requests_per_minute=20)
    with gateway.state.db.read() as session:
        [new] = [each for each in keys.keys(session) if each.grant.name == "new"]
        told = audit.page(session, None, 10)[0].detail

    assert status == 201
    assert new.grant.limits == Limits(None, 20, None)
    assert new.grant.expires_at == until
    assert told["limits"]["requests_per_minute"] == 20


async def test_the_control_api_rejects_wrong_methods_cursors_and_huge_bodies(
    tmp_path: Path,
) -> None:
    async with run_control_api(tmp_path) as gateway, gateway.http() as http:
        async with http.head(f"{API}/interactions") as head:
            assert (head.status, await head.read()) == (200, b"")
        async with http.delete(f"{API}/interactions") as wrong:
            assert (wrong.status, wrong.headers["Allow"]) == (405, "GET")
        for path in ("interactions", "lessons", "runs", "rollouts"):
            status, _ = await gateway.fetch("GET", f"{API}/{path}?after=damaged")
            assert status == 400, path
        body = {"name": "new", "scopes": ["z"] * 5_000}
        status, answer = await gateway.fetch("POST", f"{API}/keys", json=body)
        assert (status, answer["error"]["code"]) == (400, "too_many_values")


@pytest.mark.parametrize(
    ("scopes", "reads", "changes"),
    [
        ([Scope.INFER, Scope.FEEDBACK], 403, 403),
        ([Scope.READ], 200, 403),
        ([Scope.ADMIN], 403, 201),
        ([Scope.READ, Scope.ADMIN], 200, 201),
    ],
)
async def test_a_key_can_do_what_its_scopes_permit(
    gateway: RunningGateway, scopes: list[Scope], reads: int, changes: int
) -> None:
    held = create_key(gateway, "default", *scopes)
    assert (await gateway.fetch("GET", f"{API}/lessons", held))[0] == reads
    body = {"do": "We open at nine."}
    assert (await gateway.fetch("POST", f"{API}/lessons", held, json=body))[0] == changes
    assert (await gateway.fetch("GET", f"{API}/audit", held))[0] == 403


async def test_rows_of_another_namespace_are_not_found(gateway: RunningGateway) -> None:
    held = create_key(gateway, "shop", *Scope)
    other = create_key(gateway, "bank", Scope.READ)
    with gateway.state.db.begin() as session:
        secret = record(session, namespace="bank", messages=[user("CANARY?")])
        lesson = add_lesson(session, "CANARY.", "bank").id
        adapter = add_adapter(session, "bank")
        said = NewFeedback("f1", secret.id, "thumbs", {}, "CANARY", None, {}, "x", Trust.USER)
        feedback.add(session, "bank", said, datetime.now(UTC))
        adapter_name, run_id = adapter.name, adapter.run
    conversation = (await pages(gateway, "/conversations", other))[0]["id"]
    for path in (
        f"/interactions/{secret.id}",
        f"/interactions/{secret.id}/explain",
        f"/conversations/{conversation}",
        f"/lessons/{lesson}",
        f"/runs/{run_id}",
        f"/adapters/{adapter_name}",
    ):
        status, said_of_it = await gateway.fetch("GET", API + path, held)
        assert status == 404
        assert "CANARY" not in str(said_of_it)
    for path in ("/interactions", "/conversations", "/lessons", "/runs", "/adapters"):
        assert await pages(gateway, path, held) == []
    assert await pages(gateway, "/interactions", held, contains="canary") == []
    assert len(await pages(gateway, "/keys", held)) == 1
    bank = {"X-Byheart-Namespace": "bank"}
    async with gateway.http() as http, http.get(f"{API}/lessons", headers=bank) as response:
        assert len((await response.json())["data"]) == 1  # the operator on this machine


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/interactions?limit=0", 400),
        ("/interactions?limit=many", 400),
        ("/interactions?since=yesterday", 400),
        ("/interactions?status=odd", 400),
        ("/interactions?since=0001-01-01T00:00:00%2B14:00", 400),
        ("/interactions?until=9999-12-31T23:59:59-12:00", 400),
        ("/audit?after=39898239865", 400),
        ("/nowhere", 404),
        ("/lessons/les_0", 404),
        ("/openapi.json", 200),
    ],
)
async def test_an_unanswerable_request_is_an_error_with_a_message(
    gateway: RunningGateway, path: str, status: int
) -> None:
    found, said = await gateway.fetch("GET", API + path)
    assert found == status
    assert status == 200 or said["error"]["message"]
    assert (await gateway.fetch("DELETE", f"{API}/lessons"))[0] == 405
    status_of_body, _ = await gateway.fetch("POST", f"{API}/lessons", json={"doo": "x"})
    assert status_of_body == 400


async def test_a_body_that_is_too_large_is_rejected(tmp_path: Path) -> None:
    async with run_control_api(tmp_path, settings=Server(max_body_bytes=1000)) as gateway:
        body = {"do": "We open at nine.", "when": "x" * 3000}
        status, said = await gateway.fetch("POST", f"{API}/lessons", json=body)
        assert (status, said["error"]["code"]) == (413, "request_too_large")


async def test_savings_are_counted_by_version(gateway: RunningGateway) -> None:
    with gateway.state.db.begin() as session:
        for version, saved in (("base", 0), ("bh-1", 90), ("bh-1", 110)):
            record(session, namespace="default", version=version, tokens_saved=saved)
    rows = await pages(gateway, "/savings")
    assert [(row["version"], row["tokens_saved"]) for row in rows] == [
        ("base", 0),
        ("bh-1", 200),
    ]
    old = datetime.now(UTC) + timedelta(days=9)
    assert await pages(gateway, "/interactions", since=old.isoformat()) == []
