"""`byheart keys`: who may call, for what and how much."""

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
    opened,
    show,
    show_one,
)
from agent.gateway.access.api_key import issue_key, pepper
from store import keys, namespaces
from store.clock import utcnow
from store.keys import Grant, Key, Limits, Scope
from store.schema import Trust

app = typer.Typer(help="API keys: make, list, revoke.", no_args_is_help=True)

EVERY = "*"
DEFAULT_SCOPES = [Scope.INFER, Scope.FEEDBACK]
Scopes = Annotated[
    list[Scope],
    typer.Option("--scope", "-s", help="What it is good for; again for each."),
]
Ceiling = Annotated[
    int | None, typer.Option(min=1, max=2**31 - 1, help="The most it may; without, any.")
]
Days = Annotated[int | None, typer.Option(min=1, max=36_500, help="Without, it does not expire.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="On whose behalf it acts: a service, or a person.")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The only one it may act in; '*' for all.")
    ] = namespaces.DEFAULT,
    scope: Scopes = DEFAULT_SCOPES,
    trust: Annotated[
        Trust, typer.Option(help="What its feedback counts as: the operator's word, or a user's.")
    ] = Trust.USER,
    expires_in_days: Days = None,
    concurrent: Ceiling = None,
    requests_per_minute: Ceiling = None,
    tokens_per_minute: Ceiling = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a key and show it, this once.

    Clients send it as their OpenAI or Anthropic API key. What it may do, it may do at once, also
    in a daemon that is running; `server.keys = "required"` turns away whoever has none.
    """
    if not name.strip():
        raise InputError("A key needs a name: whose it is.")
    now = utcnow()
    expires_at = now + timedelta(days=expires_in_days) if expires_in_days else None
    grant = Grant(
        name=name.strip(),
        namespace=None if namespace == EVERY else namespace,
        trust=trust,
        scopes=frozenset(scope),
        limits=Limits(concurrent, requests_per_minute, tokens_per_minute),
        expires_at=expires_at,
    )
    with opened(config) as (settings, db), db.begin() as session:
        text = issue_key(session, pepper(settings.data_dir), grant, OPERATOR, now)
    if output is Output.JSON:
        show_one({"key": text}, output)
        return
    console.print(text, markup=False, soft_wrap=True)
    console.print("Keep it: it is shown this once, and is not kept here.", style="dim")


@app.command("ls")
def ls(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List the keys, without their secrets."""
    now = utcnow()
    with opened(config) as (_, db), db.read() as session:
        rows = [_row(key, is_valid=key.is_valid(now)) for key in keys.keys(session)]
    show(rows, output, "No keys yet: `byheart keys create NAME` makes one.")


@app.command("revoke")
def revoke(key_id: str, yes: YesOption = False, config: ConfigOption = None) -> None:
    """Let a key be of no use any more, within a second also in a daemon that is running."""
    if not yes:
        typer.confirm(f"Revoke {key_id}? Whoever uses it is refused from now on.", abort=True)
    with opened(config) as (_, db), db.begin() as session:
        keys.revoke(session, key_id, OPERATOR, utcnow())
    console.print(f"{key_id} is revoked.", markup=False)


def _row(key: Key, *, is_valid: bool) -> dict[str, object]:
    grant = key.grant
    state = "valid" if is_valid else "revoked" if key.revoked_at else "expired"
    return {
        "id": key.id,
        "name": grant.name,
        "namespace": grant.namespace or EVERY,
        "state": state,
        "trust": grant.trust,
        "created_at": key.created_at,
        "expires_at": grant.expires_at,
        "concurrent": grant.limits.concurrent,
        "requests_per_minute": grant.limits.requests_per_minute,
        "tokens_per_minute": grant.limits.tokens_per_minute,
        "scopes": ", ".join(sorted(grant.scopes)),
    }
