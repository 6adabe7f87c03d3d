"""What no single setting can say about itself: checked before the service or a run starts."""

from agent.process.data_dir import StartError
from config.settings import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_settings(settings: Settings) -> None:
    """Check what no single setting can.

    Raises:
        StartError: Two settings contradict each other.
    """
    server = settings.server
    if server.host not in LOOPBACK and server.keys != "required":
        raise StartError(
            f"server.host is {server.host}: without API keys only loopback is served, because "
            "whoever reaches the endpoint is the operator. Use 127.0.0.1, or set server.keys = "
            '"required" and make keys with `byheart keys create`.'
        )
    if settings.distill.rank > settings.engine.max_lora_rank:
        raise StartError(
            f"distill.rank {settings.distill.rank} is above engine.max_lora_rank "
            f"{settings.engine.max_lora_rank}: the engine would refuse every adapter."
        )
    folder = settings.model_folder
    if settings.engine.model and not (folder / "config.json").exists():
        raise StartError(f"engine.model: {folder} is not a model folder: it has no config.json.")
    if settings.distill.auto:
        check_trainable(settings)


def check_trainable(settings: Settings) -> None:
    """Check that a run would train the model that serves.

    Raises:
        StartError: Which model the attached servers serve is not known here.
    """
    if settings.engine.urls and not settings.engine.model:
        raise StartError(
            "engine.urls is set without engine.model: a run trains on the folder of the model that "
            "those servers serve. Set engine.model to it. With distill.auto = false the service "
            "also works without, and lessons stay in the prompt."
        )
