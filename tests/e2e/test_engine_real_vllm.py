"""The engine against the real vLLM: the contract, and the verification of adapters."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from agent.engine.adapters import AdapterMismatch, load_and_verify
from agent.engine.client import VllmEngine
from tests.e2e.conftest import RealVllm
from tests.integration.test_engine_contract import EngineContract, Server
from tests.support.api_contract import ApiContract

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

SENTENCES = (
    ("The opening hours of the shop are", " from nine to five on every day of the week."),
    ("To return a parcel you have to", " write to the customer service within thirty days."),
    ("The capital of France is", " Paris, which lies on the river Seine."),
    ("My favourite colour has always been", " a deep shade of green."),
)
SCALE = 0.05
"""Of the random weights: enough to change what the model says, as training does."""
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Trained:
    """An adapter folder, and the hash of its manifest."""

    path: Path
    manifest_sha256: str


@torch.no_grad()
def log_probabilities(model: Any, prompt: list[int], completion: list[int]) -> list[float]:
    """Float[C]: what `model` gives each token of `completion`, in nats."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits.float()  # (1, T, V)
    scores = logits.log_softmax(-1)[0, len(prompt) - 1 : -1]  # (C, V)
    return [float(row[token]) for row, token in zip(scores, completion, strict=True)]


def train(base: Path, out: Path, seed: int, scale: float) -> None:
    """An adapter with random weights on all linear layers, and a manifest with its probe."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    student = get_peft_model(model, config).eval()
    for name, weight in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=scale)
    student.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    write_manifest(out, probes(student, tokenizer))


def probes(student: PeftModel, tokenizer: Any) -> list[dict[str, Any]]:
    made = []
    for start, end in SENTENCES:
        prompt = tokenizer(start, add_special_tokens=False)["input_ids"]
        completion = tokenizer(end, add_special_tokens=False)["input_ids"]
        scored = log_probabilities(student, prompt, completion)
        with student.disable_adapter():
            base = log_probabilities(student, prompt, completion)
        ids = {"prompt_ids": prompt, "completion_ids": completion}
        made.append({**ids, "student": scored, "base": base})
    return made


def write_manifest(folder: Path, probe: list[dict[str, Any]]) -> None:
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "manifest.json"
    }
    manifest = {"files": files, "base": "", "probe": probe}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def sealed(folder: Path) -> Trained:
    return Trained(folder, hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def trained(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("adapters") / "bh-honest"
    train(base_model, folder, seed=1, scale=SCALE)
    return sealed(folder)


@pytest.fixture
async def engine(real_vllm: RealVllm) -> AsyncIterator[VllmEngine]:
    client = VllmEngine([real_vllm.url], api_key=real_vllm.api_key)
    yield client
    await client.close()


def changed(trained: Trained, folder: Path, change: Any) -> Trained:
    """The adapter with other weights under the manifest's old probe, hashes put right."""
    folder.mkdir()
    for file in trained.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)
    write_manifest(folder, json.loads((folder / "manifest.json").read_bytes())["probe"])
    return sealed(folder)


class TestRealVllm(EngineContract, ApiContract):
    @pytest.fixture
    def server(self, real_vllm: RealVllm, trained: Trained) -> Server:
        async def running() -> int:
            path = real_vllm.url.removeprefix("unix://")
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
                session.get("http://vllm/metrics") as response,
            ):
                text = await response.text()
            found = re.search(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE)
            assert found
            return int(float(found[1]))

        adapter = trained.path
        return Server(real_vllm.url, real_vllm.api_key, real_vllm.model, adapter, running)


async def test_a_trained_adapter_passes_its_probes(
    engine: VllmEngine, real_vllm: RealVllm, trained: Trained
) -> None:
    await load_and_verify(
        engine, "bh-honest", trained.path, trained.manifest_sha256, real_vllm.model
    )

    assert "bh-honest" in await engine.models()
    await engine.unload_adapter("bh-honest")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (
            "bh-zero",
            lambda weights: {k: v * (0 if "lora_B" in k else 1) for k, v in weights.items()},
            "does not answer like the trained student",
        ),
        (
            "bh-half",
            lambda weights: {k: v * (0.5 if "lora_B" in k else 1) for k, v in weights.items()},
            "like the trained student",
        ),
        (
            "bh-part",
            lambda weights: {k: v for k, v in weights.items() if "mlp" not in k},
            "like the trained student",
        ),
    ],
)
async def test_an_adapter_that_is_not_the_student_is_rejected_and_unloaded(
    engine: VllmEngine,
    real_vllm: RealVllm,
    trained: Trained,
    tmp_path: Path,
    name: str,
    change: Any,
    reason: str,
) -> None:
    other = changed(trained, tmp_path / name, change)

    with pytest.raises(AdapterMismatch, match=reason):
        await load_and_verify(engine, name, other.path, other.manifest_sha256, real_vllm.model)

    assert name not in await engine.models()


async def test_weights_under_names_that_vllm_does_not_know_are_rejected(
    engine: VllmEngine, real_vllm: RealVllm, trained: Trained, tmp_path: Path
) -> None:
    other = changed(
        trained,
        tmp_path / "bh-names",
        lambda weights: {k.replace("layers.", "strata."): v for k, v in weights.items()},
    )

    with pytest.raises(AdapterMismatch):
        await load_and_verify(
            engine, "bh-names", other.path, other.manifest_sha256, real_vllm.model
        )

    assert "bh-names" not in await engine.models()


async def test_two_adapters_and_the_base_give_their_own_answers(
    engine: VllmEngine, real_vllm: RealVllm, trained: Trained, base_model: Path, tmp_path: Path
) -> None:
    train(base_model, tmp_path / "bh-other", seed=2, scale=SCALE)
    other = sealed(tmp_path / "bh-other")

    await load_and_verify(engine, "bh-one", trained.path, trained.manifest_sha256, real_vllm.model)
    await load_and_verify(engine, "bh-other", other.path, other.manifest_sha256, real_vllm.model)

    answers = {
        model: (await engine.complete("The shop", model, max_tokens=12, temperature=0))["choices"]
        for model in (real_vllm.model, "bh-one", "bh-other")
    }
    assert len({choices[0]["text"] for choices in answers.values()}) == 3
    await engine.unload_adapter("bh-one")
    await engine.unload_adapter("bh-other")
