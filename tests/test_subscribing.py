"""Subscribing, leaving, coming back, and who is called: that it is as with pusher-js, or why it is not.

``vectors/subscribing.json`` is what pusher-js does; each of its scenes is played again with our client.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from reverb import ConnectionState, Events, ReverbClient

from .loops import every_loop
from .scripted import Peer, ScriptedServer
from .test_client import make_client
from .test_echo import VECTORS_DIRECTORY, made_by
from .watching import client_tasks, until

VECTORS: dict[str, Any] = json.loads((VECTORS_DIRECTORY / "subscribing.json").read_text(encoding="utf-8"))
SCENES: dict[str, Any] = VECTORS["scenes"]


def test_the_vectors_are_what_pusher_js_does() -> None:
    assert made_by("subscribing.mjs") == VECTORS


class Stage:
    """Plays a scene: the client's steps, and the server's."""

    def __init__(self, scene: dict[str, Any], client: ReverbClient, greeted: list[Peer]) -> None:
        self.wire: list[str] = []
        self.calls: list[list[Any]] = []
        self._actions: dict[str, list[Any]] = scene["handlers"]
        self._client = client
        self._greeted = greeted
        self._subscribing: list[asyncio.Task[Any]] = []
        self._handlers: dict[str, Callable[..., None]] = {}
        if scene["states"]:
            client.bind(Events.STATE_CHANGE, self._note_state)

    async def play(self, step: list[Any], expected: list[str]) -> list[str]:
        """Take a step; return what went over the wire, for which ``expected`` says how much to wait for."""
        self.wire = []
        await self._take(step)
        if step != ["disconnect"]:
            while len(self.wire) < len(expected):
                await self._read_message()
            await self._peer.send("pusher:ping")  # the answer comes behind all else that the step makes it send
            while await self._read_message() != "pusher:pong":
                pass
        return self.wire

    async def _take(self, step: list[Any]) -> None:
        match step:
            case ["connect"]:
                await self._client.connect()
            case ["disconnect"]:
                await self._client.disconnect()
            case ["subscribe", name]:
                self._subscribing.append(asyncio.ensure_future(self._client.subscribe(name)))
            case ["unsubscribe", name]:
                await self._client.unsubscribe(name)
            case ["confirm", name]:
                self.wire.append(f"< confirm {name}")
                await self._peer.confirm(name)
            case ["refuse", name]:
                self.wire.append(f"< refuse {name}")
                error = {"type": "AuthError", "error": "refused", "status": 403}
                await self._peer.send("pusher:subscription_error", error, name)
            case ["send", name, event, data]:
                self.wire.append(f"< {event} {name}")
                await self._peer.send(event, json.dumps(data), name)
            case ["drop"]:
                self.wire.append("< end")
                before = len(self._greeted)
                self._peer.reset()
                await until(lambda: len(self._greeted) > before)
            case _:
                self._bind_or_unbind(step)

    async def end(self) -> None:
        await self._client.disconnect()
        await asyncio.wait_for(asyncio.gather(*self._subscribing, return_exceptions=True), 5)

    @property
    def _peer(self) -> Peer:
        return self._greeted[-1]

    def _bind_or_unbind(self, step: list[Any]) -> None:
        what, name, event, argument = step
        target = self._client if name is None else self._client.channels[name]
        if what == "bind":
            target.bind(event, self._handler(argument))
        elif event is not None:
            target.unbind(event, None if argument is None else self._handler(argument))

    def _handler(self, argument: str) -> Callable[..., None]:
        name = argument[1:]

        def handle(event: str, data: Any, channel: str | None) -> None:
            if event.startswith(
                "pusher"
            ):  # of the protocol: for handlers of all events, and not what is looked at
                return
            self.calls.append([name, data])
            for step in self._actions.get(name, ()):
                self._bind_or_unbind(step)

        return self._handlers.setdefault(name, handle)

    def _note_state(self, event: str, data: Any, channel: str | None) -> None:
        if data["previous"] != ConnectionState.INITIALIZED:
            self.calls.append(["state", data["previous"], data["current"]])

    async def _read_message(self) -> str:
        message = await self._peer.receive()
        event: str = message["event"]
        if event == "pusher:ping":
            await self._peer.send("pusher:pong")
        elif event != "pusher:pong":
            self.wire.append(f"> {event.removeprefix('pusher:')} {message['data']['channel']}")
        return event


@every_loop
@pytest.mark.parametrize("name", SCENES)
async def test_scenes(name: str) -> None:
    scene = SCENES[name]
    expected = {what: (scene["ours"] or {}).get(what, scene[what]) for what in ("wire", "calls")}
    greeted: list[Peer] = []
    is_over = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish(f"1.{peer.number}")
        greeted.append(peer)
        await is_over.wait()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        stage = Stage(scene, make_client(server), greeted)
        for step, wire in zip(scene["steps"], expected["wire"], strict=True):
            assert await stage.play(step, wire) == wire, step
        with suppress(AssertionError):  # what is compared below says more
            await until(lambda: len(stage.calls) >= len(expected["calls"]), 2)
        assert stage.calls == expected["calls"]
        is_over.set()
        await stage.end()
    assert client_tasks() == set()


def test_what_is_ours_differs() -> None:
    for scene in SCENES.values():
        if scene["ours"]:
            assert scene["ours"].keys() > {"why"}
            assert all(scene[what] != ours for what, ours in scene["ours"].items() if what != "why")
