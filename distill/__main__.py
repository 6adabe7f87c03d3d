"""The trainer's command line; no database and no daemon are needed.

Exit codes: 0 an adapter was published, 1 the run failed, 2 bad input, 3 nothing to learn: with the
context the model does no better than without it, 130 interrupted: the same command goes on.
"""

import argparse
import os
import sys
from pathlib import Path

from config.renamed import RENAMED
from config.sections import Distill
from config.settings import ConfigError
from distill import inputs
from store import input_files

# Settings that the command line has an option for; all others are in the configuration file.
OPTIONS = (
    "steps",
    "batch_size",
    "lr",
    "rank",
    "alpha",
    "teacher_share",
    "on_policy_tail",
    "replay_share",
    "max_completion_tokens",
    "questions_per_lesson",
    "checkpoint_every",
    "threads",
    "seed",
)
OLD_OPTIONS = tuple(old for old, new in RENAMED["distill"].items() if new in OPTIONS)
"""Former names of options; accepted with a warning."""

VARIABLES = {
    # How often a thread looks before it sleeps. Where waking is slow, as on virtual machines,
    # threads that sleep at once make two cores hardly faster than one; ones that look for longer
    # lose more beside a busy vLLM than they win on a quiet machine.
    "GOMP_SPINCOUNT": "1000",
    # Large tensors lie in huge pages: decoding reads all weights for each token.
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""What OpenMP and torch read when they are loaded, so set before; what is set already stays."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    chosen = {name: getattr(options, name, None) for name in (*OPTIONS, *OLD_OPTIONS)}
    options.settings = {name: value for name, value in chosen.items() if value is not None}
    try:
        options.inputs = inputs.read(options) if options.command == "train" else None
    except (input_files.BadInput, ConfigError) as error:
        sys.stderr.write(f"error: {error}\n")
        return inputs.BAD_INPUT
    os.environ.update(VARIABLES | os.environ)
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # After the variables, which are read once, and only now: it takes seconds.
    from distill import commands

    return commands.perform(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m distill",
        description="Distil a context into a LoRA adapter (OPCD, arXiv 2602.12275).",
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_train(commands)
    command = commands.add_parser("embed", help="unpack the embedded model into a model folder")
    command.add_argument("--out", type=Path, required=True, help="the folder to make or verify")
    command = commands.add_parser("run", help="do a run of the daemon's database")
    command.add_argument("id", help="of the run; `byheart train ls` lists them")
    command.add_argument("--config", type=Path, help="TOML file, as for `byheart serve`")
    return parser


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "train",
        allow_abbrev=False,
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
        "regex, json_schema; all that is expected must hold)",
    )
    add("--parent", type=Path, help="adapter folder to start from (default: a fresh adapter)")
    add("--parent-context", type=Path, help="what the parent learned, to unlearn what is gone")
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
    for name in OLD_OPTIONS:
        add(f"--{name.replace('_', '-')}", help=argparse.SUPPRESS)


if __name__ == "__main__":
    sys.exit(main())
