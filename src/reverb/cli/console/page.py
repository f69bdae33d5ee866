"""The protocol between the console and an open page.

The WebSocket ``/ws`` carries text frames. Each frame is one JSON object.

The page sends requests such as ``{"id": 7, "do": "follow", …}``. The console answers each request, not always in
order: ``{"re": 7, "ok": true, "result": …}`` or ``{"re": 7, "ok": false, "error": "…"}``. The answer to a frame
that
is not a request has ``"re": null``. The requests, and their results:

- ``follow {channels, presence: false}``: subscribe. Presence channels need ``"presence": true``. Result:
  ``{"followed"}``.
- ``unfollow {channels}``: unsubscribe. Result: ``{"followed"}``.
- ``follow_all {on, prefix: "", exclude: []}``: follow all occupied channels except presence channels, or stop
  that.
- ``members {channel}``: list the users on a presence channel, without joining it. Result: ``{"users"}``, a list of
  ids.
- ``publish {channels, event, data, to_others: false}``: publish over the HTTP API. ``data`` is a JSON text, sent
  unchanged. ``to_others`` excludes this console's own connection.
- ``trigger {channel, event, data}``: send a client event on a channel that is followed.
- ``doctor {}``: send the lines of ``reverb doctor --json`` as frames of the type ``finding``. Result:
  ``{"failed"}``, the names of the steps that failed.
- ``events {before, count}``: read entries of the log before the number ``before``. Result: ``{"events", "first"}``
  with at most ``count`` entries, fewer if they are large. Gaps among them have ``"type": "gap"``. ``first`` is the
  number of the oldest entry in the log.

The console also sends these frames:

- ``hello {server, application, version, read_only, is_demo, has_secret, log: {first, last}, followed}``, with the
  fields of ``state``: once, as the first frame. Events with numbers after ``log.last`` follow by themselves. The
  request ``events`` reads earlier ones. Without ``has_secret`` there is no HTTP API: the console finds no channels
  and no members, and can't publish.
- ``state {state, socket_id, round_trip, reconnects, problem, follow_all}``: each time a field changes. The round
  trip is in seconds. ``problem`` is a text, or null while connected. ``follow_all`` is ``{prefix, exclude}`` or
  null.
  - ``channels {channels: […], total}``: each time the list changes, and once after ``hello``. A channel is
    ``{name, kind, is_cache, subscriptions, users, followed, is_subscribed, is_ours_only}``. ``kind`` is public,
    private, presence or encrypted. Counts do not include this console; they are null if the server does not have
    them. A channel that is followed and not subscribed is not confirmed yet, or was refused; a notice tells that.
    The client tries it again at the next reconnect. ``total`` counts all channels; the list may have fewer.
- ``events {events: [{n, time, channel, event, user_id, size, data, sealed}]}`` and
  ``gap {n, time, channel, downtime}``: in the order of their numbers. ``time`` is in milliseconds since 1970,
  ``size`` in bytes, ``downtime`` in seconds. ``data`` is the JSON text as received. ``sealed`` tells that it is
  encrypted.
- ``dropped {count}``: so many entries before the next one are missing on this page. The log no longer has them.
- ``finding {step, ok, seconds, detail, causes, settings?}``: a step of the ``doctor`` that this page requested.
- ``notice {level, text}``: a message for the user. The level is info, warning or error.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from aiohttp import WSMsgType

from ...exceptions import ReverbError
from .backend import Backend, ChannelFilter, RefusedError

if TYPE_CHECKING:
    from aiohttp.web import WebSocketResponse

__all__ = ["Page"]

log = logging.getLogger("reverb.console")

_BATCH_INTERVAL = 0.05
"""Seconds between two frames of events."""
_MAX_ENTRIES = 1_000
_MAX_BYTES = 512 * 1024
"""The largest size of the entries in one frame or answer."""
_MAX_REQUESTS = 8
"""The number of requests that a page may have at the same time. Further requests wait in the socket."""
_MAX_NOTICES = 50
"""The number of notices that wait for a page. If there are more, the oldest are dropped."""

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
_Names = Annotated[list[_Text], msgspec.Meta(min_length=1, max_length=1_000)]


class _Request(msgspec.Struct, tag_field="do", forbid_unknown_fields=True):
    id: int

    async def carry_out(self, backend: Backend, page: Page) -> Any:
        raise NotImplementedError


class _Follow(_Request, tag="follow"):
    channels: _Names
    presence: bool = False

    async def carry_out(self, backend: Backend, page: Page) -> Any:
        return await backend.follow(self.channels, with_presence=self.presence)


class _Unfollow(_Request, tag="unfollow"):
    channels: _Names

    async def carry_out(self, backend: Backend, page: Page) -> Any:
        return await backend.unfollow(self.channels)


class _FollowAll(_Request, tag="follow_all"):
    on: bool
    prefix: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    exclude: Annotated[Sequence[_Text], msgspec.Meta(max_length=100)] = ()

    async def carry_out(self, backend: Backend, page: Page) -> Any:
        return await backend.follow_all(ChannelFilter(self.prefix, self.exclude) if self.on else None)


class _Members(_Request, tag="members"):
    channel: _Text

    async def carry_out(self, backend: Backend, page: Page) -> Any:
        return await backend.members(self.channel)


class _Publish(_Request, tag="publish"):
    channels: _Names
    event: _Text
    data: str
    to_others: bool = False

    async def carry_out(self, backend: Backend, page: Page) -> Any:
        return await backend.publish(self.channels, self.event, self.data, to_others=self.to_others)


class _Trigger(_Request, tag="trigger"):
    channel: _Text
    event: _Text
    data: str

    async def carry_out(self, backend: Backend, page: Page) -> Any:
        return await backend.trigger(self.channel, self.event, self.data)


class _Doctor(_Request, tag="doctor"):
    async def carry_out(self, backend: Backend, page: Page) -> Any:
        return await backend.examine(page.put)


class _Events(_Request, tag="events"):
    before: int
    count: Annotated[int, msgspec.Meta(ge=1)]

    async def carry_out(self, backend: Backend, page: Page) -> Any:
        found = backend.log.before(self.before, min(self.count, _MAX_ENTRIES), _MAX_BYTES)
        return {"events": [msgspec.Raw(each) for each in found], "first": backend.log.first}


_decode = msgspec.json.Decoder(
    _Follow | _Unfollow | _FollowAll | _Members | _Publish | _Trigger | _Doctor | _Events
).decode


class _Identified(msgspec.Struct):
    """The part of a request that the answer needs."""

    id: int


class Page:
    """Serves a page over its WebSocket until the WebSocket closes.

    A page that does not read delays nothing else. Frames that wait for it are bounded, and events wait in the log.
    """

    def __init__(self, socket: WebSocketResponse, backend: Backend) -> None:
        self._socket = socket
        self._backend = backend
        self._room = asyncio.Semaphore(_MAX_REQUESTS)
        self._answering: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._frames: deque[tuple[bytes, bool]] = deque()
        """Frames to send; True for answers. The number of requests at a time bounds them."""
        self._notices: deque[bytes] = deque(maxlen=_MAX_NOTICES)
        self._shown: list[bytes] = [b"", b""]
        """The frames ``state`` and ``channels`` that the page has."""
        self._last = backend.log.last
        """The number of the last entry that the page has."""
        self._may_batch = True

    async def run(self) -> None:
        """Serve the page until it is closed, or can't be written to."""
        await self._backend.enter(self)
        self.put(msgspec.json.encode(self._backend.hello()))
        self._shown[0] = self._backend.state
        self.wake()
        both = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._backend.leave(self)
            tasks = [*both, *self._answering]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- for the backend -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        self._changed.set()

    def notice(self, frame: bytes) -> None:
        self._notices.append(frame)
        self.wake()

    def put(self, frame: bytes) -> None:
        """Queue a frame to send."""
        self._frames.append((frame, False))
        self.wake()

    # --- in and out --------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                return
            await self._room.acquire()
            task = asyncio.create_task(self._answer(message.data))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, text: str) -> None:
        answer = await self._carry_out(text)
        self._frames.append((msgspec.json.encode(answer), True))
        self.wake()

    async def _carry_out(self, text: str) -> dict[str, Any]:
        number = None
        try:
            number = msgspec.json.decode(text, type=_Identified).id
            request = _decode(text)
        except (ValueError, RecursionError) as error:
            return {"re": number, "ok": False, "error": f"this is not a valid request: {error}"}
        try:
            result = await request.carry_out(self._backend, self)
        except (RefusedError, ReverbError) as error:
            return {"re": number, "ok": False, "error": str(error)}
        except Exception as error:
            log.exception("internal error in the answer to a page")
            return {"re": number, "ok": False, "error": f"internal error: {error!r}"}
        return {"re": number, "ok": True, "result": result}

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._write_frames()
            if self._may_batch and self._backend.log.last != self._last:
                self._may_batch = False
                loop.call_later(_BATCH_INTERVAL, self._allow_batch)
                await self._write_batch()

    def _allow_batch(self) -> None:
        self._may_batch = True
        self.wake()

    async def _write_frames(self) -> None:
        while self._frames:
            frame, is_answer = self._frames.popleft()
            await self._send(frame)
            if is_answer:
                self._room.release()
        while self._notices:
            await self._send(self._notices.popleft())
        for number, frame in enumerate((self._backend.state, self._backend.channels)):
            if self._shown[number] is not frame:
                self._shown[number] = frame
                await self._send(frame)

    async def _write_batch(self) -> None:
        dropped, frames, last = self._backend.log.after(self._last, _MAX_ENTRIES, _MAX_BYTES)
        self._last = last
        if dropped:
            await self._send(msgspec.json.encode({"type": "dropped", "count": dropped}))
        for frame in frames:
            await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        await self._socket.send_frame(frame, WSMsgType.TEXT)
