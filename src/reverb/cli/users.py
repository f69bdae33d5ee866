"""``reverb users``: list the users on a presence channel."""

from __future__ import annotations

from typing import Annotated

import typer

from .._protocol import is_presence
from .asking import ask
from .options import AsJson, Given, takes_server
from .output import show, show_table
from .process import ExitCode, fail

__all__ = ["users"]


@takes_server(with_app_id=True)
def users(
    given: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The presence channel, such as presence-room.1.")],
    as_json: AsJson = False,
) -> None:
    """List the ids of the users on a presence channel."""
    if not is_presence(name):
        raise fail(
            f"{name} is not a presence channel (presence-…); only presence channels have users", ExitCode.USAGE
        )
    found = ask(lambda api: api.users(name), given)
    if as_json or not found:
        show(({"user_id": user} for user in found), f"nobody is on {name}", as_json=as_json)
    else:
        show_table(["User"], [(user,) for user in found])
