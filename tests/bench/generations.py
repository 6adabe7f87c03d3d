"""What generations of one namespace keep: from the base each time, or from the last adapter.

    python -m tests.bench.generations --out bench/generations    # an hour or two; resumes
    python -m tests.bench.generations --out bench/generations --report    # the table, in Markdown

A context grows by a third, by another, and then loses its first third. Each generation is a run on
what the context is then (`distill.generation`); `from_parent` begins with the adapter before it and
is told what that one had learned. All 40 questions about the whole context are asked each time, and
counted apart: those about what the context says now, and those about what it said before. Of the
latter a teacher that was not told answers none, nor a generation that has unlearned them.
"""

import argparse
import re
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import tests.bench.as_trainer  # noqa: F401 - before torch

# isort: split
from distill import train
from distill.model.embedded import embed
from distill.progress import PlainProgress
from distill.settings import TrainerSettings
from distill.spec import Parent, RunSpec
from store.contexts import Context
from tests.bench.pieces import append, read
from tests.bench.quality import CONTEXTS, anchors

NAME = "clinic"
Mode = Literal["from_base", "from_parent"]
THIRDS = ((0, 1), (0, 2), (0, 3), (1, 3))
"""Which thirds of the context a generation has, first and last."""


def main() -> None:
    """Do what is left to do, or print what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--report", action="store_true", help="print the table")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    if options.report:
        print(table(list(read(results))))
        return
    model = embed(options.out / "model")
    for mode in get_args(Mode):
        parent: Parent | None = None
        done = {line["generation"]: line for line in read(results) if line["mode"] == mode}
        for generation, context in enumerate(contexts()):
            if generation not in done:
                print(f"--- {mode}, generation {generation}")
                done[generation] = measure(mode, generation, parent, model, options.out)
                append(results, done[generation])
            if mode == "from_parent":
                parent = Parent(Path(done[generation]["adapter"]), context)


def contexts() -> Iterator[Context]:
    """What the context is in each generation; its first line, who speaks, stays."""
    text = tomllib.loads((CONTEXTS / f"{NAME}.toml").read_text())["context"]
    title, *facts = text.strip().splitlines()
    third = len(facts) / 3
    for first, last in THIRDS:
        kept = facts[round(first * third) : round(last * third)]
        yield Context(system_prompt="\n".join([title, *kept]))


def measure(
    mode: Mode, generation: int, parent: Parent | None, model: Path, out: Path
) -> dict[str, object]:
    """Train one generation; what its adapter answers."""
    *before, context = list(contexts())[: generation + 1]
    spec = RunSpec(
        model=model,
        context=context,
        prompts=(),
        settings=TrainerSettings(generation=mode),
        out=out / "adapters",
        work=out / "work" / f"{mode}-{generation}",
        anchors=anchors(NAME),
        parent=parent,
    )
    began = time.monotonic()
    outcome = train.run(spec, PlainProgress())
    assert outcome, "one process trains"
    measured = outcome.evaluation
    return {
        "mode": mode,
        "generation": generation,
        "adapter": str(outcome.adapter),
        "lines": len(context.text().splitlines()),
        "told": passes(measured.checks, context.text()),
        "lost": passes(measured.checks, lost(before, context)),
        "gap_closed": measured.gap_closed,
        "retention_kl": measured.retention_kl,
        "leak_rate": measured.leak_rate,
        "seconds": time.monotonic() - began,
    }


def lost(before: Iterable[Context], now: Context) -> str:
    """The lines that the context once had and has no more."""
    once = {line for context in before for line in context.text().splitlines()}
    return "\n".join(once.difference(now.text().splitlines()))


def passes(checks: Iterable[dict[str, Any]], said: str) -> dict[str, int]:
    """Of the questions whose answer stands in a text, how many each passes, and how many they are.

    Args:
        checks: `Evaluation.checks` of regular expressions.
        said: A text.
    """
    about = [check["passed"] for check in checks if re.search(check["expect"]["regex"], said)]
    right = {who: sum(who in passed for passed in about) for who in ("teacher", "candidate")}
    return {**right, "total": len(about)}


def table(results: list[dict]) -> str:
    """A row for each generation."""
    rows = [
        "| generations | context, lines | asked of what it says | teacher | candidate "
        "| of what it lost | teacher | candidate | gap closed | drift, nats | minutes |",
        "|---" * 11 + "|",
    ]
    for line in results:
        counts = [
            line[part][who]
            for part in ("told", "lost")
            for who in ("total", "teacher", "candidate")
        ]
        rows.append(
            f"| {line['mode']} {line['generation'] + 1} | {line['lines']} "
            f"| {' | '.join(map(str, counts))} | {line['gap_closed']:.0%} "
            f"| {line['retention_kl']:.3f} | {line['seconds'] / 60:.1f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
