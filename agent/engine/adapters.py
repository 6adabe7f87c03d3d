"""Loading an adapter so that what serves is what was trained.

vLLM can answer 200, list an adapter and still serve the base: zero matching weights is a debug
line in its log. So an adapter is loaded in three steps, each of which can refuse: its files hash
to the manifest that was judged; the engine takes it; and under its name the engine gives tokens of
the trainer's own sentences the log-probabilities that the trained student gave them, not the base.
Each server of the engine goes through the last two by itself.

Each token is asked for by itself, as one token to be generated with no other allowed: vLLM's
`prompt_logprobs` would give a sentence at once, but under an adapter it ends a vLLM on the CPU.

Invariant: a server on which loading failed does not have the adapter.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.engine.client import VllmEngine
from agent.engine.errors import EngineError, EngineStatusError, EngineUnavailable
from store.manifests import MANIFEST, verify_files

log = structlog.get_logger(__name__)

MIN_STUDENT_BASE_GAP = 0.2
"""Nats a token between student and base, below which rounding could pass for learning."""
MAX_PROBE_ERROR = 0.2
"""Nats a token that bf16 kernels may differ from the trainer's fp32."""
MIN_DISTANCE_RATIO = 3.0
"""So many times nearer to the student than to the base."""
PROBE_TOKENS = 8
"""Asked for in all: those on which student and base differ most."""


class AdapterMismatch(Exception):
    """The engine does not serve this adapter as it was trained; the message says how it differs."""


class AdapterLoadError(EngineError):
    """The engine does not take this adapter, which may well be the fault of how it was started."""


@dataclass(frozen=True)
class Probe:
    """A token after a prompt, and the log-probabilities that student and base gave it."""

    prompt_ids: list[int]
    token: int
    student: float
    base: float


async def load_and_verify(
    engine: VllmEngine,
    name: str,
    path: str | Path,
    manifest_sha256: str,
    base: str,
    *,
    already_loaded: bool = False,
) -> None:
    """Load the adapter in the folder `path` under `name`, and let it prove that it is itself.

    Args:
        engine: Gets the adapter; not under `name` before this returns does anyone ask for it.
        name: Never used before for other weights.
        path: The adapter's folder; absolute, for vLLM looks for it too.
        manifest_sha256: The manifest's hash when the adapter was judged.
        base: Name under which the engine serves the base.
        already_loaded: Whether the engine has it and it only has to be verified.

    Raises:
        AdapterCorrupt: The files are not those that were judged.
        AdapterMismatch: It answers otherwise than it was trained to.
        AdapterLoadError: The engine does not take it, or serves another base.
        EngineError: The engine cannot say.
    """
    folder = Path(path)
    verify_files(folder, manifest_sha256)
    probes = read_probes(folder)

    async def load_at(server: VllmEngine) -> None:
        try:
            if not already_loaded:
                await server.load_adapter(name, str(folder))
            await _prove(server, name, base, probes)
        except EngineStatusError as refused:
            await _forget(server, name)
            raise await _refusal(server, name, refused) from refused
        except BaseException:
            await _forget(server, name)
            raise

    await engine.on_every_server(load_at)


def read_probes(folder: Path) -> list[Probe]:
    """The most telling tokens of the sentences in an adapter's manifest.

    Raises:
        AdapterMismatch: There are none.
    """
    probes = [
        Probe(entry["prompt_ids"] + entry["completion_ids"][:position], token, student, base)
        for entry in json.loads((folder / MANIFEST).read_bytes())["probe"]
        for position, (token, student, base) in enumerate(
            zip(entry["completion_ids"], entry["student"], entry["base"], strict=True)
        )
    ]
    if not probes:
        raise AdapterMismatch(f"{folder.name} has no probes to tell it from the base by.")
    return sorted(probes, key=lambda probe: -abs(probe.student - probe.base))[:PROBE_TOKENS]


def find_mismatch(
    measured: Sequence[float], student: Sequence[float], base: Sequence[float]
) -> str | None:
    """Why `measured` cannot be the student's log-probabilities of the same tokens; None if it can.

    Args:
        measured: What the engine gave under the adapter's name, nats for each token.
        student: What the trained student gave.
        base: What the base gave.
    """
    if not all(map(math.isfinite, measured)):
        return "it gives log-probabilities that are not numbers"
    gap = _distance(student, base)
    if gap < MIN_STUDENT_BASE_GAP:
        return f"the trained student hardly differs from the base ({gap:.3f} nats a token)"
    to_student, to_base = _distance(measured, student), _distance(measured, base)
    apart = f"{to_student:.3f} nats a token from the student, {to_base:.3f} from the base"
    if to_student * MIN_DISTANCE_RATIO > to_base:
        return f"it does not answer like the trained student ({apart})"
    if to_student > MAX_PROBE_ERROR:
        return f"it answers only roughly like the trained student ({apart})"
    return None


async def _refusal(server: VllmEngine, name: str, refused: EngineStatusError) -> EngineError:
    """What it means that the engine refuses to load the adapter, or to answer its probes."""
    # A dying engine refuses too; that says nothing about the adapter.
    if not await server.is_healthy():
        return EngineUnavailable(refused.message)
    return AdapterLoadError(f"The engine refuses {name}: {refused.message}")


async def _prove(engine: VllmEngine, name: str, base: str, probes: Sequence[Probe]) -> None:
    student = [probe.student for probe in probes]
    of_base = [probe.base for probe in probes]
    drift = _distance(await _measure(engine, base, probes), of_base)
    if not drift <= MAX_PROBE_ERROR:
        raise AdapterLoadError(
            f"The engine's base is not the one that {name} was trained on ({drift:.3f} nats a "
            "token apart)."
        )
    measured = await _measure(engine, name, probes)
    if reason := find_mismatch(measured, student, of_base):
        raise AdapterMismatch(f"The engine does not serve {name} as it was trained: {reason}.")
    log.info(
        "adapter proven",
        adapter=name,
        to_student=round(_distance(measured, student), 4),
        to_base=round(_distance(measured, of_base), 4),
        base_drift=round(drift, 4),
    )


async def _measure(engine: VllmEngine, model: str, probes: Sequence[Probe]) -> list[float]:
    """The engine's log-probabilities of the probes' tokens, in nats."""
    return list(await asyncio.gather(*(_score(engine, model, probe) for probe in probes)))


async def _score(engine: VllmEngine, model: str, probe: Probe) -> float:
    """The log-probability is the model's own: vLLM takes it before it applies what is allowed."""
    answer = await engine.complete(
        probe.prompt_ids, model, max_tokens=1, logprobs=0, allowed_token_ids=[probe.token]
    )
    return float(answer["choices"][0]["logprobs"]["token_logprobs"][0])


async def _forget(engine: VllmEngine, name: str) -> None:
    with contextlib.suppress(EngineError):
        await engine.unload_adapter(name)


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Mean absolute difference, nats a token."""
    pairs = list(zip(one, other, strict=True))
    return sum(abs(a - b) for a, b in pairs) / len(pairs)
