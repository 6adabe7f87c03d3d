"""What the command line gives to a run, read and checked before the training stack is loaded.

Loading it takes many seconds, and a mistake in a file or a setting should be told in one.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings, load
from store import input_files
from store.anchors import Anchor
from store.contexts import Context, Messages

BAD_INPUT = 2
"""The exit code."""


@dataclass(frozen=True)
class Inputs:
    """All that is in files and options, but for the model and the parent's weights."""

    settings: Settings
    context: Context
    lesson_kinds: tuple[str, ...]
    prompts: tuple[Messages, ...]
    held_out: tuple[Messages, ...]
    anchors: tuple[Anchor, ...]
    parent_context: Context


def read(options: argparse.Namespace) -> Inputs:
    """Read the files of `python -m distill train`.

    Raises:
        BadInput: A file or folder is not what it should be; the message names it.
        ConfigError: A setting is not.
    """
    settings = load(options.config, overrides={"distill": options.settings})
    if settings.distill.sampler == "engine" and not settings.engine.urls:
        raise input_files.BadInput(
            "distill.sampler = 'engine' needs the engine's address: engine.urls."
        )
    _check_model(options.model)
    if options.parent_context and not options.parent:
        raise input_files.BadInput(
            "--parent-context says what --parent has learned: give that too."
        )
    context, kinds = input_files.read_context(options.context)
    former = options.parent_context
    return Inputs(
        settings,
        context,
        kinds,
        input_files.read_prompts(options.prompts),
        input_files.read_prompts(options.held_out),
        input_files.read_anchors(options.anchors),
        input_files.read_context(former)[0] if former else Context(),
    )


def _check_model(folder: Path) -> None:
    if not folder.is_dir():
        raise input_files.BadInput(
            f"There is no folder {folder}: --model names a model's folder on this machine. Nothing "
            "is fetched from a hub; `hf download NAME --local-dir DIR` does that."
        )
    if not (folder / "config.json").is_file():
        raise input_files.BadInput(f"{folder} has no config.json: it is not the folder of a model.")
    if not any(folder.glob("tokenizer*")):
        raise input_files.BadInput(
            f"{folder} has no tokenizer files: they belong beside the weights."
        )
