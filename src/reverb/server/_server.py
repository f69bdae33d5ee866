"""The server itself: it listens, looks after silent connections, and stops without leaving anything behind."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

from aiohttp import web

from . import _http, _websocket
from ._app import App
from ._channels import Channels


class ReverbServer:
    """Serves applications on ``ws://{host}:{port}{path}/app/{key}`` and the HTTP API below ``{path}/apps/{id}``.

    It is not meant for the open network, so ``host`` must be a loopback address. With ``port`` 0 the system picks
    a free one, which ``port`` tells once the server runs and which it keeps when started again. ``path`` is a
    prefix such as ``/ws`` (Reverb's ``REVERB_SERVER_PATH``). With an ``ssl_context``, wss and https are spoken.
    ``tick`` is the time in seconds between two looks for silent connections.
    """

    host: str
    port: int

    def __init__(
        self,
        apps: Sequence[App] = (App(),),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "",
        ssl_context: ssl.SSLContext | None = None,
        tick: float = 60.0,
    ) -> None:
        # The name may stand for two addresses, and port 0 for a different port on each.
        self.host = "127.0.0.1" if host == "localhost" else host
        if not _is_loopback(self.host):
            raise ValueError(f"host must be a loopback address such as 127.0.0.1, not {host!r}")
        self.port = port
        self._path = f"/{path.strip('/')}" if path.strip("/") else ""
        self._ssl_context = ssl_context
        self._tick = tick
        self._channels = [Channels(app) for app in apps]
        self._runner: web.AppRunner | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listen; raise OSError if the port is taken."""
        if self._runner is not None:
            raise RuntimeError("the server has been started already")
        application = self._routes()
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

        async def abort_connections(_: web.Application) -> None:
            # Closing them would wait for clients that do not read, or that do not answer the end of TLS.
            for connection in runner.server.connections if runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()

        application.on_shutdown.append(abort_connections)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port, ssl_context=self._ssl_context).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]
        self._schedule_look()

    async def stop(self) -> None:
        """End every connection in bare TCP EOF, as Reverb does, and stop listening."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        await runner.cleanup()

    async def __aenter__(self) -> ReverbServer:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _routes(self) -> web.Application:
        application = web.Application(middlewares=[_http.answer_as_reverb])
        router = application.router
        router.add_get(f"{self._path}/up", _http.up, allow_head=False)
        router.add_get(f"{self._path}/app/{{key:[^/]+}}", self._serve_websocket, allow_head=False)
        for method, path, answer in _http.ROUTES:
            router.add_route(method, f"{self._path}/apps/{{app_id:[^/]+}}{path}", self._api(answer))
        return application

    async def _serve_websocket(self, request: web.Request) -> web.StreamResponse:
        if "Upgrade" not in request.headers:
            raise _http.RequestError(500)
        key = request.match_info["key"]
        channels = next((each for each in self._channels if each.app.key == key), None)
        return await _websocket.serve(request, channels)

    def _api(
        self, answer: Callable[[_http.Call], web.Response]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            app_id = request.match_info["app_id"]
            channels = next((each for each in self._channels if each.app.id == app_id), None)
            return answer(await _http.check(request, channels, self._path))

        return handle

    def _schedule_look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick, self._look)

    def _look(self) -> None:
        self._schedule_look()
        for channels in self._channels:
            for subscriber in channels.subscribers():
                subscriber.look()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
