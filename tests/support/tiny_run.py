"""`make_spec()`: a short training run on the tiny model, with fields that a test can change."""

from pathlib import Path

from distill.model.encoder import user
from distill.settings import TrainerSettings
from distill.spec import RunSpec
from store.contexts import Context

SETTINGS = TrainerSettings(
    steps=6,
    warmup_steps=1,
    batch_size=4,
    rank=4,
    alpha=8,
    lr=1e-2,
    replay_share=0.25,
    max_completion_tokens=6,
    max_answer_tokens=6,
    refresh_every=8,
    questions_per_lesson=1,
    checkpoint_every=2,
    threads=1,
    statement_tolerance=1000.0,
)


PROMPTS = tuple(user(f"{word} do you open?") for word in ("When", "Why", "Where", "How"))


def make_spec(model: Path, folder: Path, **changes) -> RunSpec:
    values = {
        "model": model,
        "context": Context(system_prompt="The shop opens early in the morning."),
        "prompts": PROMPTS,
        "held_out": (user("At what time can I come?"),),
        "settings": SETTINGS,
        "out": folder / "adapters",
        "work": folder / "work",
    }
    return RunSpec(**(values | changes))


def silent(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    pass
