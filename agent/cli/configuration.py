"""`byheart config` and `byheart db`: the settings and the database."""

import json

import typer

from agent.cli.frame import ConfigOption, console, opened
from config.settings import Settings, load
from store import audit
from store.db import without_password

app = typer.Typer(help="The settings.", no_args_is_help=True)
db_app = typer.Typer(help="The database.", no_args_is_help=True)


@app.command("print")
def print_settings(config: ConfigOption = None) -> None:
    """Print every setting as it applies here, as JSON; secrets are left out."""
    settings = load(config).model_dump(mode="json")
    if settings["engine"]["api_key"]:
        settings["engine"]["api_key"] = "(set)"
    if settings["store"]["url"]:
        settings["store"]["url"] = without_password(settings["store"]["url"])
    print(json.dumps(settings, indent=2))


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of the configuration, with a description of every key."""
    print(json.dumps(Settings.model_json_schema(), indent=2))


@db_app.command("upgrade")
def upgrade(config: ConfigOption = None) -> None:
    """Bring the database to this release's schema (`byheart serve` does it by itself)."""
    with opened(config):
        console.print("the database has this release's schema")


@db_app.command("verify")
def verify(config: ConfigOption = None) -> None:
    """Check the database against itself, and the hash chain of the audit log."""
    with opened(config) as (_, db):
        db.check()
        console.print("the database agrees with itself")
        with db.read() as session:
            console.print(f"{audit.verify(session)} audit entries, none altered")
