"""The command line. Each command is imported only when it runs, so that ``reverb`` starts fast."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__
from .process import EXIT_CODES

__all__ = ["COMMANDS", "PANELS", "app", "load"]

PANELS = {
    "Start here": {
        "demo": "Show the client at work in five seconds, without a server of yours.",
        "doctor": "Check the settings, the connection and the server step by step, and say what to change.",
        "console": "Show the channels and events of a server live in your browser.",
    },
    "Receive and send events": {
        "listen": "Print the events of channels, until you press Ctrl-C.",
        "publish": "Publish events over the HTTP API: one event, a file of events, or a stream.",
        "trigger": "Send a client event to the other subscribers of a channel.",
    },
    "Query and manage the application": {
        "channels": "List the channels that have subscribers.",
        "channel": "Show whether a channel has subscribers, and how many.",
        "users": "List the ids of the users on a presence channel.",
        "connections": "Show how many connections the application has.",
        "terminate": "Close all connections of a user.",
    },
    "Run services": {
        "relay": "Write the events of channels into a Redis or Valkey stream, or into NATS JetStream.",
        "systemd": "Print a systemd unit for a program that listens.",
    },
    "Develop and measure": {
        "serve": "Run a development server that behaves like Laravel Reverb.",
        "bench": "Measure the latency and the throughput of events through a server.",
    },
}
"""The commands with the first sentence of their help, by the panels of ``reverb --help``.

Each command is a function in the module of the same name."""

COMMANDS = {name: summary for panel in PANELS.values() for name, summary in panel.items()}


def load(name: str) -> TyperCommand:
    """Import a command."""
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    alone.command(name, epilog=EXIT_CODES)(getattr(import_module(f".{name}", __package__), name))
    command = typer.main.get_command(alone)
    assert isinstance(command, TyperCommand)
    return command


class _Commands(TyperGroup):
    """Shows the summaries of all commands in ``--help``, and imports only the command that runs."""

    def __init__(self, **options: Any) -> None:
        commands = {
            name: TyperCommand(name, help=summary, rich_help_panel=panel)
            for panel, summaries in PANELS.items()
            for name, summary in summaries.items()
        }
        super().__init__(**{**options, "commands": commands})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest


# Rich's tracebacks would show local variables, and the application's secret is one of them.
app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"python-reverb {__version__}", flush=True)  # so that main() sees that it can't be written
        raise typer.Exit


@app.callback()
def reverb(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Use Laravel Reverb, and other Pusher-protocol servers, from the command line.

    Set `REVERB_HOST`, `REVERB_APP_KEY` and `REVERB_APP_SECRET`, in the environment or in a file `.env`. Then
    `reverb doctor` checks them, and `reverb listen CHANNEL` prints events. `reverb COMMAND --help` explains a
    command.
    """
    logging.getLogger("reverb").addHandler(logging.NullHandler())  # commands print what users need to know
