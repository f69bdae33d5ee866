"""``reverb channel``: show whether a channel has subscribers."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.text import Text

from .._protocol import is_presence
from .asking import ALL_INFO, ask, with_info
from .options import AsJson, Given, takes_server
from .output import show, show_table
from .view import channel_style, printable

__all__ = ["channel"]


@takes_server(with_app_id=True)
def channel(
    given: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The channel, such as news or presence-room.1.")],
    as_json: AsJson = False,
) -> None:
    """Show whether a channel has subscribers, and how many.

    Reverb counts users on presence channels, and subscriptions on other channels.
    """
    wanted = ALL_INFO if is_presence(name) else "subscription_count"
    info = ask(lambda api: with_info(partial(api.channel, name), wanted), given)
    if as_json:
        fields = {
            "channel": name,
            "occupied": info.occupied,
            "subscription_count": info.subscription_count,
            "user_count": info.user_count,
        }
        show([fields], "", as_json=True)
        return
    occupied = None if info.occupied is None else ("yes" if info.occupied else "no")
    show_table(
        ["Channel", "Occupied", "Subscriptions", "Users"],
        [(Text(printable(name), channel_style(name)), occupied, info.subscription_count, info.user_count)],
    )
