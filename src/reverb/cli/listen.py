"""``reverb listen``: what happens on a server's channels, as it happens."""

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
from .process import ExitCode, complete, ends_this_task, exit_on_error, fail, run
from .view import JsonLines, OutputConsole, View, plural

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["listen"]

_PATIENCE = 1.0
"""Seconds before we say that we are still connecting."""


@takes_server(with_app_id=True, with_endpoint=True)
def listen(
    given: Given,
    channels: Annotated[
        list[str] | None,
        typer.Argument(metavar="CHANNEL", help="Such as news, private-orders.7 or presence-room.1."),
    ] = None,
    follow_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="All channels that somebody is subscribed to, as they come and go. The HTTP API is asked for "
            "them, and what is published on a new channel before that is missed. Presence channels only with "
            "--presence-user, because others see us there.",
        ),
    ] = False,
    prefix: Prefix = None,
    exclude: Exclude = None,
    interval: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="With --all: between two questions for channels; 2 by default."),
    ] = None,
    patterns: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            metavar="PATTERN",
            help=r"Only events with such a name: order.\*, 'App\\Events\\\*'. Can be given several times.",
        ),
    ] = None,
    presence_user: PresenceUser = None,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="End after N events.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Listen no longer than that. When not enough came by then (none, or less than --count), "
            "the exit code is 5.",
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="COMMAND",
            help="Run a shell command for each event, one after another: with the payload on its standard input, "
            "and REVERB_CHANNEL, REVERB_EVENT and REVERB_USER_ID set. What it prints goes to the standard error.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="For programs: one JSON object a line: time, channel, event, data, and user_id if known.",
        ),
    ] = False,
) -> None:
    """Print the events of channels, until Ctrl-C.

    Events go to the standard output, what happens to the connection goes to the standard error.
    """
    channels = channels or []
    if not all(channels):
        raise fail("the name of a channel is empty", ExitCode.USAGE)
    if not (channels or follow_all):
        raise fail("name a channel, or take --all", ExitCode.USAGE)
    if not follow_all and (prefix, exclude, interval) != (None, None, None):
        raise fail("--prefix, --exclude and --interval go with --all", ExitCode.USAGE)
    if interval is not None and not 0 < interval < inf:
        raise fail("--interval must be more than 0 seconds", ExitCode.USAGE)
    if not all(patterns or []):
        raise fail("--event is empty; * is any event", ExitCode.USAGE)
    if command is not None and not command.strip():
        raise fail("--exec is empty: no command is run", ExitCode.USAGE)
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
            run(work)  # a signal is the end that it is meant to have
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
    on_unread = ends_this_task()
    output = JsonLines(on_unread) if as_json else View(OutputConsole(on_unread), channels)
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
        except OSError as error:  # the disk is full: who listens has to know
            unwritten = error
            enough.set()

    def on_state_change(event: str, data: Any, channel: str | None) -> None:
        if data["current"] == ConnectionState.UNAVAILABLE:
            status(f"{config.address} is out of reach; still trying", "yellow")

    has_key = config.encryption_master_key is not None or config.auth_endpoint is not None
    has_told_of_key = False

    def tell_of_key(channel: str) -> None:
        nonlocal has_told_of_key
        if is_encrypted(channel) and not (has_key or has_told_of_key):
            has_told_of_key = True
            what = "events of encrypted channels are shown as they are sent, sealed"
            status(f"REVERB_ENCRYPTION_MASTER_KEY is missing: {what}", "yellow")

    slow = asyncio.get_running_loop().call_later(_PATIENCE, status, f"connecting to {config.address} …", "dim")

    def on_connected(event: str, data: Any, channel: str | None) -> None:
        nonlocal is_connected_again
        slow.cancel()
        again = "again " if is_connected_again else ""
        is_connected_again = True
        status(f"connected {again}to {config.address}", "green")

    def on_reconnected(event: str, data: Any, channel: str | None) -> None:
        away = f"back after {data['downtime']:.1f} seconds"
        status(f"{away}; what was published meanwhile does not come any more", "yellow")

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
            return None  # about the connection: told as status
        if event == Events.SUBSCRIPTION_SUCCEEDED:
            if as_json:  # for people, told as status; to programs it says who is there
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
    # Bound before connecting, they miss nothing.
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
                    log.tell_warnings()
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
    """Wait for enough events or the end of the time; raise when the connection is lost for good."""
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

    def __enter__(self) -> Self:
        logging.getLogger("reverb").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("reverb").removeHandler(self)
