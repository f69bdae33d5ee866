"""The console's web server: the page, the login by token, and a WebSocket for each page.

- ``GET /`` and the other files of ``assets/`` are the same for everybody, and have no secrets.
- ``POST /session`` with ``{"token": "…"}``, from the fragment of the page's address, sets the cookie.
- ``GET /ws`` is the WebSocket; ``page.py`` describes its messages.

Without the cookie, the answer to all requests but the first two is 403.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec
from aiohttp import WSCloseCode, web

from ...exceptions import ConfigurationError
from .access import Access
from .backend import Backend
from .page import Page

if TYPE_CHECKING:
    import sys

    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable
    else:
        from importlib.abc import Traversable

__all__ = ["serving"]

_MAX_BODY = 4096
_MAX_MESSAGE = 4 * 1024 * 1024
"""The largest message of a page in bytes. It may hold an event to publish."""
_MAX_PAGES = 16
_HEARTBEAT = 30.0
"""Seconds between two pings to a page."""
_GOODBYE = 0.5
"""Seconds to wait until a page closes its connection."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Fixed here, because the tables of systems differ, and a browser does not run a module with another type."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Entry(msgspec.Struct):
    """The body of ``POST /session``."""

    token: str


class _Asset(msgspec.Struct, frozen=True):
    body: bytes
    type: str


class _Site:
    """Answers requests."""

    def __init__(self, access: Access, backend: Backend) -> None:
        self._access = access
        self._backend = backend
        self._assets = _load_assets()
        self._pages: dict[asyncio.Task[object], web.WebSocketResponse] = {}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=_MAX_BODY)
        app.on_response_prepare.append(self._add_headers)
        app.add_routes(
            [
                web.post("/session", self._start_session),
                web.get("/ws", self._open_websocket),
                web.get("/{path:.*}", self._send_asset),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests that do not come from our own page."""
        access, host = self._access, request.headers.get("Host", "")
        if not access.knows_host(host):
            raise web.HTTPForbidden(text="The console is not available under this host name.\n")
        is_socket = request.path == "/ws"
        if (is_socket or request.method not in ("GET", "HEAD")) and not access.knows_origin(
            request.headers.get("Origin"), host
        ):
            raise web.HTTPForbidden(text="This request does not come from the console's page.\n")
        is_open = request.path == "/session" or (not is_socket and self._asset(request) is not None)
        if not is_open and not access.knows_cookie(request.cookies.get(access.cookie_name)):
            raise web.HTTPForbidden(text="Open the address that `reverb console` printed.\n")
        return await handler(request)

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(_HEADERS)

    def _asset(self, request: web.Request) -> _Asset | None:
        return self._assets.get(request.path[1:] or "index.html")

    async def _send_asset(self, request: web.Request) -> web.Response:
        asset = self._asset(request)
        if asset is None:
            raise web.HTTPNotFound
        return web.Response(body=asset.body, content_type=asset.type, charset="utf-8")

    async def _start_session(self, request: web.Request) -> web.Response:
        try:
            token = msgspec.json.decode(await request.read(), type=_Entry).token
        except ValueError:
            raise web.HTTPBadRequest from None
        access = self._access
        if not access.accepts(token):
            raise web.HTTPForbidden(text="This is not the token that `reverb console` printed.\n")
        response = web.Response(status=204)
        response.set_cookie(
            access.cookie_name, access.cookie, httponly=True, samesite="Strict", path="/", secure=access.is_tls
        )
        return response

    async def _open_websocket(self, request: web.Request) -> web.StreamResponse:
        if len(self._pages) >= _MAX_PAGES:
            raise web.HTTPServiceUnavailable(text="Too many pages are open.\n")
        page = web.WebSocketResponse(
            heartbeat=_HEARTBEAT, max_msg_size=_MAX_MESSAGE, compress=False, timeout=_GOODBYE
        )
        task = asyncio.current_task()
        assert task is not None
        self._pages[task] = page
        try:
            await page.prepare(request)
            await Page(page, self._backend).run()
        finally:
            del self._pages[task]
            is_closed = page.close_code not in (None, WSCloseCode.ABNORMAL_CLOSURE)
            if page.prepared and not is_closed and request.transport is not None:
                request.transport.abort()  # abort() does not wait for a page that does not read
        return page

    async def close(self) -> None:
        """Close the connections to all pages, without waiting for the pages."""
        tasks = list(self._pages)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@asynccontextmanager
async def serving(
    backend: Backend, host: str, port: int, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Access]:
    """Serve pages. Raises :class:`ConfigurationError` if the server can't listen on ``host`` and ``port``."""
    try:
        listener = socket.create_server(
            ("127.0.0.1" if host == "localhost" else host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
        )
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"the console can't listen on {host}, port {port}: {error}") from None
    access = Access(host, listener.getsockname()[1], is_tls=ssl_context is not None)
    site = _Site(access, backend)
    runner = web.AppRunner(site.application(), access_log=None, shutdown_timeout=_GOODBYE)
    try:
        await runner.setup()
        await web.SockSite(runner, listener, ssl_context=ssl_context).start()
        yield access
    finally:
        await site.close()
        await runner.cleanup()
        listener.close()


def _load_assets() -> dict[str, _Asset]:
    """Read all files of the page. The server serves no other files, whatever the path."""
    found: dict[str, _Asset] = {}

    def add(place: Traversable, path: str) -> None:
        if place.is_dir():
            for each in place.iterdir():
                add(each, f"{path}/{each.name}")
        else:
            type_ = _TYPES.get(path[path.rfind(".") :], "text/plain")
            found[path[1:]] = _Asset(place.read_bytes(), type_)

    add(files(__package__) / "assets", "")
    return found
