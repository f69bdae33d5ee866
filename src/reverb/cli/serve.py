"""``reverb serve``: run a development server."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from .._checks import flag, one_of, seconds, text, whole
from .._settings import Checked, SecretStr, setting
from ..exceptions import ConfigurationError
from ..server import App, Entry, RateLimiting, ReverbServer
from .process import ExitCode, fail, make_cancel, run
from .view import OutputConsole, View

__all__ = ["serve"]


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ServerSettings(Checked):
    """The variables of Laravel's ``config/reverb.php``, with its defaults.

    One default differs: the server listens on the loopback interface only."""

    server_host: str = setting(text, "127.0.0.1")
    server_port: int = setting(whole(0, 65535), 8080)
    server_path: str = setting(text, "")
    max_request_size: int = setting(whole(1), 10_000)
    app_id: str = setting(text, App.id)
    app_key: str = setting(text, App.key)
    app_secret: SecretStr = setting(text, SecretStr("app-secret"), is_secret=True)
    app_ping_interval: float = setting(seconds(), App.ping_interval)
    app_activity_timeout: int = setting(whole(1), App.activity_timeout)
    app_max_connections: int | None = setting(whole(0), None)
    app_max_message_size: int = setting(whole(1), App.max_message_size)
    app_accept_client_events_from: Literal["all", "members", "none"] = setting(
        one_of("all", "members", "none"), "members"
    )
    app_rate_limiting_enabled: bool = setting(flag, False)
    app_rate_limit_max_attempts: int = setting(whole(1), 60)
    app_rate_limit_decay_seconds: float = setting(seconds(), 60.0)
    app_rate_limit_terminate: bool = setting(flag, False)

    def app(self) -> App:
        return App(
            id=self.app_id,
            key=self.app_key,
            secret=self.app_secret.get_secret_value(),
            ping_interval=self.app_ping_interval,
            activity_timeout=self.app_activity_timeout,
            max_connections=self.app_max_connections,
            max_message_size=self.app_max_message_size,
            accept_client_events_from=self.app_accept_client_events_from,
            rate_limiting=RateLimiting(
                enabled=self.app_rate_limiting_enabled,
                max_attempts=self.app_rate_limit_max_attempts,
                decay_seconds=self.app_rate_limit_decay_seconds,
                terminate_on_limit=self.app_rate_limit_terminate,
            ),
        )


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The address to listen on. Overrides REVERB_SERVER_HOST. Default: 127.0.0.1, this machine only.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="The port to listen on; 0 takes a free port. Overrides REVERB_SERVER_PORT. Default: 8080.",
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            help="The path prefix before /app/ and /apps/. Overrides REVERB_SERVER_PATH. Default: none.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The application's key. Overrides REVERB_APP_KEY. Default: app-key."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file with the certificate chain, to serve wss and https."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The file with the private key, if it is not in the file of --tls-cert."
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Follow the Pusher protocol exactly where Reverb differs from it."),
    ] = False,
) -> None:
    """Run a development server that behaves like Laravel Reverb.

    It prints connections, subscriptions and events, until you press Ctrl-C.

    Laravel's `REVERB_…` variables name the application and its limits: `REVERB_APP_ID`, `REVERB_APP_KEY`,
    `REVERB_APP_SECRET`, `REVERB_APP_MAX_MESSAGE_SIZE` and so on. Set them in the environment or in the file
    `.env`. The defaults are `app-id`, `app-key` and `app-secret`.

    This server is for development and tests. In production, use Laravel Reverb.
    """
    if tls_key is not None and tls_cert is None:
        raise fail("--tls-key needs --tls-cert, which names the certificate", ExitCode.USAGE)
    given: dict[str, Any] = {"server_host": host, "server_port": port, "server_path": path, "app_key": key}
    try:
        settings = ServerSettings.from_env(**{name: value for name, value in given.items() if value is not None})
        ssl_context = None
        if tls_cert is not None:
            ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            ssl_context.load_cert_chain(tls_cert, tls_key)
    except ConfigurationError as error:
        raise fail(str(error), ExitCode.USAGE) from None
    except OSError as error:
        raise fail(f"--tls-cert or --tls-key: {error}", ExitCode.USAGE) from None
    try:
        run(_serve(settings, ssl_context, strict=strict))
    except OSError as error:
        raise fail(str(error), ExitCode.FAILED) from None


async def _serve(settings: ServerSettings, ssl_context: ssl.SSLContext | None, *, strict: bool) -> None:
    view = View(OutputConsole(make_cancel()), ["private-orders"])
    status = View(Console(stderr=True, highlight=False), ["-"]).status
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        server = ReverbServer(
            [settings.app()],
            host=settings.server_host,
            port=settings.server_port,
            path=settings.server_path,
            ssl_context=ssl_context,
            max_request_size=settings.max_request_size,
            strict=strict,
        )

    def print_entry(entry: Entry) -> None:
        if entry.event is not None:
            event = entry.event
            view.event(event.name, event.data, event.channel, _sender(event.socket_id, event.user_id))
        else:
            who = "" if entry.socket_id is None else f"{entry.socket_id}  "
            view.status(who + entry.text, "red" if entry.failed else "")

    server.watch(print_entry)
    async with server:
        for warning in caught:
            status(f"warning: {warning.message}; in production, use Laravel Reverb", "yellow")
        address = f"{server.settings['scheme']}://{server.host}:{server.port}{settings.server_path.rstrip('/')}"
        status(f"serving {address}/app/{server.app.key}, a development server; press Ctrl-C to stop", "green")
        await asyncio.Event().wait()


def _sender(socket_id: str | None, user_id: Any) -> str | None:
    """Name the sender of a client event; None for a published event."""
    if socket_id is None:
        return None
    return socket_id if user_id is None else f"{user_id} ({socket_id})"
