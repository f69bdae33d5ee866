"""Options that commands share: which server, which application, who we are, and for whom the output is."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated, Any, cast

import msgspec
import typer

from .. import ReverbConfig
from ..config import Settings
from .process import ExitCode, fail

__all__ = [
    "NO_DATA",
    "AppId",
    "AsJson",
    "Host",
    "Key",
    "PathPrefix",
    "Port",
    "PresenceUser",
    "Scheme",
    "configure",
    "parse_json",
    "parse_presence_user",
    "read_data",
]

NO_DATA = "{}"
"""Servers want data with each event."""
_STDIN = "-"

_PANEL = "Server and application"

Host = Annotated[
    str | None,
    typer.Option("--host", metavar="NAME", help="Instead of REVERB_HOST.", rich_help_panel=_PANEL),
]
Port = Annotated[
    int | None,
    typer.Option("--port", metavar="NUMBER", help="Instead of REVERB_PORT (443).", rich_help_panel=_PANEL),
]
AppId = Annotated[
    str | None,
    typer.Option(
        "--app-id",
        metavar="ID",
        help="The application's id, instead of REVERB_APP_ID.",
        rich_help_panel=_PANEL,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="The application's key, instead of REVERB_APP_KEY.",
        rich_help_panel=_PANEL,
    ),
]
Scheme = Annotated[
    str | None,
    typer.Option("--scheme", metavar="wss|ws", help="Instead of REVERB_SCHEME (wss).", rich_help_panel=_PANEL),
]
PathPrefix = Annotated[
    str | None,
    typer.Option(
        "--path",
        metavar="PREFIX",
        help="Before /app/ and /apps/, instead of REVERB_PATH (none).",
        rich_help_panel=_PANEL,
    ),
]
PresenceUser = Annotated[
    str | None,
    typer.Option(
        "--presence-user",
        metavar="JSON",
        help="""Who we are on presence channels: {"user_id": "7", "user_info": {"name": "Ann"}}. """
        "By default a made-up id, cli-HOSTNAME-PID.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]


def configure(**options: str | int | bool | None) -> ReverbConfig:
    """Make the settings of the options that are given, and of the environment."""
    return ReverbConfig(**cast(Settings, {name: value for name, value in options.items() if value is not None}))


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
    if not isinstance(user, dict) or not isinstance(user.get("user_id"), str | int):
        example = '{"user_id": "7", "user_info": {"name": "Ann"}}'
        raise fail(f"--presence-user must be an object with a user_id, such as {example}", ExitCode.USAGE)
    return user


def read_data(argument: str) -> str:
    """Return an event's data: the argument, or for ``-`` the standard input without its last line break."""
    if argument != _STDIN:
        return argument
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise fail(f"the standard input is not UTF-8: {error.reason}", ExitCode.USAGE) from None
