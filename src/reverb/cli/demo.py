"""``reverb demo``: show the client at work, with a server in the same process."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from .. import Events, ReverbClient, ReverbConfig, ReverbError, __version__
from ..auth import sign_request
from .process import ExitCode, complete, fail, make_cancel
from .view import OutputConsole, View, plural

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from ..server import App, ReverbServer

__all__ = ["demo"]

NEWS, ORDER, ROOM = "news", "private-orders.7", "presence-room.1"

DEADLINE = 5.0
"""Seconds in which an event has to arrive. It takes about a millisecond."""
PAUSE = 0.35
"""Seconds to read a caption or a group of events."""
BEAT = 0.15
"""Seconds between two events, so that people see them arrive one after another."""

NEXT_ENV = """\
REVERB_APP_KEY=your-app-key
REVERB_APP_SECRET=your-app-secret
REVERB_HOST=reverb.example.com"""

NEXT_PYTHON = """\
import asyncio
from reverb import ReverbClient

async def on_shipped(event, data, channel):
    print(f"{channel}: {event} -> {data}")

async def main():
    async with ReverbClient() as client:
        channel = await client.subscribe("private-orders.7")
        channel.bind("App\\\\Events\\\\OrderShipped", on_shipped)
        await client.listen()

asyncio.run(main())"""


class DemoError(Exception):
    """The demo did not work."""


def demo() -> None:
    """Show the client at work in five seconds, without a server of yours.

    The demo starts its own server on a free port of this machine. It ignores the `REVERB_…` variables and the file
    `.env`.
    """
    from aiohttp import ClientError

    try:
        complete(_demonstrate())
    except (DemoError, ReverbError, ClientError, OSError) as error:
        raise fail(f"the demo failed: {error}", ExitCode.FAILED) from None


async def _demonstrate() -> None:
    from aiohttp import ClientSession

    from ..server import App, ReverbServer

    started = time.monotonic()
    app = App(id="demo", key="demo-key", secret=secrets.token_hex(16))
    story = Story(OutputConsole(make_cancel()))
    async with ReverbServer([app]) as server, ClientSession() as http:
        story.title(f"{server.host}:{server.port}")
        # An application just writes ReverbClient(), which reads the environment. The demo must not connect to the
        # server that the environment names, so it passes a config, which reads nothing.
        config = ReverbConfig(
            host=server.host, port=server.port, scheme="ws", app_key=app.key, app_secret=app.secret
        )
        alice = ReverbClient(config)
        alice.bind("*", story.on_event)

        await story.caption(
            "Alice connects, and subscribes to a public, a private and a presence channel.",
            f'await client.subscribe("{ORDER}")',
        )
        async with alice:
            await story.arrived(None, Events.CONNECTION_ESTABLISHED)
            for channel in (NEWS, ORDER):
                await asyncio.sleep(BEAT)
                await alice.subscribe(channel)
                await story.arrived(channel, Events.SUBSCRIPTION_SUCCEEDED)
            await asyncio.sleep(BEAT)
            await alice.subscribe(ROOM, user_data={"user_id": "1", "user_info": {"name": "Alice"}})
            await story.arrived(ROOM, Events.SUBSCRIPTION_SUCCEEDED)

            await story.caption(
                "Laravel broadcasts events: it posts them to the server's HTTP API, signed.",
                "OrderShipped::dispatch($order);",
                language="php",
            )
            shipped = {"order": {"id": 7, "total": "49.90"}, "carrier": "Zoë's Vans"}
            for channels, event, data in (
                ([NEWS], r"App\Events\ArticlePublished", {"id": 12, "title": "Reverb, from Python"}),
                ([ORDER], r"App\Events\OrderShipped", shipped),
                ([NEWS, ROOM], r"App\Events\DoorsOpened", {"doors": ["north", "south"]}),
            ):
                await publish(http, server, app, channels, event, data)
                for channel in channels:
                    await story.arrived(channel, event)
                await asyncio.sleep(BEAT)

            await story.caption(
                "A second client, Bob, joins the presence channel. Its members are told.",
                f'await client.subscribe("{ROOM}", user_data={{"user_id": "2", …}})',
            )
            async with ReverbClient(config) as bob:
                room = await bob.subscribe(ROOM, user_data={"user_id": "2", "user_info": {"name": "Bob"}})
                await story.arrived(ROOM, Events.MEMBER_ADDED)

                await story.caption(
                    "Bob triggers client events: from client to client, without Laravel.",
                    'await room.trigger("message", {"text": "Hello, Alice!"})',
                )
                await room.trigger("typing", {"typing": True})
                await story.arrived(ROOM, "client-typing")
                await asyncio.sleep(BEAT)
                await room.trigger("message", {"text": "Hello, Alice!"})
                await story.arrived(ROOM, "client-message")

                await story.caption("Bob leaves.", f'await client.unsubscribe("{ROOM}")')
                await bob.unsubscribe(ROOM)
                await story.arrived(ROOM, Events.MEMBER_REMOVED)
                await asyncio.sleep(PAUSE)
    story.end(time.monotonic() - started)


async def publish(
    http: ClientSession, server: ReverbServer, app: App, channels: Sequence[str], event: str, data: Any
) -> None:
    """Publish an event to channels, as Laravel does."""
    body = json.dumps({"name": event, "channels": channels, "data": json.dumps(data)}).encode()
    path = f"/apps/{app.id}/events"
    query = sign_request(app.key, app.secret, "POST", path, {}, body, int(time.time()))
    url = f"http://{server.host}:{server.port}{path}"
    headers = {"Content-Type": "application/json"}
    async with http.post(url, params=query, data=body, headers=headers) as response:
        if response.status != 200:
            raise DemoError(f"the server answered the event {event} with HTTP status {response.status}")


class Story:
    """Prints captions and events, and remembers which events have arrived."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view = View(console, [NEWS, ORDER, ROOM], event_width=len(Events.SUBSCRIPTION_SUCCEEDED))
        new_arrival = asyncio.get_running_loop().create_future
        self._arrivals: defaultdict[tuple[str | None, str], asyncio.Future[None]] = defaultdict(new_arrival)
        self._captions = 0
        self._events = 0

    def on_event(self, event: str, data: Any, channel: str | None, user_id: str | None) -> None:
        if event.startswith("reverb:"):
            return  # from the client itself, not from the server
        self._view.event(event, data, channel, user_id)
        self._events += 1
        arrival = self._arrivals[channel, event]
        if not arrival.done():
            arrival.set_result(None)

    async def arrived(self, channel: str | None, event: str) -> None:
        """Wait until the event has arrived. Return at once if it has."""
        arrival = self._arrivals[channel, str(event)]
        await asyncio.wait(
            {arrival}, timeout=DEADLINE
        )  # before Python 3.12, wait_for() can swallow a cancellation
        if not arrival.done():
            where = "" if channel is None else f" on {channel}"
            raise DemoError(f"{event}{where} did not arrive within {plural(DEADLINE, 'second')}")

    def title(self, address: str) -> None:
        self._print(
            Text.assemble(
                (f"python-reverb {__version__}", "bold"), f", with a Reverb server of its own on {address}"
            )
        )

    async def caption(self, text: str, code: str, language: str = "python") -> None:
        """Print the caption of the next scene, and its line of code."""
        if self._captions:
            await asyncio.sleep(PAUSE)
        self._captions += 1
        self._console.print()
        self._print(Text(f"{self._captions}. {text}", "bold"))
        self._code(code, language)
        await asyncio.sleep(PAUSE / 2)

    def end(self, seconds: float) -> None:
        channels = len({channel for channel, _ in self._arrivals if channel is not None})
        self._console.print()
        done = f"Done. Every event arrived: {self._events} in {seconds:.1f} seconds, on {channels} channels."
        self._print(Text(done, "bold green"))
        self._console.print()
        self._print(Text("Next, use your own server. Set these variables, or write them into .env:"))
        self._code(NEXT_ENV, "ini")
        self._print(Text("Then listen to a channel, on the command line or in Python:"))
        self._code(f"reverb listen {ORDER}", "bash")
        self._console.print()
        self._code(NEXT_PYTHON, "python")

    def _code(self, code: str, language: str) -> None:
        syntax = Syntax(code, language, theme="ansi_dark", background_color="default")
        for line in syntax.highlight(code).split("\n"):
            self._print(Text("   ") + line if line else line)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)
