"""``reverb relay``: write the events of channels into an engine's stream."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from .._checks import seconds, text, whole
from .._settings import Checked, SecretStr, setting
from ..client import ReverbClient
from ..config import ReverbConfig
from ..exceptions import plural
from ..relay import Find, Relay, RelayStatus
from ..relay._engines import with_password
from .health import answer_http, describe, keep_file, read_file
from .options import Exclude, Given, Prefix, configure, parse_presence_user, takes_server
from .process import ExitCode, exit_on_error, fail, make_cancel, run
from .view import OutputConsole, View, print_json, printable

__all__ = ["relay"]

_REFRESH = 0.5
"""Seconds between updates of the status line in a terminal."""
_REPORT = {True: 1.0, False: 10.0}
"""Seconds between two status lines: as JSON for programs (True), or as text in a pipe (False)."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class RelaySettings(Checked):
    """The settings of a relay, from ``REVERB_RELAY_…`` variables."""

    relay_to: SecretStr = setting(text, is_secret=True)
    relay_password: SecretStr | None = setting(text, None, is_secret=True)
    relay_channels: str = setting(text, "")
    relay_stream: str = setting(text, "reverb")
    relay_lease: float = setting(seconds(), 5.0)
    relay_partitions: int = setting(whole(1), 1)
    relay_maxlen: int | None = setting(whole(1), None)
    relay_max_age: float | None = setting(seconds(), None)
    relay_buffer: int = setting(whole(1), 64 * 1024 * 1024)
    relay_health_file: str | None = setting(text, None)
    relay_health_port: int | None = setting(whole(0, 65535), None)


@takes_server(with_app_id=False)
def relay(
    given: Given,
    channels: Annotated[
        list[str] | None,
        typer.Argument(metavar="CHANNEL…", help="The channels to relay. Overrides REVERB_RELAY_CHANNELS."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The engine: redis://host:6379/0 (with TLS: rediss) or nats://host:4222 (with TLS: tls). "
            "Overrides REVERB_RELAY_TO. Set the password in REVERB_RELAY_PASSWORD, because all users of this "
            "machine can see it here.",
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The name of the stream. Overrides REVERB_RELAY_STREAM. Default: reverb."
        ),
    ] = None,
    lease: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Seconds after which another relay takes over from one that has failed; 0.1 to 60. Overrides "
            "REVERB_RELAY_LEASE. Default: 5.",
        ),
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Split the stream into N streams by channel, so that several workers can keep the order. "
            "Overrides REVERB_RELAY_PARTITIONS. Default: 1.",
        ),
    ] = None,
    maxlen: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Keep about N entries. Overrides REVERB_RELAY_MAXLEN. Default: all entries."
        ),
    ] = None,
    max_age: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Keep entries for about so many seconds. Overrides REVERB_RELAY_MAX_AGE. Default: forever.",
        ),
    ] = None,
    presence_user: Annotated[
        str | None,
        typer.Option(
            "--presence-user",
            metavar="JSON",
            help="The relays' member data on presence channels, which other members see: "
            """{"user_id": "relay"}. Without it, relays skip the presence channels of --all.""",
        ),
    ] = None,
    find_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Relay all channels that have subscribers, and new ones as they appear. The relay polls the HTTP "
            "API. Presence channels need --presence-user.",
        ),
    ] = False,
    prefix: Prefix = None,
    exclude: Exclude = None,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --all: seconds between two polls for channels.")
    ] = 2.0,
    decrypt: Annotated[
        bool,
        typer.Option(
            "--decrypt",
            help="Decrypt the events of encrypted channels. By default they stay encrypted in the stream.",
        ),
    ] = False,
    health_file: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Write the status into this file each second, as JSON. Overrides REVERB_RELAY_HEALTH_FILE.",
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Answer HTTP requests on this port of 127.0.0.1: /live, /health, and /metrics for Prometheus. 0 "
            "takes a free port. Overrides REVERB_RELAY_HEALTH_PORT.",
        ),
    ] = None,
    is_healthy: Annotated[
        bool,
        typer.Option(
            "--is-healthy",
            help="Relay nothing. Check the relay that writes the health file: exit with 0 if it is healthy, "
            "otherwise with 1.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the status as one JSON object per second, for programs.")
    ] = False,
) -> None:
    """Write the events of channels into a Redis or Valkey stream, or into NATS JetStream.

    Run two or three relays with the same options. One of them writes. If it fails, another one takes over.

    Ctrl-C and SIGTERM stop a relay. It first writes the events that it has, and hands over to another relay.
    """
    options: dict[str, Any] = {
        "relay_to": to,
        "relay_channels": " ".join(channels or []),
        "relay_stream": stream,
        "relay_lease": lease,
        "relay_partitions": partitions,
        "relay_maxlen": maxlen,
        "relay_max_age": max_age,
        "relay_health_file": health_file,
        "relay_health_port": health_port,
    }
    if is_healthy:
        options["relay_to"] = "-"  # required, but not used here
    with exit_on_error():
        settings = RelaySettings.from_env(
            **{name: value for name, value in options.items() if value not in (None, "")}
        )
        if is_healthy:
            _check(settings)
            return
        config = configure(given)
        names = re.split(r"[\s,]+", settings.relay_channels.strip()) if settings.relay_channels.strip() else []
        if not names and not find_all:
            raise fail("no channels: name them, set REVERB_RELAY_CHANNELS, or use --all", ExitCode.USAGE)
        if (prefix or exclude) and not find_all:
            raise fail("--prefix and --exclude need --all", ExitCode.USAGE)
        find = Find(prefix or "", tuple(exclude or ()), interval) if find_all else None
        user = None if presence_user is None else parse_presence_user(presence_user)
        run(_relay(config, settings, names, find, user, decrypt=decrypt, as_json=as_json))


