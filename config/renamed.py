"""Renamed and removed settings: the old name is accepted for one release, with a warning.

To rename a setting, rename its field in `sections.py` and add a line to `RENAMED`; to remove one,
add it to `REMOVED` with the reason. Remove the line in the release after.
"""

import logging
from collections.abc import Callable
from typing import Any

from config.errors import ConfigError

log = logging.getLogger(__name__)

RENAMED: dict[str, dict[str, str]] = {
    "distill": {
        "guided_share": "teacher_share",
        "guided_temperature": "teacher_temperature",
    }
}
"""By section: the old name of a setting and its current one."""

_TRAINER_ONLY = "it is an option of `python -m distill train` only"
REMOVED: dict[str, dict[str, str]] = {
    "distill": dict.fromkeys(("divergence", "teacher_weight", "top_k", "normalise"), _TRAINER_ONLY)
}
"""By section: a setting that the configuration ignores, and why."""


def current_name(section: str, key: str) -> str:
    """Return the current name of a setting."""
    return RENAMED.get(section, {}).get(key, key)


def with_current_names(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the stored settings of a section under their current names."""
    return {current_name(section, key): value for key, value in values.items()}


def replace_old_names(tree: dict[str, Any], spell: Callable[[str, str], str]) -> None:
    """Rename and remove the old settings of one source in place, and warn about each.

    Args:
        tree: What the source sets, by section.
        spell: How the source writes a section and a key, for the messages.

    Raises:
        ConfigError: The source sets a setting under both names.
    """
    for section, names in RENAMED.items():
        values = tree.get(section)
        if not isinstance(values, dict):
            continue
        for name in REMOVED.get(section, {}).keys() & values.keys():
            del values[name]
            log.warning("%s is ignored: %s.", spell(section, name), REMOVED[section][name])
        for old in names.keys() & values.keys():
            new = names[old]
            if new in values:
                raise ConfigError(
                    f"{spell(section, old)} and {spell(section, new)} are the same setting: "
                    f"remove {spell(section, old)}, its old name."
                )
            values[new] = values.pop(old)
            log.warning(
                "%s is deprecated and will be removed in the next release: use %s.",
                spell(section, old),
                spell(section, new),
            )
