"""The trainer's command line. It needs no database and no daemon.

Exit codes:
  0    the adapter was published; its folder is printed on standard output
  1    the run failed; repeating the command resumes it
  2    invalid input: a file, a setting or the model
  3    nothing to learn: the context changes no answers, or none of it was learned
  130  interrupted; repeating the command resumes the run
"""

import argparse
import os
import sys
from pathlib import Path

from config.renamed import RENAMED
from config.settings import ConfigError
from distill import inputs
from distill.settings import LOSS_OPTIONS, TrainerSettings
from store import input_files

# Settings with a command-line option; the others are set in the configuration file.
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
    "statement_tolerance",
    "checkpoint_every",
    "threads",
    "seed",
    *LOSS_OPTIONS,
)
OLD_OPTIONS = tuple(old for old, new in RENAMED["distill"].items() if new in OPTIONS)
"""Former names of options; accepted with a warning."""

EXAMPLE = """
What goes in: a model folder, a context, and optionally real prompts. The base writes questions
about each statement of the context, in addition to real prompts.

What comes out: OUT/bh-BASE-HASH/, a LoRA adapter in PEFT's format with metrics.jsonl,
evaluation.json and manifest.json. vLLM loads it as it is. Its path is the only standard output;
progress and a summary go to standard error, and training curves to the work folder.

Example:
  echo "Our shop opens at 7 and closes at 18. Refunds take 3 days." > handbook.md
  echo '{"prompt": "When do you open?"}' > prompts.jsonl
  python -m distill embed --out models/smollm2
  python -m distill train --model models/smollm2 --context handbook.md \\
      --prompts prompts.jsonl --out adapters

The model must be a local folder in Hugging Face format. An interrupted run continues from its last
checkpoint when the same command is repeated.

"""

ENVIRONMENT = {
    # Spins of an idle OpenMP thread before it sleeps. Where wake-ups are slow, as on virtual
    # machines, sleeping immediately makes two cores hardly faster than one; spinning for longer
    # takes more from a busy vLLM on the same machine than it gains.
    "GOMP_SPINCOUNT": "1000",
    # Huge pages for large tensors: decoding reads all weights for every token.
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Defaults for variables that OpenMP and torch read when they are imported."""


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
    os.environ.update(ENVIRONMENT | os.environ)
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Imported after the environment is set, and only for valid input: the import takes seconds.
    from distill import commands

    return commands.run_command(options)


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
    command.add_argument("--out", type=Path, required=True, help="folder to create or verify")
    command = commands.add_parser("run", help="execute a run of the daemon's database")
    command.add_argument("id", help="identifier of the run; see `byheart train ls`")
    command.add_argument("--config", type=Path, help="configuration file of `byheart serve`")
    return parser


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="distil a context into a LoRA adapter",
        description="Distil a context into a LoRA adapter and print the adapter's folder.",
        epilog=EXAMPLE + (__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add(
        "--model", type=Path, required=True, help="folder of the base model, in Hugging Face format"
    )
    add(
        "--context",
        type=Path,
        required=True,
        help="what to learn: a system prompt (.md, .txt), or lessons (.jsonl), one per line: "
        '{"kind": "fact", "text": "..."}',
    )
    add(
        "--prompts",
        type=Path,
        help='real prompts (.jsonl), one per line: {"prompt": "..."} or {"messages": [...]}; the '
        "base writes more",
    )
    add("--held-out", type=Path, help="prompts for evaluation only, in the same format")
    add(
        "--anchors",
        type=Path,
        help='checks on answers (.jsonl), one per line: {"prompt": "...", "expect": {"contains": '
        '["..."]}}; also contains_any, regex and json_schema; all must hold',
    )
    add("--parent", type=Path, help="adapter folder to start from (default: a new adapter)")
    add(
        "--parent-context",
        type=Path,
        help="the parent's context; statements that --context lacks are unlearned",
    )
    add("--out", type=Path, required=True, help="folder that receives the adapter folder")
    add("--work", type=Path, help="folder for checkpoints (default: one per run in OUT/.work)")
    add("--config", type=Path, help="TOML file whose section [distill] holds the settings")
    for name in OPTIONS:
        field = TrainerSettings.model_fields[name]
        add(
            f"--{name.replace('_', '-')}",
            metavar=name.upper(),
            help=f"{field.description} (default: {field.default})",
        )
    for name in OLD_OPTIONS:
        add(f"--{name.replace('_', '-')}", help=argparse.SUPPRESS)


if __name__ == "__main__":
    sys.exit(main())
