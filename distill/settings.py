"""The settings of a run: those of the daemon, and the variants of the loss that only research uses.

Imported before the training stack, so it stays free of torch.
"""

from typing import Any, Literal

from pydantic import Field, ValidationError

from config.errors import ConfigError
from config.sections import Distill


class TrainerSettings(Distill):
    """The `distill` section with the options that only `python -m distill train` takes."""

    divergence: Literal["reverse", "forward", "jsd"] = "reverse"
    """Divergence on student-sampled trajectories; teacher-sampled ones use forward KL."""
    teacher_weight: float = Field(0.5, gt=0, lt=1)
    """Weight of the teacher in the mixture of the generalised JSD."""
    top_k: int = Field(0, ge=0)
    """Tokens of student and teacher compared one by one, the rest as one bucket; 0: all."""
    normalise: Literal["sequence", "token"] = "sequence"
    """Weigh each trajectory of a step equally, or each token."""


LOSS_OPTIONS = tuple(
    name for name in TrainerSettings.model_fields if name not in Distill.model_fields
)


def with_loss_options(settings: Distill, options: dict[str, Any]) -> TrainerSettings:
    """Return the settings with the loss options of a command line.

    Raises:
        ConfigError: An option is out of range.
    """
    try:
        return TrainerSettings.model_validate(settings.model_dump() | options)
    except ValidationError as error:
        problem = error.errors()[0]
        option = str(problem["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{option}: {problem['msg']} (got {problem['input']!r})") from error
