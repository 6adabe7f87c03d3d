"""What generations of one namespace keep: from the base each time, or from the last adapter.

    python -m tests.bench.generations --out bench/generations    # an hour or two; resumes
    python -m tests.bench.generations --out bench/generations --report    # the table, in Markdown

A context grows by a third, by another, and then loses its first third. Each generation is a run on
what the context is then (`distill.generation`); `from_parent` begins with the adapter before it and
is told what that one had learned. All 40 questions about the whole context are asked each time: a
teacher that was not told answers few, and a generation that unlearned what is gone as well.
"""

import argparse
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import tests.bench.as_trainer  # noqa: F401 - before torch

# isort: split
from config.sections import Distill
from distill import train
from distill.embedded import embed
from distill.progress import plain_lines
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
                done[generation] = measure(mode, generation, context, parent, model, options.out)
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
    mode: Mode, generation: int, context: Context, parent: Parent | None, model: Path, out: Path
) -> dict[str, object]:
    """Train one generation; what its adapter answers."""
    spec = RunSpec(
        model=model,
        context=context,
        prompts=(),
        settings=Distill(generation=mode),
        out=out / "adapters",
        work=out / "work" / f"{mode}-{generation}",
        anchors=anchors(NAME),
        parent=parent,
    )
    began = time.monotonic()
    outcome = train.run(spec, plain_lines)
    assert outcome, "one process trains"
    measured = outcome.evaluation
    return {
        "mode": mode,
        "generation": generation,
        "adapter": str(outcome.adapter),
        "lines": len(context.text().splitlines()),
        **measured.anchors,
        "gap_closed": measured.gap_closed,
        "retention_kl": measured.retention_kl,
        "leak_rate": measured.leak_rate,
        "seconds": time.monotonic() - began,
    }


def table(results: list[dict]) -> str:
    """A row for each generation."""
    rows = [
        "| generations | context, lines | base | teacher | candidate | gap closed | drift, nats "
        "| minutes |",
        "|---" * 8 + "|",
    ]
    rows += [
        f"| {line['mode']} {line['generation'] + 1} | {line['lines']} | {line['base']} "
        f"| {line['teacher']} | {line['candidate']} of {line['total']} "
        f"| {line['gap_closed']:.0%} | {line['retention_kl']:.3f} | {line['seconds'] / 60:.1f} |"
        for line in results
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
