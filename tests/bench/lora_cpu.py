"""Tokens a second of vLLM on the CPU, with and without an adapter: its own LoRA path and ours.

    python -m tests.bench.lora_cpu        # `make bench-lora`; about six minutes on two cores

Each path is measured in a process of its own, base and adapter in turn, so that what else the
machine does touches both. The best of some rounds counts. The adapter has random weights of rank
32 on all linear layers, the rank that runs train by default.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from tests.bench.apart import measure_apart
from tests.bench.plots import plot_lines

CONCURRENT = (1, 8, 32)
PROMPT_TOKENS, NEW_TOKENS, RANK = 40, 64, 32
PATHS = {"vLLM's own": "0", "the plugin": "1"}


def main() -> None:
    """Measure both paths and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="a picture to draw")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, adapter = prepare(Path(folder))
        measured = {
            path: measure_apart(
                measure, str(model), str(adapter), options.rounds, settings=settings(switch)
            )
            for path, switch in PATHS.items()
        }
    print("| requests at once | base, tokens/s | " + " | ".join(measured) + " |")
    print("|---|---|" + "---|" * len(measured))
    for row, (count, base) in enumerate(zip(CONCURRENT, _base(measured), strict=True)):
        shares = [
            f"{rows[row]['adapter']:.0f} ({rows[row]['adapter'] / rows[row]['base']:.2f})"
            for rows in measured.values()
        ]
        print(f"| {count} | {base:.0f} | " + " | ".join(shares) + " |")
    if options.plot:
        draw(measured, options.plot)


def draw(measured: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw the tokens a second of each path, and of the base beside it."""
    lines = {
        f"adapter, {name}": [row["adapter"] for row in rows] for name, rows in measured.items()
    }
    lines["base"] = _base(measured)
    points = {name: list(zip(CONCURRENT, speeds, strict=True)) for name, speeds in lines.items()}
    plot_lines(points, "requests at once", "tokens a second", path)


def _base(measured: dict[str, list[dict[str, float]]]) -> list[float]:
    """The base's best beside either path."""
    return [max(row["base"] for row in rows) for rows in zip(*measured.values(), strict=True)]


def prepare(folder: Path) -> tuple[Path, Path]:
    """The embedded model, and an adapter of random weights for it."""
    from peft import LoraConfig, get_peft_model
    from torch import nn
    from transformers import AutoModelForCausalLM

    from distill.model.embedded import embed

    model, adapter = embed(folder / "model"), folder / "adapter"
    config = LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    student = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    for name, weight in student.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.01)
    student.save_pretrained(adapter)
    return model, adapter


def settings(switch: str) -> dict[str, str]:
    """The environment of a measurement: which path, and an engine in that same process."""
    return {
        "BYHEART_ENGINE__LORA_CPU": switch,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }


def measure(model: str, adapter: str, rounds: int) -> None:
    """Print the best tokens a second of base and adapter, for each number of requests."""
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    from agent.engine.launch import dtype_flags

    cpuinfo = Path("/proc/cpuinfo").read_text()
    llm = LLM(
        model,
        dtype="float32" if dtype_flags(cpuinfo) else "auto",
        enable_lora=True,
        max_loras=2,
        max_lora_rank=RANK,
        max_model_len=1024,
    )
    lora = LoRARequest("bench", 1, adapter)
    rows = []
    for count in CONCURRENT:
        best = {"base": 0.0, "adapter": 0.0}
        for each in range(rounds + 1):
            for name, request in (("base", None), ("adapter", lora)):
                speed = tokens_per_second(llm, request, count, seed=each)
                best[name] = max(best[name], speed if each else 0.0)  # the first warms up
        rows.append(best)
    print(json.dumps(rows))


def tokens_per_second(llm: object, lora: object, count: int, seed: int) -> float:
    """New tokens a second of `count` requests that nothing is cached of."""
    from vllm import SamplingParams

    chance = random.Random(f"{seed} {count} {lora}")
    prompts = [
        {"prompt_token_ids": [chance.randrange(100, 40_000) for _ in range(PROMPT_TOKENS)]}
        for _ in range(count)
    ]
    greedy = SamplingParams(max_tokens=NEW_TOKENS, ignore_eos=True, temperature=0)
    began = time.perf_counter()
    llm.generate(prompts, greedy, lora_request=lora, use_tqdm=False)
    return count * NEW_TOKENS / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
