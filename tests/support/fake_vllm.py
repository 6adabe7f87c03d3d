"""`FakeVllm`: a server with vLLM's routes, framing and error bodies, without a model.

It imitates vLLM 0.32 as far as byheart uses it, over real HTTP, on a loopback port or a Unix
socket. One contract suite runs against it and against the real vLLM.

    async with FakeVllm() as fake:                  # or FakeVllm(uds=path), FakeVllm(api_key="k")
        engine = VllmEngine([fake.url], api_key=fake.api_key)
        fake.enqueue("The first reply.")            # scripted, first in first out
        fake.answer_with(lambda body: "...")        # else a function of the request body
        ...                                         # else: the last user text
        assert fake.history[-1]["messages"] == ...  # bodies of chat and completion requests

Synchronous tests enter `with fake.in_thread():` and call `fake.run(fake.down)` in it.

One token is one word with the white space before it. Tests read `history`, `adapters` (name ->
path), `aborted` (bodies of requests whose client disconnected before the end) and `running`. At any
time they can set `first_byte_delay_s`, `token_delay_s`, `die_after_tokens` (break the connection
after that many events of a stream; 0: before the headers), `refuse_with` (status, body) and
`may_load` (false: as if VLLM_ALLOW_RUNTIME_LORA_UPDATING were not set), and call `score_with(fn)`
(the log-probability of an allowed token) and `await down()` / `await up()` (connection refused; a
restart forgets the adapters, as vLLM does). `can_embed` must be set before the server is up.
"""

import asyncio
import contextlib
import itertools
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web
from anyio.from_thread import BlockingPortal

from tests.support.event_loop import background_loop
from tests.support.fake_answers import (
    LIMITS,
    Answer,
    Body,
    ChatAnswer,
    prompt_lengths,
    prompt_tokens,
    text_of,
    turns,
    words,
)

MAX_MODEL_LEN = 2048


