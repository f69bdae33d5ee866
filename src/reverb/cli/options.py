"""Options that commands share: which server, which application, who we are, and for whom the output is."""

from __future__ import annotations

import functools
import inspect
import os
import socket
import sys
from collections.abc import Callable
from inspect import Parameter
from typing import Annotated, Any, TypeAlias, cast

import msgspec
import typer

from .. import ReverbConfig
from ..config import Settings
from .process import ExitCode, fail

__all__ = [
    "NO_DATA",
    "STDIN",
    "AsJson",
    "Exclude",
    "Given",
    "Prefix",
    "PresenceUser",
    "configure",
    "parse_json",
    "parse_presence_user",
    "read_data",
    "takes_server",
]

NO_DATA = "{}"
"""Servers want data with each event."""
STDIN = "-"

Given: TypeAlias = dict[str, Any]
"""The settings that options were given for, by the names that they have in :class:`ReverbConfig`."""

PresenceUser = Annotated[
    str | None,
    typer.Option(
        "--presence-user",
        metavar="JSON",
        help="""Who we are on presence channels: {"user_id": "7", "user_info": {"name": "Ann"}}. """
        "By default a made-up id, cli-HOSTNAME-PID.",
    ),
]
Prefix = Annotated[
    str | None, typer.Option("--prefix", metavar="PREFIX", help="With --all: only channels that begin so.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude", metavar="PATTERN", help="With --all: no channels so named. Can be given several times."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]


_option = functools.partial(typer.Option, rich_help_panel="Server and application")
_APP_ID = "app_id"
_SERVER_OPTIONS = {
    "host": Annotated[str | None, _option("--host", metavar="NAME", help="Instead of REVERB_HOST.")],
    "port": Annotated[int | None, _option("--port", metavar="NUMBER", help="Instead of REVERB_PORT (443).")],
    _APP_ID: Annotated[
        str | None, _option("--app-id", metavar="ID", help="The application's id, instead of REVERB_APP_ID.")
    ],
    "app_key": Annotated[
        str | None, _option("--key", metavar="KEY", help="The application's key, instead of REVERB_APP_KEY.")
    ],
    "scheme": Annotated[str | None, _option("--scheme", metavar="wss|ws", help="Instead of REVERB_SCHEME (wss).")],
    "path": Annotated[
        str | None,
        _option("--path", metavar="PREFIX", help="Before /app/ and /apps/, instead of REVERB_PATH (none)."),
    ],
}

_APART = {"host": "server_host", "port": "server_port"}
_REVERB = {
    "host": Annotated[
        str | None, _option("--server-host", metavar="NAME", help="Reverb's, instead of REVERB_HOST.")
    ],
    "port": Annotated[
        int | None, _option("--server-port", metavar="NUMBER", help="Reverb's, instead of REVERB_PORT (443).")
    ],
}

_ABOUT_SETTINGS = """

The server and the application are those of the `REVERB_…` variables, in the environment or in the file `.env`;
the options below go before them. There is no option for the secret, because everybody on this machine can see
options in the list of processes: set `REVERB_APP_SECRET`"""
_ENDPOINT = ", or `REVERB_AUTH_ENDPOINT` and `REVERB_AUTH_TOKEN`"


def takes_server(
    *, with_app_id: bool, with_endpoint: bool = False, is_server: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose first parameter is ``given``: on the command line it has the options that name the
    server and the application instead, and its ``--help`` says so. Commands that use the HTTP API need an
    application id; those that subscribe may be authorised by an endpoint. A command that is a server itself has
    a host and a port of its own: there, those of the Reverb server are ``--server-host`` and ``--server-port``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        added = {name: type_ for name, type_ in _SERVER_OPTIONS.items() if with_app_id or name != _APP_ID}
        settings = {name: name for name in added}
        if is_server:
            added = {_APART.get(name, name): _REVERB.get(name, type_) for name, type_ in added.items()}
            settings = {_APART.get(name, name): name for name in settings}

        @functools.wraps(command)
        def with_options(**arguments: Any) -> None:
            values = {settings[name]: arguments.pop(name, None) for name in added}
            command({name: value for name, value in values.items() if value is not None}, **arguments)

        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        options = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=added[name]) for name in added]
        parameters = [*(each.replace(kind=Parameter.KEYWORD_ONLY) for each in own), *options]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {each.name: each.annotation for each in parameters}
        with_options.__doc__ = f"{inspect.getdoc(command)}{_ABOUT_SETTINGS}{_ENDPOINT if with_endpoint else ''}."
        return with_options

    return decorate


def configure(given: Given, **fixed: bool) -> ReverbConfig:
    """Make the settings of the options that are given, and of the environment."""
    return ReverbConfig.from_env(**cast(Settings, given | fixed))


def parse_json(text: str, name: str, hint: str = "") -> Any:
    """Return what a JSON text says; end with a message that calls it ``name`` if it is none."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:  # half a surrogate pair is a ValueError, too
        raise fail(f"{name} is not JSON: {error}{hint}", ExitCode.USAGE) from None


def parse_presence_user(text: str | None) -> dict[str, Any]:
    """Return the ``user_data`` for presence channels; end with a message if the option holds something else."""
    if text is None:
        return {"user_id": f"cli-{socket.gethostname()}-{os.getpid()}", "user_info": {}}
    user = parse_json(text, "--presence-user")
    user_id = user.get("user_id") if isinstance(user, dict) else None
    if type(user_id) not in (str, int) or user_id == "":  # a bool is an int, too
        example = '{"user_id": "7", "user_info": {"name": "Ann"}}'
        raise fail(f"--presence-user must be an object with a user_id, such as {example}", ExitCode.USAGE)
    return cast(dict[str, Any], user)


def read_data(argument: str) -> str:
    """Return an event's data: the argument, or for ``-`` the standard input without its last line break."""
    if argument != STDIN:
        return argument
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise fail(f"the standard input is not UTF-8: {error.reason}", ExitCode.USAGE) from None
