"""``reverb relay``: write the events of channels into a log, together with other relays."""

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
from .process import ExitCode, ends_this_task, exit_on_error, fail, run
from .view import OutputConsole, View, print_json, printable

__all__ = ["relay"]

_REFRESH = 0.5
"""Seconds between looks at the relay in a terminal."""
_REPORT = {True: 1.0, False: 10.0}
"""Seconds between lines for programs, and for people who read them later."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class RelaySettings(Checked):
    """The variables of a relay."""

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
        list[str] | None, typer.Argument(metavar="CHANNEL…", help="Instead of REVERB_RELAY_CHANNELS.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the log is: redis://host:6379/0, rediss://…, nats://host:4222, tls://…; instead of "
            "REVERB_RELAY_TO. Set REVERB_RELAY_PASSWORD instead of a password here.",
        ),
    ] = None,
    stream: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of REVERB_RELAY_STREAM (reverb).")
    ] = None,
    lease: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="When another relay takes over from one that is gone; instead of REVERB_RELAY_LEASE (5).",
        ),
    ] = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Split the log by channel, for workers that keep the order; REVERB_RELAY_PARTITIONS."
        ),
    ] = None,
    maxlen: Annotated[
        int | None, typer.Option(metavar="N", help="Keep about so many entries; REVERB_RELAY_MAXLEN (all).")
    ] = None,
    max_age: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Keep entries for about so long; REVERB_RELAY_MAX_AGE (for ever)."),
    ] = None,
    presence_user: Annotated[
        str | None,
        typer.Option(
            "--presence-user",
            metavar="JSON",
            help="""Who the relays are on presence channels, where they are seen: {"user_id": "relay"}.""",
        ),
    ] = None,
    find_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="All channels on which somebody is, by the HTTP API; presence channels only with "
            "--presence-user.",
        ),
    ] = False,
    prefix: Prefix = None,
    exclude: Exclude = None,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --all: between two looks at what is occupied.")
    ] = 2.0,
    decrypt: Annotated[
        bool, typer.Option("--decrypt", help="Write the events of encrypted channels decrypted, not as they come.")
    ] = False,
    health_file: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Keep the status in this file, as JSON; instead of REVERB_RELAY_HEALTH_FILE."
        ),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Answer on 127.0.0.1: /live, /health, and /metrics for Prometheus; 0 takes a free port; instead "
            "of REVERB_RELAY_HEALTH_PORT.",
        ),
    ] = None,
    is_healthy: Annotated[
        bool,
        typer.Option(
            "--is-healthy",
            help="Relay nothing: say whether the relay that keeps the health file works, with exit code 0 or 1.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: the status as a JSON object each second.")
    ] = False,
) -> None:
    """Write the events of channels into a Redis or Valkey stream, or into NATS JetStream.

    Run two or three of the same: one writes, and another one takes over when it is gone. Ends with SIGTERM or
    Ctrl-C, after it has written what it has and has handed over.
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
        options["relay_to"] = "-"  # not needed to ask
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
            raise fail("no channels: name them, set REVERB_RELAY_CHANNELS, or take --all", ExitCode.USAGE)
        if (prefix or exclude) and not find_all:
            raise fail("--prefix and --exclude say what --all finds; it is missing", ExitCode.USAGE)
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
    end = ends_this_task()
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


async def _report(relay: Relay, on_unread: Callable[[], None], *, as_json: bool) -> None:
    """Say how the relay is, again and again. Calls ``on_unread`` when nobody reads it any more."""
    output = OutputConsole(on_unread)
    if as_json or not output.is_terminal:
        before = relay.status
        while True:
            await asyncio.sleep(_REPORT[as_json])
            now = relay.status
            if as_json:
                print_json(describe(now), on_unread)
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
    """Tells, as status, what the library logs, and what happens to the lease."""

    def __init__(self, status: Callable[[str, str], None]) -> None:
        super().__init__(logging.INFO)
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING or record.name == "reverb.relay":
            style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno > logging.INFO else ""
            self._status(record.getMessage(), style)
