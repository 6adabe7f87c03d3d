"""Two tenants: neither sees data of the other, whatever they do."""

import contextlib
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from agent.gateway.access.api_key import issue_key
from store.keys import Grant, Scope
from store.schema import Trust
from tests.support.event_loop import background_loop
from tests.support.fake_vllm import FakeVllm
from tests.support.running_control_api import API, run_control_api
from tests.support.running_gateway import PEPPER, RunningGateway

CANARY = {"shop": "MAUVE-4711", "bank": "OCHRE-0815"}
HELLO = [
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "And?"},
]
tenants = st.sampled_from(sorted(CANARY))
LISTS = ("interactions", "conversations", "lessons", "runs", "adapters", "keys", "savings")


class Tenants(RuleBasedStateMachine):
    """Each step is one request of one tenant; what it is answered is looked at at once."""

    @initialize()
    def start(self) -> None:
        self.stack = contextlib.ExitStack()
        self.loop = self.stack.enter_context(background_loop())
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.fake = FakeVllm(model="small")
        running = run_control_api(folder, self.fake, needs_key=True)
        self.gateway: RunningGateway = self.stack.enter_context(
            self.loop.wrap_async_context_manager(running)
        )
        self.keys, self.turns, self.ids = {}, {}, {}
        with self.gateway.state.db.begin() as session:
            for tenant in CANARY:
                grant = Grant(tenant, tenant, Trust.OPERATOR, frozenset(Scope))
                self.keys[tenant] = issue_key(session, PEPPER, grant, "operator", datetime.now(UTC))
                self.turns[tenant]: list[Any] = []
                self.ids[tenant]: list[str] = []

    def send(self, tenant: str, method: str, path: str, **sent: Any) -> tuple[int, Any]:
        """A request of a tenant; its answer has nothing of the other."""
        before = len(self.fake.history)
        status, said = self.loop.call(
            partial(self.gateway.fetch, method, path, self.keys[tenant], **sent)
        )
        other = CANARY[other_than(tenant)]
        assert other not in str(said)
        assert other not in str(self.fake.history[before:])
        for asked in self.fake.history[before:]:
            assert asked["cache_salt"] == self.gateway.state.salt(tenant)
        return status, said

    @rule(tenant=tenants, goes_on=st.booleans(), name=st.sampled_from([None, "chat-1"]))
    def ask(self, tenant: str, goes_on: bool, name: str | None) -> None:
        turns = self.turns[tenant] if goes_on else []
        turns = [*turns, {"role": "user", "content": f"What of {CANARY[tenant]}?"}]
        metadata = {"metadata": {"conversation_id": name}} if name else {}
        body = {"model": "small", "messages": turns, "user": "ann", **metadata}
        status, said = self.send(tenant, "POST", "/v1/chat/completions", json=body)
        assert status == 200
        answer = said["choices"][0]["message"]
        self.turns[tenant] = [*turns, {"role": "assistant", "content": answer["content"]}]
        _, listed = self.send(tenant, "GET", f"{API}/interactions")
        self.ids[tenant] = [row["id"] for row in listed["data"]]

    @rule(tenant=tenants, goes_on=st.booleans())
    def say_what_the_other_says_too(self, tenant: str, goes_on: bool) -> None:
        """The same course of messages, word for word: no conversation of the other goes on."""
        course = HELLO if goes_on else HELLO[:1]
        self.fake.enqueue(HELLO[1]["content"])
        body = {"model": "small", "messages": course}
        assert self.send(tenant, "POST", "/v1/chat/completions", json=body)[0] == 200

    @rule(tenant=tenants)
    def read_conversations(self, tenant: str) -> None:
        _, listed = self.send(tenant, "GET", f"{API}/conversations")
        for row in listed["data"]:
            assert self.send(tenant, "GET", f"{API}/conversations/{row['id']}")[0] == 200

    @rule(tenant=tenants)
    def learn(self, tenant: str) -> None:
        body = {"do": f"The colour of {tenant} is {CANARY[tenant]}."}
        assert self.send(tenant, "POST", f"{API}/lessons", json=body)[0] in (201, 409)

    @rule(tenant=tenants)
    def register(self, tenant: str) -> None:
        body = {"text": f"You serve {CANARY[tenant]}."}
        assert self.send(tenant, "PUT", f"{API}/context/system_prompt", json=body)[0] == 200

    @rule(tenant=tenants, path=st.sampled_from(LISTS))
    def look(self, tenant: str, path: str) -> None:
        assert self.send(tenant, "GET", f"{API}/{path}")[0] == 200

    @rule(tenant=tenants)
    def look_for_the_others_word(self, tenant: str) -> None:
        word = CANARY[other_than(tenant)].lower()
        _, said = self.send(tenant, "GET", f"{API}/interactions", params={"contains": word})
        assert said["data"] == []

    @rule(tenant=tenants, way=st.sampled_from(["", "/explain"]))
    def look_at_what_is_not_theirs(self, tenant: str, way: str) -> None:
        for theirs in self.ids[other_than(tenant)]:
            assert self.send(tenant, "GET", f"{API}/interactions/{theirs}{way}")[0] == 404
            body = {"target_id": theirs, "name": "thumbs", "comment": CANARY[tenant]}
            assert self.send(tenant, "POST", "/v1/feedback", json=body)[0] == 404

    @rule(tenant=tenants)
    def knock_at_the_others_door(self, tenant: str) -> None:
        headers = {"X-Byheart-Namespace": other_than(tenant)}
        headers["Authorization"] = f"Bearer {self.keys[tenant]}"

        async def knock() -> int:
            async with (
                self.gateway.http() as http,
                http.get("/v1/models", headers=headers) as answer,
            ):
                return answer.status

        assert self.loop.call(knock) == 403

    @invariant()
    def rows_are_where_they_belong(self) -> None:
        if not hasattr(self, "gateway"):
            return
        for tenant in CANARY:
            for said in self.gateway.logged(tenant):
                assert CANARY[other_than(tenant)] not in str(vars(said.payload))
        shop, bank = (
            {said.interaction.conversation for said in self.gateway.logged(tenant)}
            for tenant in CANARY
        )
        assert not shop & bank

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()


def other_than(tenant: str) -> str:
    return next(name for name in CANARY if name != tenant)


@pytest.mark.usefixtures("each_database")
def test_no_sequence_of_actions_shows_one_tenant_data_of_another() -> None:
    few = settings(max_examples=8, stateful_step_count=15)
    run_state_machine_as_test(Tenants, settings=few)
