"""`byheart demo`: the whole loop on this machine, with nothing configured, measured."""

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
"""Made by the demo in its folder: what lies beside it may be replaced."""
DATA = Path("data")
FAST_FACTS = 2
FAST_STEPS = 8
SETTINGS = """\
# Written by `byheart demo`: the defaults, but for an own folder, a free port and no patience.
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
"""Until it is clear that no more lessons come."""
FAST_SETTINGS = """\
steps = {steps}
questions_per_lesson = 2
max_completion_tokens = 16
max_answer_tokens = 16
[gate]
min_gap_closed = 0.01
min_facts_learned = 0
min_held_out = 1
"""
PLAN = """\
byheart demo: {name}.
Its operator knows {facts} facts that the model does not.

  1  start the daemon: vLLM with the embedded model              about 1 minute
  2  ask {measured} questions of the base                                {ask}
  3  {facts} customers ask, the operator corrects                      under 1 minute
  4  the model states the lessons                                under 1 minute
  5  distil them into an adapter, gate it, swap it in            {train}
  6  ask the {measured} questions again, in two ways                     {again}

Everything is kept in {folder}, also the logs.
"""


def demo(
    fast: Annotated[bool, typer.Option("--fast", help="A smoke run of a few steps.")] = False,
    shop: Annotated[
        Path | None, typer.Option(help="A shop of your own; see config/examples/shop.toml.")
    ] = None,
    folder: Annotated[
        Path, typer.Option("--dir", help="Where to keep everything; replaced if it is a demo's.")
    ] = Path("byheart-demo"),
) -> None:
    """Run the whole loop here: serve, err, be corrected, learn, distil, swap; and measure it.

    Exits with 1 when no adapter was promoted, or when it answers no better than the base (which
    the few steps of --fast do not promise).
    """
    # The clients that the demo plays are no dependency of the service.
    from agent.demo import loop, service, shops

    given = shops.read_shop(shop or shops.DEFAULT)
    if fast:
        given = given.model_copy(update={"fact": given.fact[:FAST_FACTS]})
    settings = load(prepare(folder.absolute(), fast), environ={})
    console.print(plan(given.name, len(given.fact), len(given.measured), folder, fast))
    began = time.monotonic()
    with (
        stages() as show,
        service.serving(folder / CONFIG, settings.data_dir, show) as running,
        closing(Database(settings.database_url)) as db,
    ):
        outcome = loop.Demo(given, settings, running, db, show).run()
    report(outcome, settings, folder, time.monotonic() - began)
    if not fast and outcome.internalised.right <= outcome.base.right:
        raise DemoFailed("The adapter answers no better than the base.")


def plan(name: str, facts: int, measured: int, folder: Path, fast: bool) -> str:
    """What will happen, and how long each stage takes on two cores."""
    minutes = (
        ("1 minute", "2 minutes", "1 minute") if fast else ("1 minute", "9 minutes", "2 minutes")
    )
    ask, train, again = (f"about {text}" for text in minutes)
    values = {"name": name, "facts": facts, "measured": measured, "folder": folder}
    return PLAN.format(**values, ask=ask, train=train, again=again)


def prepare(folder: Path, fast: bool) -> Path:
    """An empty folder with the demo's configuration; what an earlier demo left is replaced.

    Raises:
        InputError: The folder holds something else, or another demo runs in it.
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
            f"{folder} is not empty and not a demo's (it has no {MARKER}), so it is left as it is. "
            "Choose another with --dir."
        )
    if daemon_is_running(folder / DATA):
        raise InputError(
            f"Another demo runs in {folder}. Wait until it ends, or choose another with --dir."
        )
    shutil.rmtree(folder)


def report(outcome: "Outcome", settings: Settings, folder: Path, seconds: float) -> None:
    """The table, the answers side by side, and where everything lies."""
    arms = {
        "base, nothing in the prompt": outcome.base,
        "base, lessons in the prompt": outcome.in_prompt,
        "adapter, nothing in the prompt": outcome.internalised,
    }
    table = Table(title=f"questions that nothing was trained on: {len(outcome.base.answers)}")
    for heading in ("", "right", "prompt tokens", "first token, ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, score in arms.items():
        table.add_row(
            name, str(score.right), f"{score.prompt_tokens:.0f}", f"{score.first_token_ms:.0f}"
        )
    console.print(table)
    _examples(outcome)
    console.print(f"adapter {outcome.adapter}: {outcome.corrected} corrections", markup=False)
    for reason in outcome.gate:
        console.print(f"  {reason}", markup=False)
    curves = folder / "curves.png"
    shutil.copyfile(settings.data_dir / "runs" / outcome.run / "curves.png", curves)
    console.print(f"training curves: {curves}\n{seconds / 60:.1f} minutes", markup=False)


def _examples(outcome: "Outcome", count: int = 3) -> None:
    """Some questions that the base got wrong and the adapter right."""
    pairs = zip(outcome.base.answers, outcome.internalised.answers, strict=True)
    turned = [(before, after) for before, after in pairs if after.right and not before.right]
    for before, after in turned[:count]:
        console.print(f"  {before.question.text}", markup=False)
        console.print(f"    base:    {_one_line(before.text)}", markup=False)
        console.print(f"    adapter: {_one_line(after.text)}", markup=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:100]
