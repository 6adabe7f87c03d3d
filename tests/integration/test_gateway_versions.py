"""Which version answers, what its prompt contains, and what the response's headers say."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime

import openai
import pytest

from store import adapters, namespaces, prompts, relapses, rollouts, statements
from store.contexts import LESSONS_HEADING
from tests.support.factories import NOW, add_adapter, go_live
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import QUESTION, RunningGateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

ASK = {"model": "small", "messages": QUESTION}
POLICY = "You are the assistant of a small shop."


async def ask(
    gateway: RunningGateway, model: str = "small", **request: object
) -> tuple[str, str, int]:
    """Version by header, model by body, tokens saved."""
    async with gateway.client() as client:
        raw = await client.chat.completions.with_raw_response.create(
            **ASK | {"model": model} | request
        )
    headers = raw.headers
    saved = int(headers["x-byheart-tokens-saved"])
    return headers["x-byheart-version"], raw.parse().model, saved


def system_text(fake: FakeVllm) -> str:
    first = fake.history[-1]["messages"][0]
    return first["content"] if first["role"] == "system" else ""


def live_adapter(
    gateway: RunningGateway,
    fake: FakeVllm,
    namespace: str = "default",
    missed: Collection[str] = (),
) -> str:
    with gateway.state.db.begin() as session:
        name = go_live(session, namespace, missed)
    fake.adapters[name] = f"/adapters/{name}"
    return name


async def test_text_that_the_live_adapter_has_internalised_is_not_sent(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    with gateway.state.db.begin() as session:
        prompts.register_system_prompt(session, "default", POLICY, 9, NOW)
    gateway.add_lesson("We open at nine.")
    assert await ask(gateway) == ("base", "small", 0)
    assert POLICY in system_text(fake)
    assert "We open at nine." in system_text(fake)

    name = live_adapter(gateway, fake)
    assert await ask(gateway) == (name, name, 9 + 4)
    assert system_text(fake) == ""

    gateway.add_lesson("We close at five.")
    await ask(gateway)
    assert "We close at five." in system_text(fake)
    assert "We open at nine." not in system_text(fake)

    with gateway.state.db.begin() as session:
        rollouts.rollback(session, "default", "operator", "worse", NOW)
    assert await ask(gateway) == ("base", "small", 0)
    assert POLICY in system_text(fake)
    assert "We open at nine." in system_text(fake)


async def test_a_registered_prompt_that_the_client_sends_too_is_sent_once_or_not_at_all(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    messages = [{"role": "system", "content": f"{POLICY}\n\nBe brief."}, *QUESTION]
    with gateway.state.db.begin() as session:
        prompts.register_system_prompt(session, "default", POLICY, 9, NOW)

    await ask(gateway, messages=messages)
    assert system_text(fake) == f"{POLICY}\n\nBe brief."
    live_adapter(gateway, fake)
    assert (await ask(gateway, messages=messages))[2] == 9
    assert system_text(fake) == "Be brief."

    behind = [{"role": "system", "content": f"It is Monday.\n{POLICY}"}, *QUESTION]
    assert (await ask(gateway, messages=behind))[2] == 0
    assert system_text(fake) == f"It is Monday.\n{POLICY}"

    late = [*QUESTION, {"role": "system", "content": POLICY}, *QUESTION]
    assert (await ask(gateway, messages=late))[2] == 0
    assert fake.history[-1]["messages"] == late


async def test_what_the_live_adapter_has_not_learned_is_sent_in_place_of_the_whole(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    missed = "Never promise a date."
    prompt = f"{POLICY}\n{missed}"
    with gateway.state.db.begin() as session:
        prompts.register_system_prompt(session, "default", prompt, 12, NOW)
    gateway.add_lesson("We open at nine.")
    gateway.add_lesson("We close at five.")
    live_adapter(gateway, fake, missed=[missed, "We close at five."])
    residual = f"{missed}\n\n{LESSONS_HEADING}\n- We close at five."

    assert (await ask(gateway))[2] == 8 + 4
    assert system_text(fake) == residual
    messages = [{"role": "system", "content": f"{prompt}\n\nBe brief."}, *QUESTION]
    assert (await ask(gateway, messages=messages))[2] == 8 + 4
    assert system_text(fake) == f"{residual}\n\nBe brief."

    behind = [{"role": "system", "content": f"It is Monday.\n{prompt}"}, *QUESTION]
    assert (await ask(gateway, messages=behind))[2] == 4
    assert system_text(fake) == f"{residual}\n\nIt is Monday.\n{prompt}"


async def test_what_relapses_is_in_the_next_prompt(fake: FakeVllm, gateway: RunningGateway) -> None:
    with gateway.state.db.begin() as session:
        prompts.register_system_prompt(session, "default", f"{POLICY}\nBe brief.", 11, NOW)
    gateway.add_lesson("We open at nine.")
    name = live_adapter(gateway, fake)
    await ask(gateway)
    assert system_text(fake) == ""
    with gateway.state.db.begin() as session:
        prompt, brief, lesson = statements.of(session, adapters.get_one(session, name))
        relapses.record(session, "default", [brief, lesson], "A user said so.", None, NOW)
    assert await ask(gateway) == (name, name, 9)
    assert system_text(fake) == f"Be brief.\n\n{LESSONS_HEADING}\n- We open at nine."
    with gateway.state.db.begin() as session:
        relapses.record(session, "default", [prompt], "A user said so.", None, NOW)
    assert (await ask(gateway))[2] == 0
    assert system_text(fake).startswith(f"{POLICY}\nBe brief.")


async def test_a_version_requested_by_name_gets_its_residual_context(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    gateway.add_lesson("We open at nine.")
    first = live_adapter(gateway, fake)
    gateway.add_lesson("We close at five.")
    second = live_adapter(gateway, fake)

    assert (await ask(gateway))[:2] == (second, second)
    assert system_text(fake) == ""
    assert (await ask(gateway, first))[:2] == (first, first)
    assert "We close at five." in system_text(fake)
    assert "We open at nine." not in system_text(fake)
    assert (await ask(gateway, "base"))[:2] == ("base", "small")
    assert "We open at nine." in system_text(fake)
    assert "We close at five." in system_text(fake)


async def test_the_base_with_all_lessons_answers_in_place_of_an_unavailable_adapter(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    gateway.add_lesson("We open at nine.")
    name = live_adapter(gateway, fake)
    gateway.unserved.add(name)
    assert (await ask(gateway))[:2] == ("base", "small")
    assert "We open at nine." in system_text(fake)

    gateway.unserved.clear()
    assert (await ask(gateway))[:2] == (name, name)
    assert system_text(fake) == ""


async def test_an_unverified_or_unloaded_version_is_404_and_not_replaced_by_another(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    name = live_adapter(gateway, fake)
    with gateway.state.db.begin() as session:
        candidate = add_adapter(session, "default").name
    asked = len(fake.history)
    fake.adapters[candidate] = "/loaded/for/its/probe"
    for model in (candidate, "bh-unknown"):
        with pytest.raises(openai.NotFoundError, match=f"small, base, {name}"):
            await ask(gateway, model)
    assert len(fake.history) == asked

    with gateway.state.db.begin() as session:
        rollouts.rollback(session, "default", "operator", "It was bad.", NOW)
    with pytest.raises(openai.NotFoundError, match="small, base"):
        await ask(gateway, name)

    live_adapter(gateway, fake)
    fake.adapters.clear()
    with pytest.raises(openai.InternalServerError) as caught:
        await ask(gateway)
    assert caught.value.code == "model_loading"


async def test_an_adapter_of_another_namespace_is_404(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    with gateway.state.db.begin() as session:
        namespaces.ensure(session, "other", datetime.now(UTC))
    theirs = live_adapter(gateway, fake, "other")

    with pytest.raises(openai.NotFoundError) as caught:
        await ask(gateway, theirs)
    assert "Available: small, base." in str(caught.value)
    async with gateway.client(default_headers={"X-Byheart-Namespace": "other"}) as client:
        names = [model.id async for model in client.models.list()]
    assert names == ["small", "base", theirs]


async def test_a_swap_waits_for_the_streams_of_the_old_version(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    old = live_adapter(gateway, fake)
    fake.enqueue("one two three four five")
    fake.token_delay_s = 0.1
    async with gateway.client() as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        new = live_adapter(gateway, fake)
        inflight = gateway.state.inflight
        assert not await asyncio.to_thread(inflight.wait_drained, old, 0.1)

        draining = asyncio.create_task(asyncio.to_thread(inflight.wait_drained, old, 10))
        versions = {chunk.model async for chunk in stream}
        assert await draining
        del fake.adapters[old]
        assert versions == {old}
        assert (await ask(gateway))[:2] == (new, new)


async def test_a_swap_does_not_wait_for_a_body_that_is_still_being_sent(
    gateway: RunningGateway,
) -> None:
    begun, rest = asyncio.Event(), asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        body = json.dumps(ASK).encode()
        yield body[:10]
        begun.set()
        await rest.wait()
        yield body[10:]

    async with gateway.http() as http:
        headers = {"Content-Type": "application/json"}
        upload = asyncio.create_task(
            http.post("/v1/chat/completions", data=slow_body(), headers=headers)
        )
        await begun.wait()
        assert (await http.get("/healthz")).status == 200
        assert not gateway.state.inflight.in_use("base")
        rest.set()
        assert (await upload).status == 200
