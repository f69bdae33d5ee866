"""The commands, put together. Each is imported when it runs, so that none waits for what another needs."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__
from .process import EXIT_CODES

__all__ = ["COMMANDS", "app", "load"]

COMMANDS = {
    "listen": "Print the events of channels, until Ctrl-C.",
    "trigger": "Send a client event to the others on a channel.",
    "publish": "Publish an event on channels, or a file of events.",
    "channels": "List the channels that somebody is subscribed to.",
    "channel": "Say whether a channel is in use, and by how many.",
    "users": "List the ids of the users on a presence channel.",
    "connections": "Say how many connections the application has.",
    "terminate": "End all connections of a user.",
    "console": "Show in the browser what happens on a server, as it happens.",
    "doctor": "Find out what does not work, and what to change: here, on the server, or in the proxy between.",
    "bench": "Measure how long events take through a server, and how many get through.",
    "relay": "Write the events of channels into a Redis or Valkey stream, or into NATS JetStream.",
    "serve": "Run a development server that answers like Reverb.",
    "systemd": "Print a systemd unit for a program that listens.",
    "demo": "See the client at work: it takes five seconds.",
}
"""The commands, each a function in a module of its name, in the order of ``--help``; and how its help begins."""


def load(name: str) -> TyperCommand:
    """Import a command."""
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    alone.command(name, epilog=EXIT_CODES)(getattr(import_module(f".{name}", __package__), name))
    command = typer.main.get_command(alone)
    assert isinstance(command, TyperCommand)
    return command


class _Commands(TyperGroup):
    """Has what ``--help`` shows of each command, and loads the one that runs."""

    def __init__(self, **options: Any) -> None:
        commands = {name: TyperCommand(name, help=text) for name, text in COMMANDS.items()}
        super().__init__(**{**options, "commands": commands})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest


# Rich tracebacks would show local variables, the application's secret among them.
app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"python-reverb {__version__}")
        raise typer.Exit


@app.callback()
def reverb(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Laravel Reverb, and other servers of the Pusher protocol, from the command line."""
    logging.getLogger("reverb").addHandler(logging.NullHandler())  # commands tell by themselves what matters of it
