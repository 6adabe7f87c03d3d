"""`byheart why` and `savings`: explains one answer, and reports the prompt tokens saved."""

import typer

from agent.cli.errors import InputError
from agent.cli.options import (
    ConfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    open_settings_and_database,
    print_row,
    print_rows,
)
from store import interactions, namespaces, search


def why(
    interaction: str = typer.Argument(help="Id from the answer's X-Byheart-Interaction header."),
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what an answer was based on, what it shows not to be known, and what it has taught.

    Example: byheart why int_0199...
    """
    from agent.control.explain import explain  # with the control API's schemas

    with open_settings_and_database(config) as (_, db), db.read() as session:
        row = interactions.get(session, interaction)
        if row is None:
            raise InputError(f"Unknown interaction {interaction!r}.")
        explanation = explain(session, row).model_dump(mode="json")
    if output is Output.TABLE:
        explanation["relapses"] = [
            f"{relapse['text']} ({relapse['relapse_cause']})" for relapse in explanation["relapses"]
        ]
        explanation["learned"] = [
            f"{lesson['id']} ({lesson['status']}) {lesson['text']}"
            for lesson in explanation["learned"]
        ]
    print_row(explanation, output)


def savings(
    namespace: NamespaceOption = namespaces.DEFAULT,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show prompt tokens per version: sent, and saved because lessons are in the weights."""
    with open_settings_and_database(config) as (_, db), db.read() as session:
        namespaces.require(session, namespace)
        rows = search.savings(session, namespace)
    print_rows(rows, output, "No requests yet.")
