"""`byheart demo`: runs the whole loop on this machine without configuration, and measures it."""

import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from agent.cli.errors import InputError
from agent.cli.options import console
from agent.cli.progress import stages
from agent.demo.errors import DemoFailed
from agent.process.data_dir import daemon_is_running
from config.settings import Settings, load
from store.db import Database

if TYPE_CHECKING:
    from agent.demo.loop import Outcome

CONFIG = Path("byheart.toml")
MARKER = Path(".byheart-demo")
"""Marks a folder as the demo's, so that a later demo may replace it."""
DATA = Path("data")
FAST_FACTS = 2
FAST_STEPS = 8
SETTINGS = """\
# Written by `byheart demo`: the defaults, except for the folder, a free port and short delays.
[server]
port = 0
[store]
data_dir = "{data_dir}"
[learning]
idle_s = 1
tick_s = 1
[distill]
min_new_lessons = 2
settle_s = {settle_s}
"""
SETTLE_S, FAST_SETTLE_S = 10, 2
"""Seconds without a new lesson before training starts."""
FAST_SETTINGS = """\
steps = {steps}
questions_per_lesson = 2
max_completion_tokens = 16
max_answer_tokens = 16
statement_tolerance = 1000
[gate]
margin = 0.99
min_gap_closed = 0.01
min_facts_learned = 0
min_held_out = 1
"""
PLAN = """\
byheart demo: {name}
The shop has {facts} facts that the base model does not know.

  1  start the daemon: vLLM with the embedded model              about 1 minute
  2  ask the base model {measured} test questions                        {ask}
  3  {facts} customers ask, the operator corrects wrong answers       under 1 minute
  4  extract lessons from the corrections                        under 1 minute
  5  distil them into an adapter, gate it, swap it in            {train}
  6  ask the {measured} questions again, with and without the adapter    {again}
  7  correct what is still wrong, and ask it again               under 1 minute

Results and logs are written to {folder}.
"""


def demo(
    fast: Annotated[
        bool, typer.Option("--fast", help="Train for a few steps only, as a smoke test.")
    ] = False,
    shop: Annotated[
        Path | None,
        typer.Option(help="Your own questions and answers; see config/examples/shop.toml."),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--dir", help="Output folder; replaced if an earlier demo created it.")
    ] = Path("byheart-demo"),
) -> None:
    """Run the whole loop on this machine, and measure what the model has learned.

    Serves the embedded model, asks questions that it answers wrong, corrects it, extracts lessons,
    distils them into an adapter, and asks again. Needs no configuration.

    Exits with 1 if no adapter goes live, or if the adapter is no better than the base model; the
    latter is not checked with --fast.
    """
    # Imported here, because their HTTP clients are an optional dependency.
    from agent.demo import loop, service, shops

    shop_data = shops.read_shop(shop or shops.DEFAULT)
    if fast:
        shop_data = shop_data.model_copy(update={"fact": shop_data.fact[:FAST_FACTS]})
    settings = load(prepare(folder.absolute(), fast), environ={})
    console.print(plan(shop_data.name, len(shop_data.fact), len(shop_data.measured), folder, fast))
    started = time.monotonic()
    with (
        stages() as show,
        service.serving(folder / CONFIG, settings.data_dir, show) as running,
        closing(Database(settings.database_url)) as db,
    ):
        outcome = loop.Demo(shop_data, settings, running, db, show).run()
    report(outcome, settings, folder, time.monotonic() - started)
    if not fast and outcome.internalised.right <= outcome.base.right:
        raise DemoFailed("The adapter answers no better than the base model.")


def plan(name: str, facts: int, measured: int, folder: Path, fast: bool) -> str:
    """Return the stages of the demo, with the time that each takes on two cores."""
    minutes = (
        ("1 minute", "2 minutes", "1 minute") if fast else ("1 minute", "9 minutes", "2 minutes")
    )
    ask, train, again = (f"about {text}" for text in minutes)
    values = {"name": name, "facts": facts, "measured": measured, "folder": folder}
    return PLAN.format(**values, ask=ask, train=train, again=again)


def prepare(folder: Path, fast: bool) -> Path:
    """Create the demo's folder with its configuration; return the path of the configuration.

    Replaces the folder of an earlier demo.

    Raises:
        InputError: The folder has other files, or another demo is running in it.
    """
    _clear(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    settle_s = FAST_SETTLE_S if fast else SETTLE_S
    text = SETTINGS.format(data_dir=folder / DATA, settle_s=settle_s)
    if fast:
        text += FAST_SETTINGS.format(steps=FAST_STEPS)
    (folder / CONFIG).write_text(text)
    return folder / CONFIG


def _clear(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARKER).exists()):
        raise InputError(
            f"{folder} is not empty and was not created by a demo (it has no {MARKER}). Choose "
            "another folder with --dir."
        )
    if daemon_is_running(folder / DATA):
        raise InputError(
            f"Another demo is running in {folder}. Wait until it ends, or choose another folder "
            "with --dir."
        )
    shutil.rmtree(folder)


def report(outcome: "Outcome", settings: Settings, folder: Path, seconds: float) -> None:
    """Print the scores, some answers for comparison, and where the results are."""
    arms = {
        "base model, no lessons": outcome.base,
        "base model, lessons in prompt": outcome.in_prompt,
        "adapter, what it has not learned in prompt": outcome.internalised,
    }
    table = Table(title=f"{len(outcome.base.answers)} test questions, none used in training")
    for heading in ("", "correct answers", "mean prompt tokens", "median first token (ms)"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, score in arms.items():
        table.add_row(
            name, str(score.right), f"{score.prompt_tokens:.0f}", f"{score.first_token_ms:.0f}"
        )
    console.print(table)
    if outcome.recorrected:
        right = sum(answer.right for answer in outcome.recorrected)
        console.print(
            f"The operator corrected {len(outcome.recorrected)} answers that were still wrong; "
            f"{right} of them are right on the next request."
        )
    _examples(outcome)
    console.print(
        f"adapter {outcome.adapter}, trained on {outcome.corrected} corrections; gate results:",
        markup=False,
    )
    for reason in outcome.gate:
        console.print(f"  {reason}", markup=False)
    curves = folder / "curves.png"
    shutil.copyfile(settings.data_dir / "runs" / outcome.run / "curves.png", curves)
    console.print(
        f"training curves: {curves}\ntotal time: {seconds / 60:.1f} minutes", markup=False
    )


def _examples(outcome: "Outcome", count: int = 3) -> None:
    """Print some questions that only the adapter answers correctly."""
    pairs = zip(outcome.base.answers, outcome.internalised.answers, strict=True)
    learned = [(before, after) for before, after in pairs if after.right and not before.right]
    if learned:
        console.print("examples of what it learned:")
    for before, after in learned[:count]:
        console.print(f"  {before.question.text}", markup=False)
        console.print(f"    base model: {_one_line(before.text)}", markup=False)
        console.print(f"    adapter:    {_one_line(after.text)}", markup=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:100]
