"""`byheart keys`: creates, lists and revokes API keys."""

from datetime import timedelta
from typing import Annotated

import typer

from agent.cli.errors import InputError
from agent.cli.options import (
    OPERATOR,
    ConfigOption,
    Output,
    OutputOption,
    YesOption,
    console,
    open_settings_and_database,
    print_row,
    print_rows,
)
from agent.gateway.access.api_key import issue_key, pepper
from store import keys, namespaces
from store.clock import utcnow
from store.keys import Grant, Key, Limits, Scope
from store.schema import Trust

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)

ALL_NAMESPACES = "*"
DEFAULT_SCOPES = [Scope.INFER, Scope.FEEDBACK]
Scopes = Annotated[
    list[Scope],
    typer.Option("--scope", "-s", help="What the key allows; repeat for several scopes."),
]
MAX_LIMIT = 2**31 - 1
UNLIMITED = "unlimited by default"
Days = Annotated[
    int | None,
    typer.Option(min=1, max=36_500, help="Days until the key expires; never by default."),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who uses the key: a service or a person.")],
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace", "-n", help="The only namespace that the key may use; '*' for all."
        ),
    ] = namespaces.DEFAULT,
    scope: Scopes = DEFAULT_SCOPES,
    trust: Annotated[
        Trust, typer.Option(help="Authority of the key's feedback: operator or user.")
    ] = Trust.USER,
    expires_in_days: Days = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_LIMIT, help=f"Maximum concurrent requests; {UNLIMITED}."),
    ] = None,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_LIMIT, help=f"Maximum requests per minute; {UNLIMITED}."),
    ] = None,
    tokens_per_minute: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_LIMIT, help=f"Maximum tokens per minute; {UNLIMITED}."),
    ] = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create an API key and print it. It cannot be shown again.

    Example: byheart keys create support-bot -s infer -s feedback --requests-per-minute 60

    Clients send it as their OpenAI or Anthropic API key. A running daemon accepts it immediately.
    With `server.keys = "required"`, requests without a key are rejected.
    """
    if not name.strip():
        raise InputError("NAME must not be blank: it says who uses the key.")
    now = utcnow()
    expires_at = now + timedelta(days=expires_in_days) if expires_in_days else None
    grant = Grant(
        name=name.strip(),
        namespace=None if namespace == ALL_NAMESPACES else namespace,
        trust=trust,
        scopes=frozenset(scope),
        limits=Limits(concurrent, requests_per_minute, tokens_per_minute),
        expires_at=expires_at,
    )
    with open_settings_and_database(config) as (settings, db), db.begin() as session:
        text = issue_key(session, pepper(settings.data_dir), grant, OPERATOR, now)
    if output is Output.JSON:
        print_row({"key": text}, output)
        return
    console.print(text, markup=False, soft_wrap=True)
    console.print(
        "Store this key safely: byheart saves only its digest and cannot show it again.",
        style="dim",
    )


@app.command("ls")
def ls(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List API keys without their secrets."""
    now = utcnow()
    with open_settings_and_database(config) as (_, db), db.read() as session:
        rows = [_row(key, is_valid=key.is_valid(now)) for key in keys.keys(session)]
    print_rows(rows, output, "No keys yet. `byheart keys create NAME` creates one.")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id that `byheart keys ls` lists.")],
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Revoke an API key. A running daemon rejects it within a second.

    Takes the id that `byheart keys ls` lists, not the secret.
    """
    if not yes:
        typer.confirm(f"Revoke {key_id}? Its clients will be rejected.", abort=True)
    with open_settings_and_database(config) as (_, db), db.begin() as session:
        keys.revoke(session, key_id, OPERATOR, utcnow())
    console.print(f"{key_id} is revoked.", markup=False)


def _row(key: Key, *, is_valid: bool) -> dict[str, object]:
    grant = key.grant
    state = "valid" if is_valid else "revoked" if key.revoked_at else "expired"
    return {
        "id": key.id,
        "name": grant.name,
        "namespace": grant.namespace or ALL_NAMESPACES,
        "state": state,
        "trust": grant.trust,
        "created_at": key.created_at,
        "expires_at": grant.expires_at,
        "concurrent": grant.limits.concurrent,
        "requests_per_minute": grant.limits.requests_per_minute,
        "tokens_per_minute": grant.limits.tokens_per_minute,
        "scopes": ", ".join(sorted(grant.scopes)),
    }
