"""A console in the test's own process, and pages that talk with it as the page in a browser does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, CookieJar, WSMsgType

from reverb import ReverbConfig
from reverb._settings import look_up
from reverb.cli.console.access import Access
from reverb.cli.console.backend import Backend
from reverb.cli.console.server import serving

DEADLINE = 15.0
"""Seconds for whatever a test waits for."""

Frame = dict[str, Any]


class Page:
    """Sends requests, and collects what arrives."""

    def __init__(self, socket: ClientWebSocketResponse[Any]) -> None:
        self.socket = socket
        self.frames: list[Frame] = []
        self._numbers = count(1)
        self._changed = asyncio.Event()

    @property
    def entries(self) -> list[Frame]:
        """The events, and the gaps among them."""
        found: list[Frame] = []
        for frame in self.frames:
            if frame.get("type") == "gap":
                found.append(frame)
            elif frame.get("type") == "events":
                found += frame["events"]
        return found

    async def ask(self, do: str, **fields: Any) -> Frame:
        """Send a request; return the answer."""
        number = next(self._numbers)
        await self.socket.send_str(json.dumps({"id": number, "do": do, **fields}))
        return await self.expect(lambda frame: frame.get("re") == number)

    async def result(self, do: str, **fields: Any) -> Any:
        answer = await self.ask(do, **fields)
        assert answer["ok"], answer
        return answer["result"]

    async def error(self, do: str, **fields: Any) -> str:
        answer = await self.ask(do, **fields)
        assert not answer["ok"], answer
        return str(answer["error"])

    async def expect(self, fits: str | Callable[[Frame], bool], after: int = 0) -> Frame:
        """Wait for a frame of a type, or one that fits, behind the first ``after`` frames."""
        wanted = (lambda frame: frame.get("type") == fits) if isinstance(fits, str) else fits
        await self.until(lambda: any(map(wanted, self.frames[after:])))
        return next(filter(wanted, self.frames[after:]))

    async def channel(self, name: str, **fields: Any) -> Frame:
        """Wait until a channel is listed with these fields; return it."""

        def find() -> Frame | None:
            lists = [frame["channels"] for frame in self.frames if frame.get("type") == "channels"]
            listed: list[Frame] = lists[-1] if lists else []
            return next((each for each in listed if each.items() >= {"name": name, **fields}.items()), None)

        await self.until(lambda: find() is not None)
        found = find()
        assert found is not None
        return found

    async def until(self, is_so: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

        try:
            await asyncio.wait_for(wait(), DEADLINE)
        except asyncio.TimeoutError:
            raise AssertionError(f"this did not come in time; the last frames: {self.frames[-5:]}") from None

    async def read(self) -> None:
        async for message in self.socket:
            assert message.type is WSMsgType.TEXT
            self.frames.append(json.loads(message.data))
            self._changed.set()


class Visitor:
    """A browser."""

    def __init__(self, session: ClientSession, access: Access) -> None:
        self.session = session
        self.access = access
        self.url, _, self.token = access.url(access.token).partition("/#")
        self.origin = {"Origin": self.url}

    async def come_in(self, token: str | None = None) -> int:
        """Exchange the token for a cookie; return the status."""
        body = {"token": self.token if token is None else token}
        async with self.session.post(f"{self.url}/session", json=body, headers=self.origin) as response:
            return response.status

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        async with self.session.ws_connect(f"{self.url}/ws", headers=self.origin) as socket:
            page = Page(socket)
            reading = asyncio.create_task(page.read())
            try:
                await page.expect("hello")
                yield page
            finally:
                reading.cancel()
                await asyncio.wait({reading})


@asynccontextmanager
async def console(
    config: ReverbConfig, settings: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Visitor]:
    """Run a console; give somebody who has the token, and has not come in yet."""
    backend = Backend(config, look_up(ReverbConfig, settings or {}), **{"poll_interval": 0.1, **options})
    async with (
        serving(backend, "127.0.0.1", 0) as access,
        ClientSession(cookie_jar=CookieJar(unsafe=True)) as session,
    ):
        running = asyncio.create_task(backend.run())
        try:
            yield Visitor(session, access)
        finally:
            running.cancel()
            await asyncio.wait({running})
