"""`VllmEngine`: HTTP to one or more vLLM servers, which all serve the same base and adapters.

Everything that asks the model goes through here: the gateway, extraction, the identity probe.
Requests go round-robin over the servers that can be reached; loading and unloading goes to all.

Invariants: an error of the network is `EngineUnavailable` and an error that vLLM reports is
`EngineStatusError`, never one of aiohttp; leaving a stream early, however it is left, closes its
connection, on which vLLM stops generating; nothing is sent twice once a server has been reached.
"""

import asyncio
import contextlib
import copy
import functools
import itertools
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import orjson

from agent.engine.errors import (
    EngineDisconnected,
    EngineError,
    EngineStatusError,
    EngineUnavailable,
    EngineUnreachable,
    translated,
)

T = TypeVar("T")

CHAT = "/v1/chat/completions"
CONNECT_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 120.0
SLOWEST_TOKEN_S = 1.0
"""A plain answer begins when it is complete: patience for each token that it may have."""
TOKEN_LIMITS, MOST_TOKENS = ("max_completion_tokens", "max_tokens", "max_output_tokens"), 2048
KEEP_ALIVE_S = 2.0
"""Below vLLM's five seconds: else a request meets a connection that is being closed."""


@dataclass(frozen=True)
class Reply:
    """A complete answer; `status` is below 400."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        return dict(orjson.loads(self.body))


@dataclass(frozen=True)
class Stream:
    """An answer that has begun; `chunks` are its bytes as they arrive, framing untouched."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes, None]


