"""How a relay reports its health: in a file, or over HTTP on the loopback interface."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import time
from typing import Any

import msgspec
from aiohttp import web

from ..client import ReverbClient
from ..exceptions import ConfigurationError, ReverbError
from ..relay import Relay, RelayStatus

__all__ = ["FRESH", "answer_http", "describe", "keep_file", "read_file"]

log = logging.getLogger("reverb.relay")

FRESH = 10.0
"""Age of the health file in seconds from which the relay counts as hanging or ended."""
_INTERVAL = 1.0


@asynccontextmanager
async def keep_file(path: Path, relay: Relay) -> AsyncIterator[None]:
    """Write the status into a file each second, as JSON, and remove the file at the end.

    The file is replaced as a whole, so that readers never see a part of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")

    def write() -> None:
        draft.write_bytes(_json(relay.status))
        draft.replace(path)

    async def keep() -> None:
        failure: str | None = None
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                write()
                failure = None
            except OSError as error:  # the relay goes on when the disk is full
                if failure is None:
                    log.warning("can't write the health file: %s", error)
                failure = str(error)

    try:
        write()
    except OSError as error:
        raise ConfigurationError(f"can't write the health file: {error}") from None
    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        for file in (path, draft):
            with suppress(OSError):
                file.unlink()


def read_file(path: Path) -> str | None:
    """Return the problem of the relay that writes this file, or None if the relay is healthy."""
    try:
        status = msgspec.json.decode(path.read_bytes())
        age = time() - status["time"]
        is_healthy, problem = status["is_healthy"], status["problem"] or status["finding_problem"]
    except FileNotFoundError:
        return f"no relay is running: there is no file {path}"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{path} is not a health file: {error}"
    if age > FRESH:
        return f"the relay hangs or has ended: {path} is {age:.0f} seconds old"
    if is_healthy:
        return None
    return str(problem or "the relay is not connected to the server")


@asynccontextmanager
async def answer_http(port: int, relay: Relay, client: ReverbClient) -> AsyncIterator[int]:
    """Answer HTTP requests on 127.0.0.1.

    ``/live``: 200 while the process answers. ``/health``: 200 if the relay is healthy, otherwise 503.
    ``/metrics``: the metrics for Prometheus."""

    async def live(request: web.Request) -> web.Response:
        return _response(relay.status, 200)

    async def health(request: web.Request) -> web.Response:
        status = relay.status
        return _response(status, 200 if status.is_healthy else 503)

    app = web.Application()
    app.add_routes(
        [web.get("/live", live), web.get("/health", health), web.get("/metrics", _metrics(relay, client))]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError as error:
            raise ConfigurationError(f"--health-port: can't use port {port}: {error.strerror}") from None
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _metrics(relay: Relay, client: ReverbClient) -> Callable[[web.Request], Awaitable[web.Response]]:
    try:
        from prometheus_client import CollectorRegistry, generate_latest

        from ..prometheus import RelayCollector, ReverbCollector

        registry = CollectorRegistry()
        registry.register(RelayCollector(relay))
        registry.register(ReverbCollector({"relay": client}))
    except (ImportError, ReverbError):
        registry = None

    async def metrics(request: web.Request) -> web.Response:
        if registry is None:
            raise web.HTTPNotImplemented(
                text='/metrics needs prometheus_client: pip install "python-reverb[prometheus]"\n'
            )
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    return metrics


def _response(status: RelayStatus, code: int) -> web.Response:
    return web.Response(status=code, body=_json(status), content_type="application/json")


def describe(status: RelayStatus) -> dict[str, Any]:
    """Return the status for programs, with the current time and ``is_healthy``."""
    return {"time": time(), "is_healthy": status.is_healthy, **msgspec.to_builtins(status)}


def _json(status: RelayStatus) -> bytes:
    return msgspec.json.encode(describe(status)) + b"\n"
