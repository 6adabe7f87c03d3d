"""`byheart config` and `byheart db`: prints the settings, upgrades and verifies the database."""

import json

import typer

from agent.cli.options import (
    ConfigOption,
    Output,
    OutputOption,
    console,
    open_settings_and_database,
    print_row,
)
from agent.gateway.log.spool import QUARANTINE
from config.settings import Settings, load
from store import audit
from store.db import without_password

app = typer.Typer(help="Print the settings and their schema.", no_args_is_help=True)
db_app = typer.Typer(help="Upgrade and verify the database.", no_args_is_help=True)


@app.command("print")
def print_settings(config: ConfigOption = None) -> None:
    """Print the effective settings as JSON, without secrets.

    They are the defaults, overridden by the configuration file and the environment.
    """
    settings = load(config).model_dump(mode="json")
    if settings["engine"]["api_key"]:
        settings["engine"]["api_key"] = "(set)"
    if settings["store"]["url"]:
        settings["store"]["url"] = without_password(settings["store"]["url"])
    print(json.dumps(settings, indent=2))


@app.command("schema")
def schema() -> None:
    """Print the JSON schema of the configuration file, which describes every key."""
    print(json.dumps(Settings.model_json_schema(), indent=2))


@db_app.command("upgrade")
def upgrade(config: ConfigOption = None) -> None:
    """Upgrade the database to this release's schema (`byheart serve` does so when it starts)."""
    with open_settings_and_database(config):
        console.print("the database schema is up to date")


@db_app.command("verify")
def verify(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Check the database's integrity and the hash chain of the audit log.

    Also counts the spooled interaction records that the daemon has quarantined: corrupt ones, and
    those that the database rejected.
    """
    with open_settings_and_database(config) as (settings, db):
        db.check()
        with db.read() as session:
            entries = audit.verify(session)
        quarantine = settings.data_dir / "spool" / QUARANTINE
        corrupt = quarantine.read_bytes().count(b"\n") if quarantine.exists() else 0
    row = {"database": "consistent", "audit_entries": entries, "records_damaged": corrupt}
    print_row(row, output)
