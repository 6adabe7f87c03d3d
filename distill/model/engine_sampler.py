"""Samples on-policy completions in the serving vLLM, where that is faster than in this process.

For every batch, the current adapter is written to a folder, loaded into vLLM under a unique name,
used, and unloaded. A name never changes its weights, so no completion mixes two adapters and no KV
cache is stale. vLLM reads the folder, so it must share the file system. Its arithmetic differs from
this process's and depends on its other requests, so completions are the student's only up to
rounding. Divergences stay exact for any sampling policy, but a resumed run is not bit-identical.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from distill.model.adapter_files import write_adapter
from distill.model.distributed import SINGLE_PROCESS, ParallelState
from distill.model.packing import TokenIds
from distill.model.student import Student
from store.durable_files import staging

TIMEOUT_S = 600.0
STUDENT = "student"
"""Subfolder of the work folder with the current adapter, for the engine."""
# Overrides the model's generation_config: completions are samples of the unmodified distribution.
UNMODIFIED = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


class EngineUnavailable(Exception):
    """The engine cannot be reached or rejects a request; the message has its answer."""


@dataclass(frozen=True)
class EngineAddress:
    """The address and API key of the engine."""

    url: str
    """`http://host:port` or `unix:///path`."""
    api_key: str = field(default="", repr=False)

    def client(self) -> httpx.Client:
        """Return an HTTP client of the engine."""
        is_socket = self.url.startswith("unix://")
        return httpx.Client(
            base_url="http://engine" if is_socket else self.url.rstrip("/").removesuffix("/v1"),
            transport=httpx.HTTPTransport(uds=self.url.removeprefix("unix://"))
            if is_socket
            else None,
            headers={"Authorization": f"Bearer {self.api_key}"} if self.api_key else {},
            timeout=TIMEOUT_S,
        )

    def max_model_len(self) -> int:
        """Return the maximum tokens of a prompt and its completion.

        Raises:
            EngineUnavailable: The engine cannot be reached or rejects the request.
        """
        with transport_errors(self), self.client() as client:
            cards = _listed(client.get("/v1/models"), "data")
        lengths = [int(card["max_model_len"]) for card in cards if card.get("max_model_len")]
        if not lengths:
            raise EngineUnavailable(f"{self.url} does not report max_model_len, as vLLM does.")
        return min(lengths)


@dataclass
class EngineSampler:
    """Samples in the engine with the student's current adapter."""

    engine: EngineAddress
    student: Student
    base_name: str
    folder: Path
    """The engine reads adapters from here; the next run removes those of a killed one."""
    name: str
    """Prefix of the adapters' names; a number follows."""
    stop_ids: frozenset[int]
    max_tokens: int
    parallel: ParallelState = SINGLE_PROCESS
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def sample(
        self,
        prompts: Sequence[TokenIds],
        temperature: float,
        seeds: Sequence[int] | None = None,  # noqa: ARG002 - vLLM is not deterministic
    ) -> list[TokenIds]:
        """Return one completion per prompt, stop token included.

        Raises:
            EngineUnavailable: The engine cannot be reached or rejects the request.
        """
        return (
            self.parallel.run_on_first_shard(lambda: self._complete(prompts, temperature))
            if prompts
            else []
        )

    def _complete(self, prompts: Sequence[TokenIds], temperature: float) -> list[TokenIds]:
        body = {
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": self.max_tokens,
            "temperature": temperature,
            "stop_token_ids": sorted(self.stop_ids),
            "return_token_ids": True,
            **UNMODIFIED,
        }
        with (
            transport_errors(self.engine),
            self.engine.client() as client,
            self._loaded(client) as model,
        ):
            answer = client.post("/v1/completions", json={"model": model, **body})
            choices = _listed(answer, "choices")
        ordered = sorted(choices, key=lambda choice: choice["index"])
        return [tuple(choice["token_ids"]) for choice in ordered]

    @contextmanager
    def _loaded(self, client: httpx.Client) -> Iterator[str]:
        """Load the current adapter into the engine and yield its name; unload it afterwards."""
        name = f"{self.name}-{next(self.numbers)}"
        with staging(self.folder) as folder:
            folder.chmod(0o755)  # the engine may run as another user
            write_adapter(folder, self.student, self.base_name)
            adapter = {"lora_name": name, "lora_path": str(folder.absolute())}
            _checked(client.post("/v1/load_lora_adapter", json=adapter))
            try:
                yield name
            finally:
                _checked(client.post("/v1/unload_lora_adapter", json={"lora_name": name}))


@contextmanager
def transport_errors(engine: EngineAddress) -> Iterator[None]:
    """Raise transport errors as EngineUnavailable."""
    try:
        yield
    except httpx.HTTPError as error:
        raise EngineUnavailable(f"{engine.url}: {type(error).__name__}: {error}") from error


def _listed(answer: httpx.Response, name: str) -> list[dict[str, Any]]:
    """Return a list of objects from a response, which may come from a proxy instead of vLLM."""
    try:
        found = _checked(answer).json()[name]
    except (ValueError, LookupError, TypeError):
        found = None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise EngineUnavailable(
            f"{answer.request.url} answered without a list of {name}: {answer.text[:300]}"
        )
    return found


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise EngineUnavailable(
            f"The engine answered {answer.request.url.path} with {answer.status_code}: "
            f"{answer.text[:300]}. Set distill.sampler = 'local' to sample in the trainer."
        )
    return answer
