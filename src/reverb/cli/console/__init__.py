"""``reverb console``: show the channels and events of a server in the browser."""

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
from .access import is_loopback
from .backend import Backend, ChannelFilter
from .demo import demo_server
from .server import serving

__all__ = ["console"]


@takes_server(with_app_id=True, with_endpoint=True, is_server=True)
def console(
    given: Given,
    port: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", min=0, max=65535, help="The port of the page; 0 takes a free port. Default: 0."
        ),
    ] = 0,
    host: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The address that the page is served on. An address that other machines reach needs --expose.",
        ),
    ] = "127.0.0.1",
    expose: Annotated[
        bool,
        typer.Option(
            "--expose",
            help="Let other machines open the page, at the address --host. They need the token, too.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file with the certificate chain, to serve the page with https."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The file with the private key, if it is not in the file of --tls-cert."
        ),
    ] = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the page's address, and do not open a browser.")
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Publish nothing, trigger nothing, and join no presence channel."),
    ] = False,
    is_demo: Annotated[
        bool,
        typer.Option("--demo", help="Show a demo server inside this command, which sends an event each second."),
    ] = False,
    follow_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Subscribe to all channels that have subscribers, and to new ones as they appear. Presence "
            "channels are left out.",
        ),
    ] = False,
    prefix: Prefix = None,
    exclude: Exclude = None,
) -> None:
    """Show the channels and events of a server live in your browser.

    The page also shows the connection and the results of `reverb doctor`, and can publish and trigger events. The
    command prints the page's address and opens it in the browser. **The address has a token that lets everybody
    in: keep it secret like a password.** The application's secret stays in this process.

    The HTTP API tells the command which channels have subscribers. To try it without a server, run
    `reverb console --demo`.
    """
    if not is_loopback(host) and not expose:
        reason = "other machines can reach this address. If you want that, add --expose"
        raise fail(f"--host {host}: {reason}", ExitCode.USAGE)
    if not follow_all and (prefix, exclude) != (None, None):
        raise fail("--prefix and --exclude need --all", ExitCode.USAGE)
    if is_demo and given:
        raise fail("--demo has its own server; remove the options that name another one", ExitCode.USAGE)
    if tls_key is not None and tls_cert is None:
        raise fail("--tls-key needs --tls-cert, which names the certificate", ExitCode.USAGE)
    ssl_context = None
    if tls_cert is not None:
        try:
            ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            ssl_context.load_cert_chain(tls_cert, tls_key)
        except OSError as error:
            raise fail(f"--tls-cert or --tls-key: {error}", ExitCode.USAGE) from None
    channel_filter = ChannelFilter(prefix or "", tuple(exclude or ())) if follow_all else None
    with exit_on_error():
        config, found = (None, {}) if is_demo else _look_up(given)
        run(
            _serve(
                config, found, channel_filter, host, port, ssl_context, opens=not no_open, is_read_only=read_only
            )
        )


def _look_up(given: Given) -> tuple[ReverbConfig, Mapping[str, Found]]:
    try:
        return configure(given), look_up(ReverbConfig, given)
    except ConfigurationError as error:
        hint = "To try the console without a server: reverb console --demo"
        raise fail(f"{error}\n{hint}", ExitCode.USAGE) from None


async def _serve(
    config: ReverbConfig | None,
    found: Mapping[str, Found],
    channel_filter: ChannelFilter | None,
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
            config = await stack.enter_async_context(demo_server())
        backend = Backend(config, found, is_read_only=is_read_only, is_demo=is_demo, channel_filter=channel_filter)
        access = await stack.enter_async_context(serving(backend, host, port, ssl_context))
        if not is_loopback(host) and ssl_context is None:
            status(
                "warning: without TLS, others on the network can read the page and its token; see --tls-cert",
                "yellow",
            )
        print_lines([access.url(access.token)])
        status("open this address in a browser; press Ctrl-C to stop", "green")
        if opens and _has_display():
            url = access.url(access.token_for_once(), is_here=True)
            # webbrowser waits for some browsers until they end. In a thread that does not delay our own end.
            Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        await backend.run()


def _has_display() -> bool:
    """Return whether a browser would open a window. A browser in the terminal would hide our output."""
    return sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
