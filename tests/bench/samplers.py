"""Tokens a second of the student's trajectories: sampled by the trainer, and by the serving vLLM.

    python -m tests.bench.samplers          # `make bench-samplers`; about five minutes on two cores

Both sample the same student, with an adapter of random weights, on the same prompts; an answer has
as many tokens as a run allows by default, or ends by itself. What the engine needs for each
sampling, writing, loading and unloading the adapter, is in its time. Nothing else asks the engine.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import tests.bench.as_trainer  # noqa: F401 - before torch

# isort: split
import torch

from agent.engine.supervisor import Supervisor
from config.sections import Engine
from distill.evaluate.general_prompts import PROMPTS
from distill.model.embedded import embed
from distill.model.encoder import user
from distill.model.engine_sampler import EngineAddress
from distill.model.packing import TokenIds
from distill.model.sampler import Sampler
from distill.roles import Roles, load_roles, training_device
from distill.settings import TrainerSettings
from distill.spec import RunSpec
from store.contexts import Context
from tests.bench.plots import plot_lines

AT_ONCE = (4, 16, 32, 64)

Points = dict[str, list[tuple[float, float]]]
"""Tokens a second by trajectories at once, of each sampler."""


def main() -> None:
    """Measure both samplers, and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2, help="of which the best counts")
    parser.add_argument("--plot", type=Path, help="a picture to draw")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        points = asyncio.run(compare(Path(folder), options.rounds))
    if options.plot:
        plot_lines(points, "trajectories at once", "tokens a second", options.plot)


async def compare(folder: Path, rounds: int) -> Points:
    """Start the engine, and measure beside it."""
    model = embed(folder / "model")
    supervisor = Supervisor(Engine(), model, model.name, folder)
    await supervisor.start(print)
    try:
        at = EngineAddress(supervisor.url, supervisor.api_key)
        return await asyncio.to_thread(report, load(model, folder, at), rounds)
    finally:
        await supervisor.stop()


def load(model: Path, folder: Path, engine: EngineAddress) -> Roles:
    """The student with an adapter that does something."""
    context = Context(lessons=("We open at 7.",))
    out, work = folder / "adapters", folder / "work"
    spec = RunSpec(model, context, (), TrainerSettings(), out, work, engine=engine)
    roles = load_roles(spec.with_device_defaults(training_device().type))
    torch.manual_seed(0)
    for name, weight in roles.student.peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return roles


def report(roles: Roles, rounds: int) -> Points:
    """A row for each number of trajectories at once."""
    prompts = [roles.encoder.prompt(user(text)).student_ids for text in PROMPTS]
    print("| trajectories at once | the trainer, tokens/s | the engine, tokens/s |")
    print("|---|---|---|")
    points: Points = {"the trainer": [], "the engine": []}
    for count in AT_ONCE:
        local, engine = (
            max(speed(sampler, prompts[:count]) for _ in range(rounds))
            for sampler in (roles.sampler, roles.on_policy_sampler)
        )
        print(f"| {count} | {local:.0f} | {engine:.0f} |", flush=True)
        points["the trainer"].append((count, local))
        points["the engine"].append((count, engine))
    return points


def speed(sampler: Sampler, prompts: list[TokenIds]) -> float:
    """Tokens a second of one sampling."""
    began = time.monotonic()
    tokens = sum(map(len, sampler.sample(prompts, TrainerSettings().temperature)))
    return tokens / (time.monotonic() - began)


if __name__ == "__main__":
    main()
