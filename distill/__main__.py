"""The trainer's command line; no database and no daemon are needed.

Exit codes: 0 an adapter was published, 1 the run failed, 2 bad input, 3 nothing to learn: with the
context the model does no better than without it.
"""

import argparse
import os
import sys
import traceback
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from distill import runtime

os.environ.update(runtime.VARIABLES | os.environ)
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from transformers.utils import logging

from config.sections import Distill
from config.settings import ConfigError, load
from distill import checkpoint, preflight, prompts, rows, train
from distill.base import ModelError
from distill.data import PromptTooLong
from distill.embedded import EmbeddedModelError, embed
from distill.parts import ParentMismatch
from distill.plot import plot_curves
from distill.processes import UnevenTeams
from distill.progress import TerminalProgress, plain_lines, terminal_bars
from distill.spec import Parent, RunSpec
from store import files
from store.contexts import Context
from store.db import AWAY, Database
from store.manifests import AdapterCorrupt
from store.runs import UnknownRun

DONE, FAILED, BAD_INPUT, NOTHING_TO_LEARN = 0, 1, 2, 3
BAD_INPUTS = (
    AdapterCorrupt,
    files.BadInput,
    ConfigError,
    EmbeddedModelError,
    ModelError,
    ParentMismatch,
    PromptTooLong,
    UnevenTeams,
    UnknownRun,
    prompts.ContextTooLong,
)
# Settings that the command line has an option for; all others are in the configuration file.
OPTIONS = (
    "steps",
    "batch_size",
    "lr",
    "rank",
    "alpha",
    "guided_share",
    "on_policy_tail",
    "replay_share",
    "max_completion_tokens",
    "questions_per_lesson",
    "checkpoint_every",
    "threads",
    "seed",
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return int(options.run(options))
    except BAD_INPUTS as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except preflight.NothingToLearn as error:
        print(f"nothing to learn: {error}", file=sys.stderr)
        return NOTHING_TO_LEARN
    except Exception as error:  # noqa: BLE001 - boundary: the exit code is the result
        traceback.print_exc()
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m distill",
        description="Distil a context into a LoRA adapter (OPCD, arXiv 2602.12275).",
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    command = commands.add_parser("embed", help="unpack the embedded model into a model folder")
    command.add_argument("--out", type=Path, required=True, help="the folder to make or verify")
    command.set_defaults(run=_embed)
    command = commands.add_parser("run", help="do a run of the daemon's database")
    command.add_argument("id", help="of the run; `byheart train ls` lists them")
    command.add_argument("--config", type=Path, help="TOML file, as for `byheart serve`")
    command.set_defaults(run=_run)
    return parser


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "train",
        help="distil a context and publish the adapter",
        description="Distil a context into an adapter and print the adapter's folder.",
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--model", type=Path, required=True, help="folder of the base model")
    add(
        "--context",
        type=Path,
        required=True,
        help='.md or .txt: a system prompt; .jsonl: lessons, {"kind": "fact", "text": ...} a line',
    )
    add(
        "--prompts",
        type=Path,
        help='real prompts, {"prompt": ...} or {"messages": [...]} a line; the teacher writes more',
    )
    add("--held-out", type=Path, help="prompts that are only measured on, same format")
    add(
        "--anchors",
        type=Path,
        help='checks, {"prompt": ..., "expect": {"contains": [...]}} a line (also contains_any, '
        "regex, json_schema)",
    )
    add("--parent", type=Path, help="adapter folder to start from (default: a fresh adapter)")
    add("--parent-context", type=Path, help="what the parent learned, so that it can be unlearned")
    add("--out", type=Path, required=True, help="folder in which the adapter folder appears")
    add("--work", type=Path, help="folder for resume points (default: one in OUT/.work)")
    add("--config", type=Path, help="TOML file; its section [distill] gives the settings")
    for name in OPTIONS:
        field = Distill.model_fields[name]
        add(
            f"--{name.replace('_', '-')}",
            metavar=name.upper(),
            help=f"{field.description} (default: {field.default})",
        )
    command.set_defaults(run=_train)


def _embed(options: argparse.Namespace) -> int:
    print(embed(options.out))
    return DONE


def _run(options: argparse.Namespace) -> int:
    settings = load(options.config)
    with closing(Database(settings.database_url)) as db:
        try:
            rows.run(options.id, settings, db)
        finally:
            # A database that is away must not replace the run's own end; the next run clears up.
            with suppress(*AWAY):
                rows.clear_ended(db, settings.data_dir / "runs")
    return DONE


def _train(options: argparse.Namespace) -> int:
    spec = _spec(options)
    if sys.stderr.isatty():
        with terminal_bars() as bars:
            outcome = train.run(spec, TerminalProgress(bars))
    else:
        outcome = train.run(spec, plain_lines)
    if outcome is None:
        return DONE
    measured = outcome.evaluation
    print(
        f"gap closed {measured.gap_closed:.0%} (KL to the teacher {measured.kl_base:.3f} -> "
        f"{measured.kl_candidate:.3f} nats a token, {measured.held_out} held-out prompts), "
        f"drift on unrelated prompts {measured.retention_kl:.3f}",
        file=sys.stderr,
    )
    if measured.anchors["total"]:
        counts = "{base} base, {teacher} teacher, {candidate} candidate of {total}"
        print("anchors passed:", counts.format(**measured.anchors), file=sys.stderr)
    print(outcome.adapter, flush=True)
    checkpoint.clear(spec.work)
    curves = spec.work / "curves.png"
    plot_curves(outcome.metrics, curves, outcome.adapter.name)
    print(f"training curves: {curves}", file=sys.stderr)
    return DONE


def _spec(options: argparse.Namespace) -> RunSpec:
    chosen = {name: vars(options)[name] for name in OPTIONS if vars(options)[name] is not None}
    loaded = load(options.config, overrides={"distill": chosen})
    if loaded.distill.sampler == "engine" and not loaded.engine.urls:
        raise files.BadInput("distill.sampler = 'engine' needs the engine's address: engine.urls.")
    context, kinds = files.read_context(options.context)
    spec = RunSpec(
        model=options.model,
        context=context,
        prompts=files.read_prompts(options.prompts),
        held_out=files.read_prompts(options.held_out),
        anchors=files.read_anchors(options.anchors),
        settings=loaded.distill,
        engine=rows.engine_of(loaded, loaded.distill),
        out=options.out,
        work=options.out / ".work",
        lesson_kinds=kinds,
        parent=_parent(options),
    )
    # Apart for each run, so that two of them, or one that is repeated later, lose nothing.
    return replace(spec, work=options.work or spec.work / spec.fingerprint("")[:12])


def _parent(options: argparse.Namespace) -> Parent | None:
    former = options.parent_context
    if options.parent is None and former:
        raise files.BadInput("--parent-context says what --parent has learned: give that too.")
    if options.parent is None:
        return None
    return Parent(options.parent, files.read_context(former)[0] if former else Context())


if __name__ == "__main__":
    sys.exit(main())
