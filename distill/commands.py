"""The trainer's commands, and the boundary where errors become exit codes."""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from config.settings import ConfigError, load
from distill import daemon_run, train
from distill.data import collect
from distill.evaluate import preflight
from distill.evaluate.candidate import Evaluation
from distill.guards import Diverged
from distill.inputs import BAD_INPUT, TrainInputs
from distill.model.adapter_files import MANIFEST
from distill.model.base import ModelError, base_sha256
from distill.model.distributed import InvalidWorldSize, is_main_process
from distill.model.embedded import EmbeddedModelError, embed
from distill.model.encoder import PromptRejected, PromptTooLong
from distill.model.engine_sampler import EngineUnavailable
from distill.progress import PlainProgress, TerminalProgress, terminal_bars
from distill.roles import ParentMismatch
from distill.run import checkpoint
from distill.run.folders import FolderError
from distill.run.plot import plot_curves
from distill.spec import Parent, RunSpec
from store import input_files
from store.anchors import BadAnchor
from store.db import DATABASE_UNAVAILABLE, Database
from store.durable_files import write_file
from store.manifests import AdapterCorrupt
from store.runs import UnknownRun

DONE, FAILED, NOTHING_TO_LEARN, INTERRUPTED = 0, 1, 3, 130
PUBLISHED = "published.json"
"""File in the work folder that names the adapter of a finished run."""
BAD_INPUTS = (
    AdapterCorrupt,
    BadAnchor,
    input_files.BadInput,
    ConfigError,
    EmbeddedModelError,
    FolderError,
    ModelError,
    ParentMismatch,
    PromptRejected,
    PromptTooLong,
    InvalidWorldSize,
    UnknownRun,
    collect.ContextTooLong,
)


def run_command(options: argparse.Namespace) -> int:
    """Run `options.command` and return the exit code."""
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
    except KeyboardInterrupt:
        print(
            "interrupted: repeat the command to continue from the last checkpoint.",
            file=sys.stderr,
        )
        return INTERRUPTED
    except (Diverged, EngineUnavailable, OSError, SafetensorError) as error:
        print(f"failed: {error}", file=sys.stderr)
        if not isinstance(error, Diverged):
            print("Fix the cause and repeat the command to resume the run.", file=sys.stderr)
        return FAILED
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
            daemon_run.run(options.id, settings, db)
        finally:
            # An unavailable database must not mask the run's own error; the next run cleans up.
            with suppress(*DATABASE_UNAVAILABLE):
                daemon_run.clear_finished(db, settings.data_dir / "runs")
    return DONE


def _train(options: argparse.Namespace) -> int:
    spec = _spec(options)
    if adapter := _published(spec):
        if is_main_process():
            print(f"Already trained. To train again, delete {spec.work}", file=sys.stderr)
            print(adapter, flush=True)
        return DONE
    if sys.stderr.isatty():
        with terminal_bars() as bars:
            outcome = train.run(spec, TerminalProgress(bars))
    else:
        outcome = train.run(spec, PlainProgress())
    if outcome is None:
        return DONE
    print("\n".join(summary(outcome.evaluation)), file=sys.stderr)
    print(outcome.adapter, flush=True)
    published = {"adapter": outcome.adapter.name, "of": _identity(spec)}
    write_file(spec.work / PUBLISHED, json.dumps(published).encode())
    checkpoint.clear(spec.work)
    curves = spec.work / "curves.png"
    plot_curves(outcome.curves, curves, outcome.adapter.name)
    print(f"training curves: {curves}", file=sys.stderr)
    return DONE


def _identity(spec: RunSpec) -> str:
    """Return the run's fingerprint, with the hash of the model's weights."""
    return spec.fingerprint(base_sha256(spec.model))


def _published(spec: RunSpec) -> Path | None:
    """Return the adapter that the same run published before, if it still exists."""
    note = spec.work / PUBLISHED
    published = json.loads(note.read_text()) if note.is_file() else {"adapter": ""}
    folder = spec.out / published["adapter"]
    exists = (folder / MANIFEST).is_file()
    return folder if exists and published["of"] == _identity(spec) else None


def summary(measured: Evaluation) -> Iterator[str]:
    """Yield the lines of a run's summary; the gate of `byheart serve` uses the same numbers."""
    yield (
        f"gap closed {measured.gap_closed:.0%} (KL to the teacher {measured.kl_base:.3f} -> "
        f"{measured.kl_candidate:.3f} nats per token, {measured.held_out} held-out prompts), "
        f"drift on unrelated prompts {measured.retention_kl:.3f}"
    )
    learned = sum(each["learned"] for each in measured.statements)
    tokens = {point["context"]: point for point in measured.frontier}
    yield (
        f"statements learned {learned} of {len(measured.statements)}: "
        f"{tokens['residual']['prompt_tokens']} of the context's "
        f"{tokens['whole']['prompt_tokens']} tokens must stay in the prompt (residual.md)"
    )
    for point in measured.frontier:
        yield (
            f"  {point['context']} ({point['prompt_tokens']} tokens) in front: "
            f"{point['right']} of {point['total']} right"
        )
    if measured.facts:
        yield f"numbers and names learned {measured.facts_learned:.0%} of {measured.facts}"
    yield (
        f"answers: {measured.repetition:.0%} more repeated words than teacher and base, length "
        f"{measured.length_ratio:.1f} of theirs, {measured.leak_rate:.0%} mention the context"
    )
    if measured.anchors["total"]:
        counts = "{base} base, {teacher} teacher, {candidate} candidate of {total}"
        yield f"anchors passed: {counts.format(**measured.anchors)}"
    failed = [check for check in measured.checks if "candidate" not in check["passed"]]
    lost = [check for check in failed if "teacher" in check["passed"]]
    for check in lost:
        yield f"  teacher only: {check['prompt'][:60]!r} -> {check['candidate'][:80]!r}"
    if len(failed) > len(lost):
        count = len(failed) - len(lost)
        yield f"  {count} failed by the teacher too: see `checks` in evaluation.json"


def _spec(options: argparse.Namespace) -> RunSpec:
    inputs: TrainInputs = options.inputs
    spec = RunSpec(
        model=options.model,
        context=inputs.context,
        prompts=inputs.prompts,
        held_out=inputs.held_out,
        anchors=inputs.anchors,
        settings=inputs.training,
        engine=daemon_run.sampling_engine(inputs.settings, inputs.training),
        template=inputs.settings.engine.template_arguments,
        out=options.out,
        work=options.out / ".work",
        lesson_kinds=inputs.lesson_kinds,
        parent=Parent(options.parent, inputs.parent_context) if options.parent else None,
    )
    # One folder per fingerprint: different runs do not overwrite each other's checkpoints.
    return replace(
        spec, work=options.work or spec.work / spec.fingerprint(str(spec.model.resolve()))[:12]
    )


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "embed": _embed,
    "run": _run,
}
