"""The configuration: an immutable tree of the sections in `sections.py`, and its sources.

Sources in ascending priority: defaults, a TOML file, environment variables
(`BYHEART_SECTION__KEY`), explicit overrides. An unknown key or variable is an error that suggests
the nearest valid one. Only `agent/daemon.py`, `agent/cli` and the two entry points of `distill` use
the whole tree; everything else takes its section or plain values.
"""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from config.environment import ENV_PREFIX, read_environment, variable
from config.errors import ConfigError as ConfigError
from config.renamed import replace_old_names
from config.section_base import Section
from config.sections import Distill, Engine, Gate, Learning, Server, Store

SECRETS = ("engine.api_key", "engine.urls", "store.url")
"""Settings whose values never appear in error messages."""
EMBEDDED_MODEL = "SmolLM2-135M-Instruct"


class Settings(Section):
    """All settings."""

    server: Server = Server()
    engine: Engine = Engine()
    store: Store = Store()
    learning: Learning = Learning()
    distill: Distill = Distill()
    gate: Gate = Gate()

    @property
    def data_dir(self) -> Path:
        """Return the absolute path of the data folder, with `~` expanded."""
        return self.store.data_dir.expanduser().absolute()

    @property
    def database_url(self) -> str:
        """Return the configured database URL, or SQLite in the data folder, with an absolute path.

        Child processes have other working directories and must open the same file.
        """
        driver, separator, path = self.store.url.partition(":///")
        if not self.store.url:
            return f"sqlite:///{quote(str(self.data_dir / 'byheart.db'))}"
        if not driver.startswith("sqlite") or not path or path.startswith((":memory:", "file:")):
            return self.store.url
        return f"{driver}{separator}{Path(path).expanduser().absolute()}"

    @property
    def model_folder(self) -> Path:
        """Return the folder of the configured base model, or of the unpacked embedded one."""
        if self.engine.model:
            return Path(self.engine.model).expanduser().absolute()
        return self.data_dir / "models" / EMBEDDED_MODEL

    def environment(self) -> dict[str, str]:
        """Return variables for a child process: database, data folder, model, chat template."""
        return {
            f"{ENV_PREFIX}STORE__URL": self.database_url,
            f"{ENV_PREFIX}STORE__DATA_DIR": str(self.data_dir),
            f"{ENV_PREFIX}ENGINE__MODEL": str(self.model_folder),
            f"{ENV_PREFIX}ENGINE__CHAT_TEMPLATE_KWARGS": self.engine.chat_template_kwargs,
        }


SECTIONS: dict[str, type[Section]] = {
    "server": Server,
    "engine": Engine,
    "store": Store,
    "learning": Learning,
    "distill": Distill,
    "gate": Gate,
}


def load(
    path: Path | None = None,
    environ: dict[str, str] | None = None,
    overrides: dict[str, dict[str, Any]] | None = None,
) -> Settings:
    """Load settings from a TOML file, the environment and overrides, in ascending priority.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, a value is out of range, or a
            setting is given under both its old and its current name.
    """
    tree = _read_toml(path) if path else {}
    replace_old_names(tree, "{}.{}".format)
    from_environment = read_environment(dict(os.environ) if environ is None else environ, SECTIONS)
    replace_old_names(from_environment, variable)
    options = {section: dict(values) for section, values in (overrides or {}).items()}
    replace_old_names(options, lambda _, key: f"--{key.replace('_', '-')}")
    _merge(tree, from_environment)
    _merge(tree, options)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read the configuration file {path}: {error}") from error


def _merge(tree: dict[str, Any], stronger: dict[str, Any]) -> None:
    for section, values in stronger.items():
        if isinstance(values, dict) and isinstance(tree.setdefault(section, {}), dict):
            tree[section].update(values)
        else:
            tree[section] = values


def _explain(error: ValidationError) -> str:
    return "\n".join(_explain_one(dict(problem)) for problem in error.errors())


def _explain_one(problem: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        value = "" if where in SECRETS else f" (got {problem['input']!r})"
        return f"{where}: {problem['msg']}{value}"
    near = difflib.get_close_matches(where, valid_keys(), n=1, cutoff=0.0)
    return f"Unknown configuration key {where!r}. Did you mean {near[0]!r}?"


def valid_keys() -> list[str]:
    """Return all keys as `section.key`, and the section names."""
    return [
        key
        for name, section in SECTIONS.items()
        for key in (name, *(f"{name}.{field}" for field in section.model_fields))
    ]