class VllmEngine:
    """A client of the servers at `urls` (`http://host:port` or `unix:///path`)."""

    def __init__(
        self, urls: Sequence[str], *, api_key: str = "", first_byte_timeout_s: float = 120.0
    ) -> None:
        if not urls:
            raise ValueError("at least one engine URL is needed")
        self.urls = tuple(url.rstrip("/").removesuffix("/v1") for url in urls)
        self.api_key = api_key
        self._first_byte_timeout_s = first_byte_timeout_s
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._turns = itertools.count()
        self.max_model_len: int | None = None
        """The longest prompt with its answer that every server takes, in tokens; None before it is
        asked for, and where a server does not say."""

    def clone(self) -> "VllmEngine":
        """A client of the same servers, for another event loop."""
        other = copy.copy(self)
        other._sessions = {}
        return other

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def chat(self, body: Mapping[str, Any], path: str = CHAT) -> Reply:
        """A chat completion that is not streamed, or what another path answers."""
        return await self._ask(path, body, self._patience_s(body))

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any], path: str = CHAT) -> AsyncIterator[Stream]:
        """A streamed answer of a path; entered when the first bytes are here, aborted on leaving.

        Raises:
            EngineUnavailable: Nothing came; inside the block, `EngineDisconnected` from `chunks`.
            EngineStatusError: vLLM answered with an error.
        """
        response = await self._open(path, body, self._first_byte_timeout_s)
        try:
            first = await self._next_chunk(response, EngineUnavailable)
            async with contextlib.aclosing(self._chunks(first, response)) as chunks:
                yield Stream(response.status, response.headers, chunks)
        finally:
            response.close()

    async def complete(
        self, prompt: str | Sequence[int], model: str, **params: object
    ) -> dict[str, Any]:
        """A text completion of a string or of token ids; `params` are vLLM's own."""
        body: dict[str, Any] = {"model": model, "prompt": prompt, **params}
        return (await self._ask("/v1/completions", body, self._patience_s(body))).json()

    async def tokenize(self, text: str | Sequence[Mapping[str, Any]], model: str) -> list[int]:
        """Token ids of a text, or of chat messages as the model's template renders them."""
        key = "prompt" if isinstance(text, str) else "messages"
        body = {"model": model, key: text}
        return list((await self._ask("/tokenize", body, LOAD_TIMEOUT_S)).json()["tokens"])

    async def models(self) -> list[str]:
        """Names that every reachable server answers to: the base and the loaded adapters."""
        served = await self.on_every_server(_served)
        return sorted(set.intersection(*map(set, served)))

    async def fetch_max_model_len(self) -> int | None:
        """Ask for `longest`, which is known from then on."""
        self.max_model_len = min(
            await self.on_every_server(_max_model_len), key=lambda most: most or 0
        )
        return self.max_model_len

    async def load_adapter(self, name: str, path: str) -> None:
        """Load the adapter at `path` under `name`; a server that has it already keeps it."""

        async def load(server: VllmEngine) -> None:
            if (await _served(server)).get(name) != path:
                body = {"lora_name": name, "lora_path": path}
                await server._ask("/v1/load_lora_adapter", body, LOAD_TIMEOUT_S)

        await self.on_every_server(load)

    async def unload_adapter(self, name: str) -> None:
        """Forget the adapter `name`; not having it is fine."""

        async def unload(server: VllmEngine) -> None:
            if name in await _served(server):
                await server._ask("/v1/unload_lora_adapter", {"lora_name": name}, LOAD_TIMEOUT_S)

        await self.on_every_server(unload)

    async def is_healthy(self) -> bool:
        """Whether a server answers; that is not yet whether it still generates."""
        with contextlib.suppress(EngineError):
            await self._ask("/health", None, CONNECT_TIMEOUT_S)
            return True
        return False

    async def on_every_server(self, call: Callable[["VllmEngine"], Awaitable[T]]) -> list[T]:
        """Call with a client of each server alone; the unreachable are passed over, unless all."""
        servers = map(self._only, self.urls)
        results = await asyncio.gather(*map(call, servers), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        serious = [error for error in failed if not isinstance(error, EngineUnreachable)]
        if serious or len(failed) == len(results):
            raise (serious or failed)[0]
        return [result for result in results if not isinstance(result, BaseException)]

    def _only(self, url: str) -> "VllmEngine":
        one = copy.copy(self)
        one.urls = (url,)
        return one

    async def _ask(self, path: str, body: Mapping[str, Any] | None, patience_s: float) -> Reply:
        return await _read(await self._open(path, body, patience_s), patience_s)

    async def _open(
        self, path: str, body: Mapping[str, Any] | None, patience_s: float
    ) -> aiohttp.ClientResponse:
        """Send a request to the next server that can be reached; returns at its headers."""
        turn = next(self._turns) % len(self.urls)
        *before, last = self.urls[turn:] + self.urls[:turn]
        for url in before:
            with contextlib.suppress(EngineUnreachable):
                return await self._send(url, path, body, patience_s)
        return await self._send(last, path, body, patience_s)

    async def _send(
        self, url: str, path: str, body: Mapping[str, Any] | None, patience_s: float
    ) -> aiohttp.ClientResponse:
        """GET, or POST when there is a body; returns at the headers of an answer of 200."""
        method, data = ("GET", None) if body is None else ("POST", orjson.dumps(body))
        session, address = self._session(url)
        with translated(url, EngineUnavailable):
            async with asyncio.timeout(patience_s):
                response = await session.request(
                    method, address + path, data=data, allow_redirects=False
                )
        if response.status == 200:
            return response
        reply = await _read(response, patience_s)
        raise EngineStatusError(reply.status, _message(reply.body), reply.body)

    def _session(self, url: str) -> tuple[aiohttp.ClientSession, str]:
        """The connections to a server, made on first use inside the running loop."""
        socket = url.removeprefix("unix://") if url.startswith("unix://") else ""
        if url not in self._sessions:
            options: dict[str, Any] = {"limit": 0, "keepalive_timeout": KEEP_ALIVE_S}
            secret = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
            unix = functools.partial(aiohttp.UnixConnector, socket)
            self._sessions[url] = aiohttp.ClientSession(
                connector=(unix if socket else aiohttp.TCPConnector)(**options),
                headers={"Content-Type": "application/json", **secret},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),  # one for all clients would mix them
            )
        return self._sessions[url], "http://engine" if socket else url

    def _patience_s(self, body: Mapping[str, Any]) -> float:
        """How long a plain answer may take, which has no first byte before it is complete."""
        tokens = next((body[name] for name in TOKEN_LIMITS if body.get(name)), MOST_TOKENS)
        return self._first_byte_timeout_s + SLOWEST_TOKEN_S * int(tokens)

    async def _chunks(
        self, first: bytes, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[bytes, None]:
        chunk = first
        while chunk:
            yield chunk
            chunk = await self._next_chunk(response, EngineDisconnected)

    async def _next_chunk(
        self, response: aiohttp.ClientResponse, failure: type[EngineUnavailable]
    ) -> bytes:
        """The next bytes of a stream as they arrived; empty at its end."""
        with translated(response.host, failure):
            async with asyncio.timeout(self._first_byte_timeout_s):
                return await response.content.readany()


async def _served(server: VllmEngine) -> dict[str, str | None]:
    """Names that a server answers to, and the folders they were loaded from."""
    return {card["id"]: card.get("root") for card in await _cards(server)}


async def _max_model_len(server: VllmEngine) -> int | None:
    """What a server takes at most; the cards of adapters may leave it out."""
    told = [card["max_model_len"] for card in await _cards(server) if card.get("max_model_len")]
    return min(told, default=None)


async def _cards(server: VllmEngine) -> list[dict[str, Any]]:
    return list((await server._ask("/v1/models", None, LOAD_TIMEOUT_S)).json()["data"])


async def _read(response: aiohttp.ClientResponse, patience_s: float) -> Reply:
    async with response:
        with translated(response.host, EngineUnavailable):
            async with asyncio.timeout(patience_s):
                body = await response.read()
    return Reply(response.status, response.headers, body)


def _message(body: bytes) -> str:
    """The human part of vLLM's error body."""
    try:
        error = orjson.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
