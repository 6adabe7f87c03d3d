"""Reads and checks the inputs of the command line before the training stack is loaded.

Loading the stack takes many seconds; a mistake in a file or a setting is reported within one.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings, load
from distill.settings import LOSS_OPTIONS, TrainerSettings, with_loss_options
from store import input_files
from store.anchors import Anchor
from store.contexts import Context, Messages

BAD_INPUT = 2
"""Exit code."""


@dataclass(frozen=True)
class TrainInputs:
    """The content of all files and options, except the model's and the parent's weights."""

    settings: Settings
    training: TrainerSettings
    context: Context
    lesson_kinds: tuple[str, ...]
    prompts: tuple[Messages, ...]
    held_out: tuple[Messages, ...]
    anchors: tuple[Anchor, ...]
    parent_context: Context


def read(options: argparse.Namespace) -> TrainInputs:
    """Read the files of `python -m distill train`.

    Raises:
        BadInput: A file or folder is invalid; the message names it.
        ConfigError: A setting is invalid.
    """
    loss = {name: value for name, value in options.settings.items() if name in LOSS_OPTIONS}
    chosen = {name: value for name, value in options.settings.items() if name not in loss}
    settings = load(options.config, overrides={"distill": chosen})
    if settings.distill.sampler == "engine" and not settings.engine.urls:
        raise input_files.BadInput(
            "distill.sampler = 'engine' needs the engine's address: engine.urls."
        )
    _check_model(options.model)
    if options.parent_context and not options.parent:
        raise input_files.BadInput(
            "--parent-context describes what --parent learned; it needs --parent."
        )
    context, kinds = input_files.read_context(options.context)
    parent_context = options.parent_context
    return TrainInputs(
        settings,
        with_loss_options(settings.distill, loss),
        context,
        kinds,
        input_files.read_prompts(options.prompts),
        input_files.read_prompts(options.held_out),
        input_files.read_anchors(options.anchors),
        input_files.read_context(parent_context)[0] if parent_context else Context(),
    )


def _check_model(folder: Path) -> None:
    if not folder.is_dir():
        raise input_files.BadInput(
            f"There is no folder {folder}: --model needs a local model folder. Nothing is "
            "downloaded; use `hf download NAME --local-dir DIR`."
        )
    if not (folder / "config.json").is_file():
        raise input_files.BadInput(f"{folder} has no config.json, so it is not a model folder.")
    if not any(folder.glob("tokenizer*")):
        raise input_files.BadInput(f"{folder} has no tokenizer files next to the weights.")