class FakeVllm:
    """A vLLM server that answers from a script; see the module's docstring."""

    def __init__(
        self, *, model: str = "base", api_key: str = "", uds: Path | None = None, port: int = 0
    ) -> None:
        self.model = model
        self.api_key = api_key
        self.history: list[Body] = []
        self.adapters: dict[str, str] = {}
        self.aborted: list[Body] = []
        self.running = 0
        self.first_byte_delay_s = 0.0
        self.token_delay_s = 0.0
        self.die_after_tokens: int | None = None
        self.refuse_with: tuple[int, Body] | None = None
        self.refusal_headers: dict[str, str] = {}
        self.may_load = True
        self.can_embed = False
        self._uds = uds
        self._port = port
        self._script: deque[str] = deque()
        self._answer: Callable[[Body], str] = echo
        self._score: Callable[[str, list[int]], list[float]] = self._default_score
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._loop: BlockingPortal | None = None

    # For tests

    @property
    def url(self) -> str:
        """Base URL for `VllmEngine`."""
        return f"unix://{self._uds}" if self._uds else f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The loopback port that it listens on."""
        return self._port

    def enqueue(self, *texts: str) -> None:
        """Answer the next requests with these texts."""
        self._script.extend(texts)

    def answer_with(self, answer: Callable[[Body], str]) -> None:
        """Answer what is not scripted with a function of the request body."""
        self._answer = answer

    def score_with(self, score: Callable[[str, list[int]], list[float]]) -> None:
        """Give each token's log-probability by a function of the model's name and the ids."""
        self._score = score

    async def up(self) -> None:
        """Listen; on the same port or socket as before."""
        from tests.support import fake_apis  # which needs this module

        app = web.Application(client_max_size=2**26, middlewares=[self._guard])
        posts = {
            "/v1/chat/completions": self._answering(ChatAnswer),
            "/v1/completions": self._answering(Answer),
            "/v1/messages": self._answering(fake_apis.MessageAnswer),
            "/v1/messages/count_tokens": self._count,
            "/v1/responses": self._answering(fake_apis.ResponseAnswer),
            "/tokenize": self._tokenize,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
        }
        if self.can_embed:
            posts["/v1/embeddings"] = self._embed
        app.add_routes([web.post(path, handler) for path, handler in posts.items()])
        app.add_routes([web.get("/health", self._health), web.get("/v1/models", self._models)])
        # Cancellation is how a server learns that the client went away; vLLM aborts on it.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        if self._uds:
            await web.UnixSite(self._runner, str(self._uds)).start()
            return
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """Stop listening, break every connection and forget the adapters."""
        if self._runner:
            await self._runner.cleanup()
        self._runner = None
        self.adapters.clear()
        if self._uds:
            self._uds.unlink(missing_ok=True)

    async def __aenter__(self) -> "FakeVllm":
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    @contextlib.contextmanager
    def in_thread(self) -> Iterator["FakeVllm"]:
        """Run in a background event loop, for tests that are not asynchronous."""
        with background_loop() as loop:
            self._loop = loop
            with loop.wrap_async_context_manager(self):
                yield self

    def run(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `up` or `down` in the event loop of `in_thread()`."""
        assert self._loop
        self._loop.call(step)

    # Routes

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        wanted = f"Bearer {self.api_key}" if self.api_key else None
        if request.path.startswith("/v1") and wanted not in {
            None,
            request.headers.get("Authorization"),
        }:
            return web.json_response({"error": "Unauthorized"}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        cards = [{"id": self.model, "root": self.model, "max_model_len": MAX_MODEL_LEN}]
        for name, path in self.adapters.items():
            cards.append({"id": name, "root": path})
        return web.json_response({"object": "list", "data": cards})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if refusal := self._unknown_model(body):
            return refusal
        text = body.get("prompt")
        if text is None:
            text = " ".join(f"{m['role']} {text_of(m)}" for m in body["messages"]) + " assistant"
        ids = token_ids(text)
        return web.json_response(
            {"count": len(ids), "max_model_len": MAX_MODEL_LEN, "tokens": ids, "token_strs": None}
        )

    async def _load(self, request: web.Request) -> web.Response:
        if not self.may_load:
            return web.json_response({"detail": "Not Found"}, status=404)
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            message = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the "
                "adapter in place, set 'load_inplace' to True."
            )
            return error(400, message, "InvalidUserInput")
        if not (Path(path) / "adapter_config.json").is_file():
            message = f"Loading lora {name} failed: No adapter found for <path>"
            return error(404, message, "NotFoundError")
        self.adapters[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _count(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.history.append(body)
        asked = prompt_tokens(body) + len(words(body.get("system") or ""))
        return web.json_response({"input_tokens": asked})

    async def _embed(self, request: web.Request) -> web.Response:
        from tests.support import fake_apis

        body = await request.json()
        self.history.append(body)
        return web.json_response(fake_apis.embeddings(body))

    # Generation

    def _answering(self, form: "type[Answer]") -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._generate(request, form)

        return answer

    async def _generate(self, request: web.Request, form: "type[Answer]") -> web.StreamResponse:
        body = await request.json()
        self.history.append(body)
        if self.refuse_with:
            status, said = self.refuse_with
            return web.json_response(said, status=status, headers=self.refusal_headers)
        if refusal := self._unknown_model(body) or _too_long(body):
            return refusal
        self.running += 1
        try:
            return await self._reply(request, body, form)
        except Died:
            if request.transport:
                request.transport.abort()
            raise
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted.append(body)
            raise
        finally:
            self.running -= 1

    async def _reply(
        self, request: web.Request, body: Body, form: "type[Answer]"
    ) -> web.StreamResponse:
        text = self._script.popleft() if self._script else self._answer(body)
        answer = form(body, text, next(self._numbers))
        await asyncio.sleep(self.first_byte_delay_s)
        if self.die_after_tokens == 0:
            raise Died
        if body.get("stream"):
            return await self._stream(request, answer)
        await asyncio.sleep(self.token_delay_s * len(answer.tokens))
        return web.json_response(answer.whole(self._forced_logprobs(body)))

    async def _stream(self, request: web.Request, answer: "Answer") -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number, frame in enumerate(answer.frames()):
            if number == self.die_after_tokens:
                raise Died
            await response.write(frame)
            await asyncio.sleep(self.token_delay_s)
        return response

    def _forced_logprobs(self, body: Body) -> Body | None:
        """The score of the one token that is allowed, after the prompt's."""
        if body.get("logprobs") is None or "allowed_token_ids" not in body:
            return None
        ids = body["prompt"] if isinstance(body["prompt"], list) else token_ids(body["prompt"])
        [token] = body["allowed_token_ids"]
        score = self._score(body["model"], [*ids, token])[-1]
        return {
            "text_offset": [0],
            "token_logprobs": [score],
            "tokens": [f"<{token}>"],
            "top_logprobs": [{f"<{token}>": score}],
        }

    def _default_score(self, model: str, ids: list[int]) -> list[float]:
        """One number for each id, and for every adapter one less."""
        return [-(token % 97) / 20 - (model != self.model) - 0.1 for token in ids]

    def _unknown_model(self, body: Body) -> web.Response | None:
        name = body.get("model")
        if name in {None, self.model, *self.adapters}:
            return None
        message = f"The model `{name}` does not exist. Valid aliases: {self.model}."
        return error(404, message, "NotFoundError", "model")


class Died(ConnectionResetError):
    """The server breaks the connection, as one that is killed does; answers may raise it."""


def _too_long(body: Body) -> web.Response | None:
    asked = max(prompt_lengths(body))
    limit = next((body[name] for name in LIMITS if body.get(name)), 0)
    if limit > MAX_MODEL_LEN:
        message = f"max_tokens={limit} cannot be greater than max_model_len={MAX_MODEL_LEN}."
        return error(400, message, "BadRequestError", "max_tokens")
    if asked < MAX_MODEL_LEN:
        return None
    message = (
        f"This model's maximum context length is {MAX_MODEL_LEN} tokens. However, your prompt "
        f"contains {asked} input tokens."
    )
    return error(400, message, "BadRequestError", "input_tokens")


def token_ids(text: str) -> list[int]:
    """A stable id for each word."""
    return [zlib.crc32(word.strip().encode()) % 49000 for word in words(text)]


def echo(body: Body) -> str:
    """The default answer: the model's name and the last user text or the prompt."""
    asked = body["prompt"] if "prompt" in body else "".join(map(text_of, turns(body)[-1:]))
    return f"{body['model']} heard: {asked}"


def error(status: int, message: str, kind: str, param: str | None = None) -> web.Response:
    """An error with vLLM's body."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": status}}
    return web.json_response(body, status=status)
