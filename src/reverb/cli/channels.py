"""``reverb channels``: list the channels that have subscribers."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.text import Text

from .asking import ALL_INFO, ask, with_info
from .options import AsJson, Given, takes_server
from .output import show, show_table
from .view import channel_style, printable

__all__ = ["channels"]


@takes_server(with_app_id=True)
def channels(
    given: Given,
    prefix: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Only channels whose names begin with this, such as presence-."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the channels that have subscribers.

    Reverb counts users on presence channels, and subscriptions on other channels.
    """
    found = ask(lambda api: with_info(partial(api.channels, prefix), ALL_INFO), given)
    if as_json or not found:
        lines = (
            {"channel": name, "subscription_count": info.subscription_count, "user_count": info.user_count}
            for name, info in sorted(found.items())
        )
        which = f"no channel whose name begins with {prefix}" if prefix else "no channel"
        show(lines, f"{which} has subscribers", as_json=as_json)
        return
    show_table(
        ["Channel", "Subscriptions", "Users"],
        [
            (Text(printable(name), channel_style(name)), info.subscription_count, info.user_count)
            for name, info in sorted(found.items())
        ],
    )
