"""`byheart config` and `byheart db`: the settings and the database."""

import json

import typer

from agent.cli.options import ConfigOption, Output, OutputOption, console, opened, show_one
from agent.gateway.log.spool import QUARANTINE
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
def verify(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Check the database against itself, and the hash chain of the audit log.

    Records of interactions that were damaged on disk are counted: the daemon puts them aside.
    """
    with opened(config) as (settings, db):
        db.check()
        with db.read() as session:
            entries = audit.verify(session)
        quarantine = settings.data_dir / "spool" / QUARANTINE
        damaged = quarantine.read_bytes().count(b"\n") if quarantine.exists() else 0
    row = {"database": "agrees with itself", "audit_entries": entries, "records_damaged": damaged}
    show_one(row, output)
