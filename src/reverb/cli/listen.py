"""``reverb listen``: print the events of channels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from fnmatch import fnmatchcase
from math import inf
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .. import ConnectionState, Events, PresenceChannel, ReverbClient, ReverbConfig
from .._protocol import is_encrypted, is_presence
from .commands import Commands
from .options import Exclude, Given, Prefix, PresenceUser, configure, parse_presence_user, takes_server
from .process import ExitCode, complete, exit_on_error, fail, make_cancel, run
from .view import JsonLines, OutputConsole, View, plural

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["listen"]

_SLOW_CONNECT = 1.0
"""Seconds after which the command says that it is still connecting."""


@takes_server(with_app_id=True, with_endpoint=True)
def listen(
    given: Given,
    channels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHANNEL",
            help="The channels to subscribe to, such as news, private-orders.7 or presence-room.1.",
        ),
    ] = None,
    follow_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Subscribe to all channels that have subscribers, and to new ones as they appear. The command "
            "polls the HTTP API, and misses events on a new channel until it finds the channel. Presence "
            "channels need --presence-user, because their members see you.",
        ),
    ] = False,
    prefix: Prefix = None,
    exclude: Exclude = None,
    interval: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="With --all: seconds between two polls for channels. Default: 2."),
    ] = None,
    patterns: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            metavar="PATTERN",
            help=r"Print only events whose names match, such as 'order.\*' or 'App\\Events\\\*'. You can repeat "
            "this option.",
        ),
    ] = None,
    presence_user: PresenceUser = None,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after N events. Default: no limit.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Stop so many seconds after all channels are subscribed. The exit code is 5 if no event came, "
            "or fewer than --count. Default: no limit.",
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="COMMAND",
            help="Run a shell command for each event, one at a time. It reads the payload from its standard "
            "input, and has the variables REVERB_CHANNEL, REVERB_EVENT and REVERB_USER_ID. Its output goes to the "
            "standard error.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object per line, for programs: time, channel, event, data, and user_id if known.",
        ),
    ] = False,
) -> None:
    """Print the events of channels, until you press Ctrl-C.

    Events go to the standard output. Messages about the connection go to the standard error.
    """
    channels = channels or []
    if not all(channels):
        raise fail("the name of a channel is empty", ExitCode.USAGE)
    if not (channels or follow_all):
        raise fail("name a channel, or use --all", ExitCode.USAGE)
    if not follow_all and (prefix, exclude, interval) != (None, None, None):
        raise fail("--prefix, --exclude and --interval need --all", ExitCode.USAGE)
    if interval is not None and not 0 < interval < inf:
        raise fail("--interval must be more than 0 seconds", ExitCode.USAGE)
    if not all(patterns or []):
        raise fail("--event is empty; write '*' for any event", ExitCode.USAGE)
    if command is not None and not command.strip():
        raise fail("--exec is empty; name a command", ExitCode.USAGE)
    user = parse_presence_user(presence_user)

    def discover(client: ReverbClient) -> AbstractAsyncContextManager[object]:
        if not follow_all:
            return nullcontext()
        user_data = None if presence_user is None else user
        return client.discover(
            prefix=prefix or "", exclude=exclude or (), interval=interval or 2.0, user_data=user_data
        )

    with exit_on_error():
        config = configure(given)
        work = _listen(
            config, channels, user, discover, patterns or ["*"], count, timeout, command, as_json=as_json
        )
        if count is None and timeout is None:
            run(work)  # without a limit, a signal is the normal end
        else:
            complete(work)


async def _listen(
    config: ReverbConfig,
    channels: list[str],
    user: dict[str, Any],
    discover: Callable[[ReverbClient], AbstractAsyncContextManager[object]],
    patterns: list[str],
    count: int | None,
    timeout: float | None,
    command: str | None,
    *,
    as_json: bool,
) -> None:
    on_broken_pipe = make_cancel()
    output = JsonLines(on_broken_pipe) if as_json else View(OutputConsole(on_broken_pipe), channels)
    status = View(Console(stderr=True, highlight=False), channels).status
    commands = None if command is None else Commands(command, status)
    enough = asyncio.Event()
    seen = 0
    is_connected_again = is_over = False
    unwritten: OSError | None = None

    def show(event: str, data: Any, channel: str, user_id: str | None) -> None:
        nonlocal unwritten
        try:
            output.event(event, data, channel, user_id)
        except OSError as error:  # such as a full disk: raised again when the client has disconnected
            unwritten = error
            enough.set()

    def on_state_change(event: str, data: Any, channel: str | None) -> None:
        if data["current"] == ConnectionState.UNAVAILABLE:
            status(f"can't reach {config.address}; the client keeps trying", "yellow")

    has_key = config.encryption_master_key is not None or config.auth_endpoint is not None
    has_told_of_key = False

    def tell_of_key(channel: str) -> None:
        nonlocal has_told_of_key
        if is_encrypted(channel) and not (has_key or has_told_of_key):
            has_told_of_key = True
            what = "events of encrypted channels are not decrypted"
            status(f"REVERB_ENCRYPTION_MASTER_KEY is missing: {what}", "yellow")

    slow = asyncio.get_running_loop().call_later(_SLOW_CONNECT, status, f"connecting to {config.address} …", "dim")

    def on_connected(event: str, data: Any, channel: str | None) -> None:
        nonlocal is_connected_again
        slow.cancel()
        verb = "reconnected" if is_connected_again else "connected"
        is_connected_again = True
        status(f"{verb} to {config.address}", "green")

    def on_reconnected(event: str, data: Any, channel: str | None) -> None:
        gap = f"no connection for {data['downtime']:.1f} seconds"
        status(f"{gap}; events published in that time are missed", "yellow")

    def on_subscribed(event: str, data: Any, channel: str | None) -> None:
        subscribed = client.channels.get(channel or "")
        if isinstance(subscribed, PresenceChannel):
            here = ", ".join(subscribed.members)
            status(f"subscribed to {channel} as {subscribed.me.get('user_id')}; here now: {here}", "green")
        else:
            status(f"subscribed to {channel}", "green")
        tell_of_key(channel or "")

    def on_left(event: str, data: Any, channel: str | None) -> None:
        if not is_over:
            status(f"left {data['channel']}: nobody else is subscribed", "dim")

    def on_event(event: str, data: Any, channel: str | None, user_id: str | None) -> Awaitable[None] | None:
        nonlocal seen
        if channel is None or event.startswith("reverb:") or enough.is_set():
            return None  # about the connection: printed as status
        if event == Events.SUBSCRIPTION_SUCCEEDED:
            if as_json:  # it has the members of presence channels; people see these in the status
                show(event, data, channel, user_id)
            return None
        if not any(fnmatchcase(event, pattern) for pattern in patterns):
            return None
        show(event, data, channel, user_id)
        seen += 1
        if seen == count:
            enough.set()
        return None if commands is None else commands.put(event, data, channel, user_id)

    client = ReverbClient(config)
    # Bound before connecting, so that they miss no event.
    client.bind(Events.STATE_CHANGE, on_state_change)
    client.bind(Events.CONNECTION_ESTABLISHED, on_connected)
    client.bind(Events.RECONNECTED, on_reconnected)
    client.bind(Events.SUBSCRIPTION_SUCCEEDED, on_subscribed)
    client.bind(Events.CHANNEL_LEFT, on_left)
    client.bind("*", on_event)
    with _Log(status) as log:
        try:
            async with commands or nullcontext(), client:
                await asyncio.gather(
                    *(
                        client.subscribe(name, user_data=user if is_presence(name) else None, decrypt=has_key)
                        for name in channels
                    )
                )
                async with discover(client):
                    log.show_warnings()
                    try:
                        await _wait_for_the_end(client, enough, timeout)
                    finally:
                        is_over = True
        except asyncio.CancelledError:
            status(f"disconnected from {config.address}")
            raise
        finally:
            slow.cancel()
    if unwritten is not None:
        raise unwritten
    if seen < (count or 1):
        assert timeout is not None  # it is over
        wanted = "no event" if count is None else f"{seen} of {count} events"
        raise fail(f"{wanted} came within {plural(timeout, 'second')}", ExitCode.TOO_LATE)
    if commands is not None and commands.failures:
        raise fail(f"the command failed for {commands.failures} of {seen} events", ExitCode.FAILED)


async def _wait_for_the_end(client: ReverbClient, enough: asyncio.Event, timeout: float | None) -> None:
    """Wait for enough events or the timeout. Raise when the client gives the connection up."""
    ends = {asyncio.ensure_future(client.listen()), asyncio.ensure_future(enough.wait())}
    try:
        done, _ = await asyncio.wait(ends, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for end in done:
            end.result()
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


class _Log(logging.Handler):
    """Prints the library's log records as status, such as a lost connection."""

    def __init__(self, status: Callable[[str, str], None]) -> None:
        # Before listening, the same problems are raised, so that warnings would say them twice.
        super().__init__(logging.ERROR)
        self._status = status

    def show_warnings(self) -> None:
        self.setLevel(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += f": {record.exc_info[1]!r}"
        self._status(message, "red" if record.levelno >= logging.ERROR else "yellow")

    def __enter__(self) -> Self:
        logging.getLogger("reverb").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("reverb").removeHandler(self)
