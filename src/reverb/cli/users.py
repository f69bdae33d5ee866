"""``reverb users``: who is on a presence channel."""

from __future__ import annotations

from typing import Annotated

import typer

from .._protocol import is_presence
from .asking import ask
from .options import AppId, AsJson, Host, Key, PathPrefix, Port, Scheme
from .output import show, show_table
from .process import ExitCode, fail

__all__ = ["users"]


def users(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A presence channel, such as presence-room.1.")],
    as_json: AsJson = False,
    host: Host = None,
    port: Port = None,
    app_id: AppId = None,
    key: Key = None,
    scheme: Scheme = None,
    path: PathPrefix = None,
) -> None:
    """List the ids of the users on a presence channel.

    The server and the application are those of the `REVERB_…` variables, in the environment or in the file `.env`;
    the options here go before them. There is no option for the secret: set `REVERB_APP_SECRET`.
    """
    if not is_presence(name):
        raise fail(f"{name} is no presence channel (presence-…): only those know their users", ExitCode.USAGE)
    found = ask(
        lambda api: api.users(name),
        host=host,
        port=port,
        app_id=app_id,
        app_key=key,
        scheme=scheme,
        path=path,
    )
    if as_json or not found:
        show(({"user_id": user} for user in found), f"nobody is on {name}", as_json=as_json)
    else:
        show_table(["User"], [(user,) for user in found])
