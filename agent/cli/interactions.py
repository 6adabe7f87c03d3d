"""`byheart why` and `savings`: what answers rested on, and what internalising has spared."""

import typer

from agent.cli.errors import InputError
from agent.cli.options import (
    ConfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    opened,
    show,
    show_one,
)
from store import interactions, namespaces, search


def why(
    interaction: str = typer.Argument(help="As the answer's X-Byheart-Interaction header says."),
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """What an answer rested on, and what was learned from it."""
    from agent.control.explain import explain  # with the control API's schemas

    with opened(config) as (_, db), db.read() as session:
        row = interactions.get(session, interaction)
        if row is None:
            raise InputError(f"There is no interaction {interaction!r}.")
        said = explain(session, row).model_dump(mode="json")
    if output is Output.TABLE:
        said["learned"] = [
            f"{each['id']} ({each['status']}) {each['text']}" for each in said["learned"]
        ]
    show_one(said, output)


def savings(
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Prompt tokens that were sent, and those that adapters kept out, by version."""
    with opened(config) as (_, db), db.read() as session:
        namespaces.require(session, namespace)
        rows = search.savings(session, namespace)
    show(rows, output, "Nothing was answered yet.")
