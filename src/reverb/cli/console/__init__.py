"""``reverb console``: what happens on a server, in the browser."""

from __future__ import annotations

import os
import ssl
import sys
import webbrowser
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Thread
from typing import Annotated

import typer
from rich.console import Console

from ... import ReverbConfig
from ..._settings import Found, look_up
from ...exceptions import ConfigurationError
from ..options import Exclude, Given, Prefix, configure, takes_server
from ..output import print_lines
from ..process import ExitCode, exit_on_error, fail, run
from ..view import View
from .demo import demonstrating
from .desk import Desk, Everything
from .gate import is_loopback
from .server import serving

__all__ = ["console"]


@takes_server(with_app_id=True, with_endpoint=True, is_server=True)
def console(
    given: Given,
    port: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, max=65535, help="Of the page; by default a free one.")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where the page is served. All but this machine's own needs --expose."),
    ] = "127.0.0.1",
    expose: Annotated[
        bool,
        typer.Option(
            "--expose", help="Serve the page to other machines, at --host. The token is needed there, too."
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain, to serve the page with https.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its private key, if that is a file of its own.")
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address only; open no browser.")] = False,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Publish nothing, trigger nothing, and join no presence channel."),
    ] = False,
    is_demo: Annotated[
        bool, typer.Option("--demo", help="Show a server that runs here, and where something happens each second.")
    ] = False,
    follow_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Follow all channels that somebody is subscribed to, as they come and go; none of presence.",
        ),
    ] = False,
    prefix: Prefix = None,
    exclude: Exclude = None,
) -> None:
    """Show in the browser what happens on a server, as it happens.

    The page shows the connection, the channels, their events and what `reverb doctor` finds; it publishes and
    triggers events, too. It is opened in the browser, and its address is printed. The token in that address lets
    in whoever has it: treat it like a password. The secret stays in this process.

    Channels are found over the HTTP API. Without a server, see `reverb console --demo`.
    """
    if not is_loopback(host) and not expose:
        reason = "others could connect there. Add --expose if that is what you want"
        raise fail(f"--host {host} is not this machine alone: {reason}", ExitCode.USAGE)
    if not follow_all and (prefix, exclude) != (None, None):
        raise fail("--prefix and --exclude go with --all", ExitCode.USAGE)
    if is_demo and given:
        raise fail("--demo brings a server of its own: leave out the options that name one", ExitCode.USAGE)
    if tls_key is not None and tls_cert is None:
        raise fail("--tls-key is the key of a certificate, which --tls-cert has to name", ExitCode.USAGE)
    ssl_context = None
    if tls_cert is not None:
        try:
            ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            ssl_context.load_cert_chain(tls_cert, tls_key)
        except OSError as error:
            raise fail(f"--tls-cert or --tls-key: {error}", ExitCode.USAGE) from None
    everything = Everything(prefix or "", tuple(exclude or ())) if follow_all else None
    with exit_on_error():
        config, found = (None, {}) if is_demo else _look_up(given)
        run(_serve(config, found, everything, host, port, ssl_context, opens=not no_open, is_read_only=read_only))


def _look_up(given: Given) -> tuple[ReverbConfig, Mapping[str, Found]]:
    try:
        return configure(given), look_up(ReverbConfig, given)
    except ConfigurationError as error:
        hint = "To look at the console without a server: reverb console --demo"
        raise fail(f"{error}\n{hint}", ExitCode.USAGE) from None


async def _serve(
    config: ReverbConfig | None,
    found: Mapping[str, Found],
    everything: Everything | None,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    *,
    opens: bool,
    is_read_only: bool,
) -> None:
    status = View(Console(stderr=True, highlight=False), ()).status
    async with AsyncExitStack() as stack:
        is_demo = config is None
        if config is None:
            config = await stack.enter_async_context(demonstrating())
        desk = Desk(config, found, is_read_only=is_read_only, is_demo=is_demo, everything=everything)
        gate = await stack.enter_async_context(serving(desk, host, port, ssl_context))
        if not is_loopback(host) and ssl_context is None:
            status(
                "warning: without TLS, others on the network can read what the page shows, and its token", "yellow"
            )
        print_lines([gate.url(gate.token)])
        status("open this address in a browser; Ctrl-C ends the console", "green")
        if opens and _has_display():
            url = gate.url(gate.token_for_once(), is_here=True)
            # Some browsers are waited for until they end, which must not hold up our own end.
            Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        await desk.run()


def _has_display() -> bool:
    """Whether a browser would open a window. In a terminal it would take that from us."""
    return sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
