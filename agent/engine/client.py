"""`VllmEngine`: an HTTP client of one or more vLLM servers with the same base and adapters.

Every request to the model goes through it: the gateway's, extraction's, the identity probe's.
Requests are distributed round-robin over the reachable servers; adapters are loaded on and unloaded
from all of them.

Invariants:

- Network errors are raised as `EngineUnavailable` and vLLM's error answers as `EngineStatusError`;
  aiohttp's own errors never leave this module.
- Leaving a stream early, for any reason, closes its connection, which makes vLLM stop generating.
- A request that has reached one server is never sent to another.
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
    translate_errors,
)

T = TypeVar("T")

CHAT = "/v1/chat/completions"
CONNECT_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 120.0
TIMEOUT_PER_TOKEN_S = 1.0
"""Added to the timeout of an unstreamed answer, whose first byte comes when it is complete."""
TOKEN_LIMIT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
DEFAULT_MAX_TOKENS = 2048
KEEP_ALIVE_S = 2.0
"""Below vLLM's five seconds, so that no request uses a connection that vLLM is closing."""


@dataclass(frozen=True)
class Reply:
    """A complete answer with a status below 400."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Parse the body."""
        return dict(orjson.loads(self.body))


@dataclass(frozen=True)
class Stream:
    """An answer that has begun; `chunks` yields its bytes as they arrive, unparsed."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes, None]


class VllmEngine:
    """A client of the servers at `urls` (`http://host:port` or `unix:///path`)."""

    def __init__(
        self, urls: Sequence[str], *, api_key: str = "", first_byte_timeout_s: float = 120.0
    ) -> None:
        if not urls:
            raise ValueError("at least one engine URL is required")
        self.urls = tuple(url.rstrip("/").removesuffix("/v1") for url in urls)
        self.api_key = api_key
        self._first_byte_timeout_s = first_byte_timeout_s
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._request_count = itertools.count()
        self.max_model_len: int | None = None
        """Maximum length of prompt plus answer on every server, in tokens; None before
        `fetch_max_model_len`, or if a server does not report it."""

    def clone(self) -> "VllmEngine":
        """Return a client of the same servers for another event loop."""
        client = copy.copy(self)
        client._sessions = {}
        return client

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def chat(self, body: Mapping[str, Any], path: str = CHAT) -> Reply:
        """Send an unstreamed chat completion, or an unstreamed request to another path."""
        return await self._request(path, body, self._timeout_s(body))

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any], path: str = CHAT) -> AsyncIterator[Stream]:
        """Stream an answer: the block starts at its first bytes, and leaving it aborts the answer.

        Raises:
            EngineUnavailable: No answer came; inside the block, `chunks` raises
                `EngineDisconnected`.
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
        """Complete a string or token ids; `params` are passed on to vLLM."""
        body: dict[str, Any] = {"model": model, "prompt": prompt, **params}
        return (await self._request("/v1/completions", body, self._timeout_s(body))).json()

    async def tokenize(self, text: str | Sequence[Mapping[str, Any]], model: str) -> list[int]:
        """Return the token ids of a text, or of chat messages rendered by the model's template."""
        key = "prompt" if isinstance(text, str) else "messages"
        body = {"model": model, key: text}
        return list((await self._request("/tokenize", body, LOAD_TIMEOUT_S)).json()["tokens"])

    async def models(self) -> list[str]:
        """Return the names that every reachable server serves: the base and the loaded adapters."""
        served = await self.on_every_server(_served_models)
        return sorted(set.intersection(*map(set, served)))

    async def fetch_max_model_len(self) -> int | None:
        """Ask the servers for `max_model_len` and remember it."""
        lengths = await self.on_every_server(_max_model_len)
        self.max_model_len = min(lengths, key=lambda length: length or 0)
        return self.max_model_len

    async def load_adapter(self, name: str, path: str) -> None:
        """Load the adapter at `path` under `name`, unless a server has it already."""

        async def load(server: VllmEngine) -> None:
            if (await _served_models(server)).get(name) != path:
                body = {"lora_name": name, "lora_path": path}
                await server._request("/v1/load_lora_adapter", body, LOAD_TIMEOUT_S)

        await self.on_every_server(load)

    async def unload_adapter(self, name: str) -> None:
        """Unload the adapter `name` where it is loaded."""

        async def unload(server: VllmEngine) -> None:
            if name in await _served_models(server):
                await server._request(
                    "/v1/unload_lora_adapter", {"lora_name": name}, LOAD_TIMEOUT_S
                )

        await self.on_every_server(unload)

    async def is_healthy(self) -> bool:
        """Return whether a server answers its health check; it may still fail to generate."""
        with contextlib.suppress(EngineError):
            await self._request("/health", None, CONNECT_TIMEOUT_S)
            return True
        return False

    async def on_every_server(self, call: Callable[["VllmEngine"], Awaitable[T]]) -> list[T]:
        """Call once per server, with a client of that server alone, concurrently.

        Unreachable servers are skipped, unless all of them are.
        """
        servers = map(self._client_of, self.urls)
        results = await asyncio.gather(*map(call, servers), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        serious = [error for error in failed if not isinstance(error, EngineUnreachable)]
        if serious or len(failed) == len(results):
            raise (serious or failed)[0]
        return [result for result in results if not isinstance(result, BaseException)]

    def _client_of(self, url: str) -> "VllmEngine":
        client = copy.copy(self)
        client.urls = (url,)
        return client

    async def _request(self, path: str, body: Mapping[str, Any] | None, timeout_s: float) -> Reply:
        return await _read(await self._open(path, body, timeout_s), timeout_s)

    async def _open(
        self, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> aiohttp.ClientResponse:
        """Send a request to the next reachable server; return once its headers have arrived."""
        start = next(self._request_count) % len(self.urls)
        *urls, last = self.urls[start:] + self.urls[:start]
        for url in urls:
            with contextlib.suppress(EngineUnreachable):
                return await self._send(url, path, body, timeout_s)
        return await self._send(last, path, body, timeout_s)

    async def _send(
        self, url: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> aiohttp.ClientResponse:
        """GET, or POST if there is a body; return once the headers of a 200 have arrived."""
        method, data = ("GET", None) if body is None else ("POST", orjson.dumps(body))
        session, address = self._session(url)
        with translate_errors(url, EngineUnavailable):
            async with asyncio.timeout(timeout_s):
                response = await session.request(
                    method, address + path, data=data, allow_redirects=False
                )
        if response.status == 200:
            return response
        reply = await _read(response, timeout_s)
        raise EngineStatusError(reply.status, _message(reply.body), reply.body)

    def _session(self, url: str) -> tuple[aiohttp.ClientSession, str]:
        """Return the connections to a server, created on first use inside the running loop."""
        socket = url.removeprefix("unix://") if url.startswith("unix://") else ""
        if url not in self._sessions:
            options: dict[str, Any] = {"limit": 0, "keepalive_timeout": KEEP_ALIVE_S}
            secret = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
            unix = functools.partial(aiohttp.UnixConnector, socket)
            self._sessions[url] = aiohttp.ClientSession(
                connector=(unix if socket else aiohttp.TCPConnector)(**options),
                headers={"Content-Type": "application/json", **secret},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),  # clients must not share cookies
            )
        return self._sessions[url], "http://engine" if socket else url

    def _timeout_s(self, body: Mapping[str, Any]) -> float:
        """Return how long an unstreamed answer may take."""
        tokens = next(
            (body[field] for field in TOKEN_LIMIT_FIELDS if body.get(field)), DEFAULT_MAX_TOKENS
        )
        return self._first_byte_timeout_s + TIMEOUT_PER_TOKEN_S * int(tokens)

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
        """Return the next bytes of a stream, or empty bytes at its end."""
        with translate_errors(response.host, failure):
            async with asyncio.timeout(self._first_byte_timeout_s):
                return await response.content.readany()


async def _served_models(server: VllmEngine) -> dict[str, str | None]:
    """Return the names that a server serves, with the folders they were loaded from."""
    return {card["id"]: card.get("root") for card in await _model_cards(server)}


async def _max_model_len(server: VllmEngine) -> int | None:
    """Return a server's maximum length; the cards of adapters may omit it."""
    cards = await _model_cards(server)
    return min((card["max_model_len"] for card in cards if card.get("max_model_len")), default=None)


async def _model_cards(server: VllmEngine) -> list[dict[str, Any]]:
    return list((await server._request("/v1/models", None, LOAD_TIMEOUT_S)).json()["data"])


async def _read(response: aiohttp.ClientResponse, timeout_s: float) -> Reply:
    async with response:
        with translate_errors(response.host, EngineUnavailable):
            async with asyncio.timeout(timeout_s):
                body = await response.read()
    return Reply(response.status, response.headers, body)


def _message(body: bytes) -> str:
    """Return the message in vLLM's error body."""
    try:
        error = orjson.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