def _check(settings: RelaySettings) -> None:
    if settings.relay_health_file is None:
        raise fail("--is-healthy needs --health-file or REVERB_RELAY_HEALTH_FILE", ExitCode.USAGE)
    problem = read_file(Path(settings.relay_health_file))
    if problem is not None:
        raise fail(problem, ExitCode.FAILED)


async def _relay(
    config: ReverbConfig,
    settings: RelaySettings,
    channels: list[str],
    find: Find | None,
    user: dict[str, Any] | None,
    *,
    decrypt: bool,
    as_json: bool,
) -> None:
    end = make_cancel()
    status = View(Console(stderr=True, highlight=False), ["-"]).status
    client = ReverbClient(config)
    relay = Relay(
        client,
        channels,
        to=with_password(settings.relay_to, settings.relay_password),
        stream=settings.relay_stream,
        lease=settings.relay_lease,
        partitions=settings.relay_partitions,
        maxlen=settings.relay_maxlen,
        max_age=settings.relay_max_age,
        presence_user=user,
        decrypt=decrypt,
        buffer=settings.relay_buffer,
        find=find,
    )
    logger, handler = logging.getLogger("reverb"), _Log(status)
    logger.addHandler(handler)
    try:
        async with AsyncExitStack() as stack:
            if settings.relay_health_file is not None:
                await stack.enter_async_context(keep_file(Path(settings.relay_health_file), relay))
            if settings.relay_health_port is not None:
                port = await stack.enter_async_context(answer_http(settings.relay_health_port, relay, client))
                status(f"answering on http://127.0.0.1:{port}: /live, /health, /metrics", "dim")
            await stack.enter_async_context(client)
            what = "all channels" if find is not None else plural(len(channels), "channel")
            status(f"connected to {config.address}; {what} to {relay.address}", "green")
            reporting = asyncio.create_task(_report(relay, end, as_json=as_json))
            try:
                await relay.run()
            finally:
                reporting.cancel()
                await asyncio.wait({reporting})
                done = relay.status
                status(f"ended: {done.written} written, {done.pending} left")
    finally:
        logger.removeHandler(handler)


async def _report(relay: Relay, on_broken_pipe: Callable[[], None], *, as_json: bool) -> None:
    """Print the relay's status until cancelled. Calls ``on_broken_pipe`` when nobody reads it any more."""
    output = OutputConsole(on_broken_pipe)
    if as_json or not output.is_terminal:
        before = relay.status
        while True:
            await asyncio.sleep(_REPORT[as_json])
            now = relay.status
            if as_json:
                print_json(describe(now), on_broken_pipe)
            else:
                output.print(_sentence(before, now, _REPORT[as_json]), soft_wrap=True)
            before = now
    with Live(console=output, auto_refresh=False, transient=True) as live:
        before = relay.status
        while True:
            await asyncio.sleep(_REFRESH)
            now = relay.status
            live.update(_sentence(before, now, _REFRESH), refresh=True)
            before = now


def _sentence(before: RelayStatus, now: RelayStatus, seconds: float) -> Text:
    rate = (now.received - before.received) / seconds
    style = "green" if now.role == "leader" else "cyan"
    parts: list[Any] = [(now.role, f"bold {style}"), f"  {rate:,.0f} events/s  {now.written:,} written"]
    if now.pending:
        parts.append((f"  {now.pending:,} waiting, {now.lag:.1f} s behind", "yellow"))
    if now.gaps:
        parts.append((f"  gaps {now.gaps}", "yellow"))
    if now.again:
        parts.append(f"  perhaps double {now.again}")
    if not now.is_connected:
        parts.append(("  not connected", "red"))
    elif now.missing:
        parts.append((f"  {plural(now.missing, 'channel')} not subscribed", "red"))
    for problem in filter(None, (now.problem, now.finding_problem)):
        parts.append((f"  {printable(problem)}", "red"))
    parts.append((f"  others ready: {now.others}", "dim"))
    return Text.assemble(*parts)


class _Log(logging.Handler):
    """Prints warnings of the library, and all log records of the relay, as status."""

    def __init__(self, status: Callable[[str, str], None]) -> None:
        super().__init__(logging.INFO)
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or record.name == "reverb.relay":
            style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno > logging.INFO else ""
            self._status(record.getMessage(), style)
