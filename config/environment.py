"""Settings from environment variables: `BYHEART_SECTION__KEY`."""

import difflib
from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import BaseModel

from config.errors import ConfigError
from config.renamed import current_name

ENV_PREFIX = "BYHEART_"
ENV_CONFIG = "BYHEART_CONFIG"
"""Path of the TOML file, for the command line; all other variables with the prefix are settings."""

Sections = Mapping[str, type[BaseModel]]


def read_environment(environ: Mapping[str, str], sections: Sections) -> dict[str, Any]:
    """Parse variables: `BYHEART_ENGINE__MAX_LORAS=4` becomes `{"engine": {"max_loras": "4"}}`.

    Lists are comma-separated.

    Raises:
        ConfigError: A variable with the prefix has no `__` that separates section and key.
    """
    tree: dict[str, Any] = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX) or name == ENV_CONFIG:
            continue
        section, separator, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if not separator:
            raise ConfigError(_explain(name, sections))
        is_list = section in sections and _is_tuple(sections[section], current_name(section, key))
        tree.setdefault(section, {})[key] = (
            [part for part in value.split(",") if part] if is_list else value
        )
    return tree


def variable(section: str, key: str) -> str:
    """Return the name of a setting's environment variable."""
    return f"{ENV_PREFIX}{section}__{key}".upper()


def _is_tuple(section: type[BaseModel], key: str) -> bool:
    field = section.model_fields.get(key)
    return field is not None and get_origin(field.annotation) is tuple


def _explain(name: str, sections: Sections) -> str:
    """Return the error for a variable without `__`, with the most similar valid name."""
    known = [
        variable(section, key) for section, model in sections.items() for key in model.model_fields
    ]
    near = difflib.get_close_matches(name.upper(), [ENV_CONFIG, *known], n=1, cutoff=0.0)
    return f"Unknown environment variable {name!r}. Did you mean {near[0]!r}?"
