"""The `byheart` command with all its verbs."""

import typer

from agent.cli import (
    adapters,
    compile,
    configuration,
    demo,
    interactions,
    keys,
    lessons,
    logs,
    namespaces,
    rollout,
    service,
    train,
)

app = typer.Typer(
    name="byheart",
    help="Serve a model, learn from its conversations, and know the lessons by heart.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.callback()(logs.configure_logging)
app.command("serve")(service.serve)
app.command("worker")(service.worker)
app.command("status")(service.status)
app.command("demo")(demo.demo)
app.command("compile")(compile.compile_prompt)
app.add_typer(namespaces.app, name="namespaces")
app.add_typer(keys.app, name="keys")
app.add_typer(lessons.app, name="lessons")
app.add_typer(train.app, name="train")
app.add_typer(adapters.app, name="adapters")
app.add_typer(rollout.app, name="rollout")
app.command("rollback")(rollout.rollback)
app.command("why")(interactions.why)
app.command("savings")(interactions.savings)
app.add_typer(configuration.app, name="config")
app.add_typer(configuration.db_app, name="db")
