"""Load an adapter and verify that the engine serves it as it was trained.

vLLM can answer 200 and list an adapter, yet serve the base: if no weights match, it only logs a
debug line. Loading therefore has three steps, each of which can fail:

1. the files hash to the manifest that the gate judged;
2. the engine loads the adapter;
3. the identity probe: for some sentences in the manifest, the engine's log-probabilities under the
   adapter's name are those of the trained student, not those of the base.

Every server of the engine goes through steps 2 and 3 separately.

The probe scores one token per request: it asks for one token and allows only that one. vLLM's
`prompt_logprobs` would score a whole sentence, but crashes vLLM on the CPU when an adapter is used.

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
"""Nats per token; below this distance, student and base cannot be distinguished reliably."""
MAX_PROBE_ERROR = 0.2
"""Nats per token by which bf16 kernels may differ from the trainer's fp32."""
MIN_DISTANCE_RATIO = 3.0
"""Minimum ratio of the measurement's distance to the base and its distance to the student."""
PROBE_TOKENS = 8
"""Number of probed tokens: those on which student and base differ most."""


class AdapterMismatch(Exception):
    """The engine does not serve this adapter as it was trained; the message says how it differs."""


class AdapterLoadError(EngineError):
    """The engine could not load this adapter; the cause may be how the engine was started."""


@dataclass(frozen=True)
class Probe:
    """A token after a prompt, with its log-probabilities under the student and under the base."""

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
    """Load the adapter in the folder `path` under `name`, and verify it with the identity probe.

    Args:
        engine: Loads the adapter; no request may use `name` before this returns.
        name: Must never have been used for other weights.
        path: The adapter's folder; absolute, because vLLM opens it too.
        manifest_sha256: The manifest's hash when the gate judged the adapter.
        base: Name under which the engine serves the base.
        already_loaded: Whether the engine has loaded it before, so that it is only verified.

    Raises:
        AdapterCorrupt: The files are not those that the gate judged.
        AdapterMismatch: The engine does not serve it as it was trained.
        AdapterLoadError: The engine cannot load it, or serves a different base.
        EngineError: The engine could not be reached.
    """
    folder = Path(path)
    verify_files(folder, manifest_sha256)
    probes = read_probes(folder)

    async def load_on_server(server: VllmEngine) -> None:
        try:
            if not already_loaded:
                await server.load_adapter(name, str(folder))
            await _verify(server, name, base, probes)
        except EngineStatusError as error:
            await _unload(server, name)
            raise await _load_failure(server, name, error) from error
        except BaseException:
            await _unload(server, name)
            raise

    await engine.on_every_server(load_on_server)


def read_probes(folder: Path) -> list[Probe]:
    """Return the tokens in an adapter's manifest on which student and base differ most.

    Raises:
        AdapterMismatch: The manifest has no probe sentences.
    """
    probes = [
        Probe(entry["prompt_ids"] + entry["completion_ids"][:position], token, student, base)
        for entry in json.loads((folder / MANIFEST).read_bytes())["probe"]
        for position, (token, student, base) in enumerate(
            zip(entry["completion_ids"], entry["student"], entry["base"], strict=True)
        )
    ]
    if not probes:
        raise AdapterMismatch(f"{folder.name} has no probes: it cannot be verified.")
    return sorted(probes, key=lambda probe: -abs(probe.student - probe.base))[:PROBE_TOKENS]


def find_mismatch(
    measured: Sequence[float], student: Sequence[float], base: Sequence[float]
) -> str | None:
    """Return why `measured` cannot come from the trained student; None if it can.

    Args:
        measured: The engine's log-probability of each token under the adapter's name, in nats.
        student: Those of the trained student for the same tokens.
        base: Those of the base.
    """
    if not all(map(math.isfinite, measured)):
        return "its log-probabilities are not finite"
    gap = _distance(student, base)
    if gap < MIN_STUDENT_BASE_GAP:
        return f"the trained student hardly differs from the base ({gap:.3f} nats per token)"
    to_student, to_base = _distance(measured, student), _distance(measured, base)
    distances = f"{to_student:.3f} nats per token from the student, {to_base:.3f} from the base"
    if to_student * MIN_DISTANCE_RATIO > to_base:
        return f"it does not answer like the trained student ({distances})"
    if to_student > MAX_PROBE_ERROR:
        return f"it answers only roughly like the trained student ({distances})"
    return None


async def _load_failure(server: VllmEngine, name: str, error: EngineStatusError) -> EngineError:
    """Return the error to raise when the engine rejects the adapter or one of its probes."""
    # An engine that is shutting down rejects requests too; that says nothing about the adapter.
    if not await server.is_healthy():
        return EngineUnavailable(error.message)
    return AdapterLoadError(f"The engine rejects {name}: {error.message}")


async def _verify(engine: VllmEngine, name: str, base: str, probes: Sequence[Probe]) -> None:
    student_logprobs = [probe.student for probe in probes]
    base_logprobs = [probe.base for probe in probes]
    drift = _distance(await _measure(engine, base, probes), base_logprobs)
    if not drift <= MAX_PROBE_ERROR:
        raise AdapterLoadError(
            f"{name} was trained on a different base than the engine serves ({drift:.3f} nats per "
            "token apart)."
        )
    measured = await _measure(engine, name, probes)
    if reason := find_mismatch(measured, student_logprobs, base_logprobs):
        raise AdapterMismatch(f"The engine does not serve {name} as it was trained: {reason}.")
    log.info(
        "adapter verified",
        adapter=name,
        to_student=round(_distance(measured, student_logprobs), 4),
        to_base=round(_distance(measured, base_logprobs), 4),
        base_drift=round(drift, 4),
    )


async def _measure(engine: VllmEngine, model: str, probes: Sequence[Probe]) -> list[float]:
    """Return the engine's log-probability of each probe's token, in nats."""
    return list(await asyncio.gather(*(_score(engine, model, probe) for probe in probes)))


async def _score(engine: VllmEngine, model: str, probe: Probe) -> float:
    """Score one token. vLLM computes log-probabilities before it applies `allowed_token_ids`."""
    completion = await engine.complete(
        probe.prompt_ids, model, max_tokens=1, logprobs=0, allowed_token_ids=[probe.token]
    )
    return float(completion["choices"][0]["logprobs"]["token_logprobs"][0])


async def _unload(engine: VllmEngine, name: str) -> None:
    with contextlib.suppress(EngineError):
        await engine.unload_adapter(name)


def _distance(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the mean absolute difference, in nats per token."""
    pairs = list(zip(left, right, strict=True))
    return sum(abs(a - b) for a, b in pairs) / len(pairs)
