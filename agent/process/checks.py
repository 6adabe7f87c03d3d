"""Checks of settings against each other and against the disk, made before anything starts."""

from agent.process.data_dir import StartError
from config.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_settings(settings: Settings) -> None:
    """Check that the settings are consistent, and that `engine.model` is a model folder.

    Raises:
        StartError: Two settings contradict each other, or `engine.model` is not a model folder.
    """
    server = settings.server
    if server.host not in LOOPBACK and server.keys != "required":
        raise StartError(
            f"server.host is {server.host}, but without API keys everyone who can reach the "
            'endpoint has operator rights. Use 127.0.0.1, or set server.keys = "required" and '
            "create keys with `byheart keys create`."
        )
    if settings.distill.rank > settings.engine.max_lora_rank:
        raise StartError(
            f"distill.rank ({settings.distill.rank}) exceeds engine.max_lora_rank "
            f"({settings.engine.max_lora_rank}): the engine would reject every adapter."
        )
    folder = settings.model_folder
    if settings.engine.model and not (folder / "config.json").exists():
        raise StartError(f"engine.model: {folder} is not a model folder (no config.json).")
    if settings.distill.auto:
        check_trainable(settings)


def check_trainable(settings: Settings) -> None:
    """Check that the folder of the served model is known, which training needs.

    Raises:
        StartError: `engine.urls` is set without `engine.model`.
    """
    if settings.engine.urls and not settings.engine.model:
        raise StartError(
            "engine.urls is set without engine.model. Training needs the folder of the model that "
            "those servers serve. Set engine.model to it. To serve without training, set "
            "distill.auto = false; lessons then stay in the prompt."
        )
