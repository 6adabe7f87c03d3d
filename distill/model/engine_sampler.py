"""The student's trajectories from the vLLM that serves, where that is faster than this process.

For every sampling the adapter as it is now is written to a folder and loaded under a name of its
own, asked, and unloaded: a name never changes its weights, so no answer is of a mixture and no
cache is stale. The engine reads the folder, so it must see the same file system. Its arithmetic is
not this process's, and depends on what else it serves: trajectories are the student's up to
rounding, their divergences are exact whoever sampled them, and a resumed run is not bit-identical.
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
"""In the folder of resume points: the adapter as it is now, for an engine that samples."""
# Nothing of the model's own generation_config: a trajectory is a sample of the distribution itself.
PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


class EngineUnavailable(Exception):
    """The engine does not sample for a run; the message says what it answered."""


@dataclass(frozen=True)
class EngineAddress:
    """Where the engine is."""

    url: str
    """`http://host:port` or `unix:///path`."""
    api_key: str = field(default="", repr=False)

    def client(self) -> httpx.Client:
        """A client of it."""
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
        """The longest prompt with its answer that the engine takes, in tokens.

        Raises:
            EngineUnavailable: It cannot be reached, or refuses.
        """
        with reached(self), self.client() as client:
            cards = _listed(client.get("/v1/models"), "data")
        lengths = [int(card["max_model_len"]) for card in cards if card.get("max_model_len")]
        if not lengths:
            raise EngineUnavailable(
                f"{self.url} does not say how long a prompt may be, as vLLM does."
            )
        return min(lengths)


@dataclass
class EngineSampler:
    """Samples with the student's adapter in the engine."""

    engine: EngineAddress
    student: Student
    base_name: str
    folder: Path
    """Where adapters are put for the engine to read; a killed run's goes with the next one."""
    name: str
    """What the adapters are called, but for a number."""
    stop_ids: frozenset[int]
    max_tokens: int
    parallel: ParallelState = SINGLE_PROCESS
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def sample(
        self,
        prompts: Sequence[TokenIds],
        temperature: float,
        seeds: Sequence[int] | None = None,  # noqa: ARG002 - the engine does not repeat itself
    ) -> list[TokenIds]:
        """One completion a prompt, the end token included.

        Raises:
            EngineUnavailable: It cannot be reached, or refuses.
        """
        return (
            self.parallel.run_on_first_shard(lambda: self._ask(prompts, temperature))
            if prompts
            else []
        )

    def _ask(self, prompts: Sequence[TokenIds], temperature: float) -> list[TokenIds]:
        body = {
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": self.max_tokens,
            "temperature": temperature,
            "stop_token_ids": sorted(self.stop_ids),
            "return_token_ids": True,
            **PLAIN,
        }
        with reached(self.engine), self.engine.client() as client, self._loaded(client) as model:
            answer = client.post("/v1/completions", json={"model": model, **body})
            choices = _listed(answer, "choices")
        ordered = sorted(choices, key=lambda choice: choice["index"])
        return [tuple(choice["token_ids"]) for choice in ordered]

    @contextmanager
    def _loaded(self, client: httpx.Client) -> Iterator[str]:
        """The student as it is now, loaded under the name that is yielded."""
        name = f"{self.name}-{next(self.numbers)}"
        with staging(self.folder) as folder:
            folder.chmod(0o755)  # the engine may be another user's
            write_adapter(folder, self.student, self.base_name)
            adapter = {"lora_name": name, "lora_path": str(folder.absolute())}
            _checked(client.post("/v1/load_lora_adapter", json=adapter))
            try:
                yield name
            finally:
                _checked(client.post("/v1/unload_lora_adapter", json={"lora_name": name}))


@contextmanager
def reached(engine: EngineAddress) -> Iterator[None]:
    """What goes wrong on the way to the engine, as one error."""
    try:
        yield
    except httpx.HTTPError as error:
        raise EngineUnavailable(f"{engine.url}: {type(error).__name__}: {error}") from error


def _listed(answer: httpx.Response, name: str) -> list[dict[str, Any]]:
    """A list in an answer; anything may stand in the engine's place, such as a proxy's page."""
    try:
        found = _checked(answer).json()[name]
    except (ValueError, LookupError, TypeError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise EngineUnavailable(
            f"{answer.request.url} is answered with no list of {name}: {answer.text[:300]}"
        )
    return found


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise EngineUnavailable(
            f"The engine answered {answer.request.url.path} with {answer.status_code}: "
            f"{answer.text[:300]}. With distill.sampler = 'local' a run samples by itself."
        )
    return answer
