"""Uses the package where nothing is installed but what it needs itself: ``make bare``.

This is a program, because pytest is not installed there. The client listens, ``SyncReverbAPI`` publishes, and what
needs an extra says which.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import reverb
from reverb import EncryptedChannel, ReverbAPI, ReverbClient, ReverbError, SyncReverbAPI
from reverb.server import ReverbServer

EXTRAS = {"aiohttp", "PyNaCl", "typer", "rich", "prometheus-client", "opentelemetry-api", "redis", "nats-py"}


async def listen_and_publish() -> None:
    async with ReverbServer() as server:
        settings: dict[str, Any] = {"host": server.host, "port": server.port, "scheme": "ws"}
        app: dict[str, Any] = {"app_id": "app-id", "app_key": "app-key", "app_secret": "app-secret"}
        async with ReverbClient(**settings, **app) as client:
            orders = await client.subscribe("private-orders")
            async with orders.events("shipped") as events:
                with SyncReverbAPI(**settings, **app) as api:
                    await asyncio.to_thread(api.trigger, "private-orders", "shipped", {"id": 7})
                event = await asyncio.wait_for(anext(aiter(events)), 10)
            assert (event.name, event.data) == ("shipped", {"id": 7})
            says_which("encryption", await outcome(client.subscribe("private-encrypted-orders")))
        says_which("http", await outcome(ReverbAPI(**settings, **app).trigger("orders", "shipped", {})))


async def outcome(work: object) -> str:
    try:
        await work  # type: ignore[misc]
    except (ImportError, ReverbError) as error:
        return str(error)
    return "it works"


def says_which(extra: str, message: str) -> None:
    assert f'pip install "python-reverb[{extra}]"' in message, message


def main() -> None:
    present = {each.metadata["Name"] for each in metadata.distributions()}
    assert not present & EXTRAS, f"this is not bare: {present & EXTRAS}"
    for name in reverb.__all__:
        getattr(reverb, name)
    assert EncryptedChannel.__doc__
    for module in ("asgi", "auth", "crypto", "echo", "opentelemetry", "prometheus", "relay", "webhooks"):
        importlib.import_module(f"reverb.{module}")
    asyncio.run(listen_and_publish())
    command = Path(sys.executable).with_name("reverb")
    done = subprocess.run([command, "listen", "news"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    says_which("cli", done.stderr)
    print(f"python-reverb {reverb.__version__} works without extras, beside {', '.join(sorted(present))}")


if __name__ == "__main__":
    main()
