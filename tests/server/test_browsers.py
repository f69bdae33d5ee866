"""The clients that browsers have, pusher-js and Laravel Echo, live their ordinary life on our server."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reverb.crypto import derive_shared_secret, encrypt
from reverb.server import ReverbServer
from tests.cli.processes import reverb
from tests.integration.servers import Target
from tests.missing import pusher_js
from tests.node import CACHE

MASTER_KEY = b"master key of the application!!!"
DEADLINE = 15.0


class Served(NamedTuple):
    target: Target
    restart: Callable[[], Awaitable[None]]


@pytest.fixture(params=["reverb serve", "ReverbServer"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    """A server that can be started anew on its port: as a process, and in this one."""
    async with AsyncExitStack() as stack:
        if request.param == "ReverbServer":
            server = await stack.enter_async_context(ReverbServer())
            yield Served(Target("embedded", server.host, server.port), server.restart)
            return

        async def start(port: str) -> Any:
            command = await stack.enter_async_context(reverb("serve", "--port", port, cwd=tmp_path))
            return command, await command.err.expect(r"serving ws://127\.0\.0\.1:(\d+)/app/app-key")

        command, match = await start("0")

        async def restart() -> None:
            nonlocal command
            command.send_signal(signal.SIGTERM)
            assert await command.exit_code() == 0
            command, _ = await start(match[1])

        yield Served(Target("embedded", "127.0.0.1", int(match[1])), restart)


class Page:
    """A program on Node, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._said: list[Any] = []

    async def says(self, *wanted: tuple[str, str, Any]) -> None:
        """Wait until it has said all this, in whatever order, since it was last asked."""
        missing = [list(each) for each in wanted]
        while missing:
            assert self.process.stdout is not None
            try:
                line = await asyncio.wait_for(self.process.stdout.readline(), DEADLINE)
            except asyncio.TimeoutError:
                line = b""
            assert line, f"{missing} was not said, but {self._said}"
            self._said.append(json.loads(line))
            if self._said[-1] in missing:
                missing.remove(self._said[-1])

    def told(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())


@pytest.fixture(params=["pusher", "echo"])
async def page(request: pytest.FixtureRequest, served: Served) -> AsyncIterator[Page]:
    node, _ = pusher_js()
    script = Path(__file__).with_name("life.cjs")
    arguments = [str(CACHE / "pusher_js"), request.param, served.target.host, str(served.target.port)]
    process = await asyncio.create_subprocess_exec(
        node, str(script), *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Page(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


SUBSCRIBED = [
    ("alice", "subscribed", "news"),
    ("alice", "subscribed", "private-orders.7"),
    ("alice", "subscribed", "private-encrypted-secrets"),
    ("alice", "here", ["alice"]),
]


async def test_ordinary_life(page: Page, served: Served) -> None:
    await page.says(("alice", "connected", None), ("bob", "connected", None), *SUBSCRIBED)
    await publish_everywhere(page, served.target, {"id": 1, "carrier": "Zoë's /Vans"})

    page.told("join")
    await page.says(("alice", "joining", "bob"), ("alice", "whisper", [{"typing": True}, "bob"]))
    page.told("leave")
    await page.says(("alice", "leaving", "bob"))

    await served.restart()
    await page.says(("alice", "connected", None), ("bob", "connected", None), *SUBSCRIBED)
    await publish_everywhere(page, served.target, {"id": 2})


async def publish_everywhere(page: Page, target: Target, data: Any) -> None:
    secrets = "private-encrypted-secrets"
    await target.publish(["news", "private-orders.7"], "shipped", data)
    await target.publish(secrets, "shipped", encrypt(json.dumps(data), derive_shared_secret(secrets, MASTER_KEY)))
    await page.says(*(("alice", name, data) for name in ("news", "private-orders.7", secrets)))
