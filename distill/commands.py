"""What the trainer's commands do, and the boundary at which their errors become exit codes."""

import argparse
import sys
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace

from transformers.utils import logging

from config.settings import ConfigError, load
from distill import checkpoint, preflight, prompts, rows, train
from distill.base import ModelError
from distill.data import PromptRefused, PromptTooLong
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
    PromptRefused,
    PromptTooLong,
    UnevenTeams,
    UnknownRun,
    prompts.ContextTooLong,
)


def perform(options: argparse.Namespace) -> int:
    """Do the command `options.command` and return the exit code."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return COMMANDS[options.command](options)
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
    loaded = load(options.config, overrides={"distill": options.settings})
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
        template=loaded.engine.template_arguments,
        out=options.out,
        work=options.out / ".work",
        lesson_kinds=kinds,
        parent=_parent(options),
    )
    # Apart for each run, so that two of them, or one that is repeated later, lose nothing.
    return replace(
        spec, work=options.work or spec.work / spec.fingerprint(str(spec.model.resolve()))[:12]
    )


def _parent(options: argparse.Namespace) -> Parent | None:
    former = options.parent_context
    if options.parent is None and former:
        raise files.BadInput("--parent-context says what --parent has learned: give that too.")
    if options.parent is None:
        return None
    return Parent(options.parent, files.read_context(former)[0] if former else Context())


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "embed": _embed,
    "run": _run,
}
