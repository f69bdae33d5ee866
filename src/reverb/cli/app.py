"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .demo import demo
from .doctor import doctor
from .listen import listen
from .publish import publish
from .serve import serve

__all__ = ["app"]

# Rich tracebacks would show local variables, the application's secret among them.
app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
app.command()(demo)
app.command()(doctor)
app.command()(listen)
app.command()(publish)
app.command()(serve)


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
