"""``reverb listen``: what happens on a server's channels, as it happens."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, cast

import typer
from rich.console import Console

from .. import Events, PresenceChannel, ReverbClient, ReverbConfig
from .._protocol import is_presence
from ..config import Settings
from .process import ExitCode, exit_on_error, fail, run, stop_writing
from .view import JsonLines, OutputConsole, View

__all__ = ["listen"]


def listen(
    channels: Annotated[
        list[str],
        typer.Argument(metavar="CHANNEL", help="Such as news, private-orders.7 or presence-room.1."),
    ],
    presence_user: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="""Who we are on presence channels: {"user_id": "7", "user_info": {"name": "Ann"}}. """
            "By default a made-up id, cli-HOSTNAME-PID.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One object a line: time, channel, event, data, and user_id if known.")
    ] = False,
    host: Annotated[str | None, typer.Option(help="Instead of REVERB_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Instead of REVERB_PORT (443).")] = None,
    key: Annotated[str | None, typer.Option(help="The application's key, instead of REVERB_APP_KEY.")] = None,
    scheme: Annotated[str | None, typer.Option(help="wss or ws, instead of REVERB_SCHEME (wss).")] = None,
    path: Annotated[str | None, typer.Option(help="In front of /app/, instead of REVERB_PATH.")] = None,
) -> None:
    """Print the events of channels, until Ctrl-C.

    The server and the application are those of the `REVERB_…` variables, in the environment or in the file `.env`;
    the options here go before them. There is no option for the secret, which private and presence channels need:
    set `REVERB_APP_SECRET`, or `REVERB_AUTH_ENDPOINT` and `REVERB_AUTH_TOKEN`, because everybody on this machine
    can see options in the list of processes.

    Events go to the standard output, what happens to the connection goes to the standard error.

    Exit codes:

    - 0: ended by Ctrl-C or SIGTERM, or because nobody reads the output any more

    - 1: the program has a fault

    - 2: wrong usage or settings

    - 3: no connection, or it was lost for good

    - 4: a channel was refused
    """
    user = _default_user() if presence_user is None else _parse_user(presence_user)
    given = {"host": host, "port": port, "app_key": key, "scheme": scheme, "path": path}
    with exit_on_error():
        config = ReverbConfig(
            **cast(Settings, {name: value for name, value in given.items() if value is not None})
        )
        run(_listen(config, channels, user, as_json=as_json))


async def _listen(config: ReverbConfig, channels: list[str], user: dict[str, Any], *, as_json: bool) -> None:
    this_task = asyncio.current_task()
    assert this_task is not None
    on_unread = partial(stop_writing, this_task)
    output = JsonLines(on_unread) if as_json else View(OutputConsole(on_unread), channels)
    status = View(Console(stderr=True, highlight=False), channels).status
    log = _Log(status)
    connections = 0

    def on_connected(event: str, data: Any, channel: str | None) -> None:
        nonlocal connections
        connections += 1
        again = "again " if connections > 1 else ""
        status(f"connected {again}to {config.address}", "green")

    def on_subscribed(event: str, data: Any, channel: str | None) -> None:
        subscribed = client.channels.get(channel or "")
        if isinstance(subscribed, PresenceChannel):
            here = ", ".join(subscribed.members)
            status(f"subscribed to {channel} as {subscribed.me.get('user_id')}; here now: {here}", "green")
        else:
            status(f"subscribed to {channel}", "green")

    def on_event(event: str, data: Any, channel: str | None, user_id: str | None) -> None:
        if channel is None or event.startswith("reverb:"):
            return  # about the connection: told as status
        if event == Events.SUBSCRIPTION_SUCCEEDED and not as_json:
            return  # for people, told as status; to programs it says who is there
        output.event(event, data, channel, user_id)

    client = ReverbClient(config)
    # Bound before connecting, they miss nothing.
    client.bind(Events.CONNECTION_ESTABLISHED, on_connected)
    client.bind(Events.SUBSCRIPTION_SUCCEEDED, on_subscribed)
    client.bind("*", on_event)
    with log:
        try:
            async with client:
                await asyncio.gather(
                    *(client.subscribe(name, user_data=user if is_presence(name) else None) for name in channels)
                )
                log.tell_warnings()
                await client.listen()
        except asyncio.CancelledError:
            status(f"disconnected from {config.address}")
            raise


class _Log(logging.Handler):
    """Tells, as status, what the library logs: a lost connection, a channel that is refused after reconnecting."""

    def __init__(self, status: Callable[[str, str], None]) -> None:
        # Until we listen, what goes wrong is raised, and said then.
        super().__init__(logging.ERROR)
        self._status = status

    def tell_warnings(self) -> None:
        self.setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += f": {record.exc_info[1]!r}"
        self._status(message, "red" if record.levelno >= logging.ERROR else "yellow")

    def __enter__(self) -> None:
        logging.getLogger("reverb").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("reverb").removeHandler(self)


def _default_user() -> dict[str, Any]:
    return {"user_id": f"cli-{socket.gethostname()}-{os.getpid()}", "user_info": {}}


def _parse_user(text: str) -> dict[str, Any]:
    try:
        user = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fail(f"--presence-user is not JSON: {error}", ExitCode.USAGE) from None
    if not isinstance(user, dict) or not isinstance(user.get("user_id"), str | int):
        example = '{"user_id": "7", "user_info": {"name": "Ann"}}'
        raise fail(f"--presence-user must be an object with a user_id, such as {example}", ExitCode.USAGE)
    return user
