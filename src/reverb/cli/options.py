"""Options that commands share: the server, the application, the presence user, and the form of the output."""

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
"""The default data of an event: servers refuse an event without data."""
STDIN = "-"

Given: TypeAlias = dict[str, Any]
"""The settings that the user gave as options, by their names in :class:`ReverbConfig`."""

PresenceUser = Annotated[
    str | None,
    typer.Option(
        "--presence-user",
        metavar="JSON",
        help="""Your member data on presence channels: {"user_id": "7", "user_info": {"name": "Ann"}}. """
        "Default: the user_id cli-HOSTNAME-PID.",
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", metavar="PREFIX", help="With --all: only channels whose names begin with this."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help=r"With --all: skip channels whose names match, such as '\*.debug'. You can repeat this option.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, for programs.")]


_option = functools.partial(typer.Option, rich_help_panel="Server and application")
_APP_ID = "app_id"
_SERVER_OPTIONS = {
    "host": Annotated[
        str | None, _option("--host", metavar="NAME", help="The server's host name. Overrides REVERB_HOST.")
    ],
    "port": Annotated[
        int | None,
        _option("--port", metavar="NUMBER", help="The server's port. Overrides REVERB_PORT. Default: 443."),
    ],
    _APP_ID: Annotated[
        str | None, _option("--app-id", metavar="ID", help="The application's id. Overrides REVERB_APP_ID.")
    ],
    "app_key": Annotated[
        str | None, _option("--key", metavar="KEY", help="The application's key. Overrides REVERB_APP_KEY.")
    ],
    "scheme": Annotated[
        str | None,
        _option(
            "--scheme",
            metavar="wss|ws",
            help="wss is with TLS, ws is without. Overrides REVERB_SCHEME. Default: wss.",
        ),
    ],
    "path": Annotated[
        str | None,
        _option(
            "--path",
            metavar="PREFIX",
            help="The path prefix before /app/ and /apps/. Overrides REVERB_PATH. Default: none.",
        ),
    ],
}

_RENAMED = {"host": "server_host", "port": "server_port"}
"""The options of a command that has a host and a port of its own."""
_RENAMED_OPTIONS = {
    "host": Annotated[
        str | None,
        _option("--server-host", metavar="NAME", help="The Reverb server's host name. Overrides REVERB_HOST."),
    ],
    "port": Annotated[
        int | None,
        _option(
            "--server-port",
            metavar="NUMBER",
            help="The Reverb server's port. Overrides REVERB_PORT. Default: 443.",
        ),
    ],
}

_ABOUT_SETTINGS = """

The `REVERB_…` variables name the server and the application. Set them in the environment or in the file `.env`.
The options below override them. The secret has no option, because all users of this machine can see options in the
list of processes. Set `REVERB_APP_SECRET` instead"""
_ENDPOINT = ", or `REVERB_AUTH_ENDPOINT` and `REVERB_AUTH_TOKEN`"


def takes_server(
    *, with_app_id: bool, with_endpoint: bool = False, is_server: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: replace its first parameter ``given`` by the options that name server and application.

    Args:
        with_app_id: Whether the command uses the HTTP API, which needs an application id.
        with_endpoint: Whether the command subscribes, for which an auth endpoint can authorise it.
        is_server: Whether the command is a server itself, with ``--host`` and ``--port`` of its own. The options
            of the Reverb server are then ``--server-host`` and ``--server-port``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        added = {name: type_ for name, type_ in _SERVER_OPTIONS.items() if with_app_id or name != _APP_ID}
        settings = {name: name for name in added}
        if is_server:
            added = {_RENAMED.get(name, name): _RENAMED_OPTIONS.get(name, type_) for name, type_ in added.items()}
            settings = {_RENAMED.get(name, name): name for name in settings}

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
    """Make the settings from the options, the environment and ``.env``."""
    return ReverbConfig.from_env(**cast(Settings, given | fixed))


def parse_json(text: str, name: str, hint: str = "") -> Any:
    """Decode a JSON text. If it is not JSON, exit with a message that calls it ``name``."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:  # half a surrogate pair raises ValueError, too
        raise fail(f"{name} is not JSON: {error}{hint}", ExitCode.USAGE) from None


def parse_presence_user(text: str | None) -> dict[str, Any]:
    """Return the ``user_data`` for presence channels. If the option's value is not valid, exit with a message."""
    if text is None:
        return {"user_id": f"cli-{socket.gethostname()}-{os.getpid()}", "user_info": {}}
    user = parse_json(text, "--presence-user")
    user_id = user.get("user_id") if isinstance(user, dict) else None
    if type(user_id) not in (str, int) or user_id == "":  # a bool is an int, too
        example = '{"user_id": "7", "user_info": {"name": "Ann"}}'
        raise fail(f"--presence-user must be an object with a user_id, such as {example}", ExitCode.USAGE)
    return cast(dict[str, Any], user)


def read_data(argument: str) -> str:
    """Return the data of an event: the argument, or for ``-`` the standard input without its last line break."""
    if argument != STDIN:
        return argument
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise fail(f"the standard input is not UTF-8: {error.reason}", ExitCode.USAGE) from None
