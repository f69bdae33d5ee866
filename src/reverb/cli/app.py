"""The commands, put together."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from .. import __version__
from .bench import bench
from .channel import channel
from .channels import channels
from .connections import connections
from .demo import demo
from .doctor import doctor
from .listen import listen
from .process import EXIT_CODES
from .publish import publish
from .serve import serve
from .systemd import systemd
from .terminate import terminate
from .trigger import trigger
from .users import users

__all__ = ["app"]

# Rich tracebacks would show local variables, the application's secret among them.
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")
for command in (
    listen,
    trigger,
    publish,
    channels,
    channel,
    users,
    connections,
    terminate,
    doctor,
    bench,
    serve,
    systemd,
    demo,
):
    app.command(epilog=EXIT_CODES)(command)


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
