"""A page that is open: what it asks for, what it is answered, and what it is told without asking.

The WebSocket ``/ws`` carries text frames, one JSON object each.

The page sends requests, ``{"id": 7, "do": "follow", …}``, and each is answered, not always in order:
``{"re": 7, "ok": true, "result": …}`` or ``{"re": 7, "ok": false, "error": "…"}``. What is no request at all is
answered with ``"re": null``. These are the requests:

- ``follow {channels, presence: false}``: subscribe. Presence channels only with ``presence``. ``{"followed"}``.
- ``unfollow {channels}``: leave. ``{"followed"}``.
- ``follow_all {on, prefix: "", exclude: []}``: follow all occupied channels but those of presence, or none of them
  any more.
- ``members {channel}``: who is on a presence channel, without joining. ``{"users"}``, a list of ids.
- ``publish {channels, event, data, to_others: false}``: over the HTTP API. ``data`` is a JSON text, sent as it is.
  ``to_others`` leaves out this console's own connection.
- ``trigger {channel, event, data}``: a client event, on a channel that is followed.
- ``doctor {}``: what ``reverb doctor --json`` says, as frames of the type ``finding``; then ``{"failed"}``, names
  of steps.
- ``events {before, count}``: entries of the log before the number ``before``. ``{"events", "first"}``: at most
  ``count``, and fewer where they are large; gaps among them have ``"type": "gap"``. ``first`` is the number of the
  oldest entry that there is.

The server sends, besides:

- ``hello {server, application, version, read_only, is_demo, has_secret, log: {first, last}, followed}``, and what
  ``state`` has: once. Events with numbers after ``log.last`` follow by themselves,
  earlier ones are there for the request ``events``. Without ``has_secret`` there is no HTTP API: no channels that
  are found, no members, nothing to publish.
- ``state {state, socket_id, round_trip, reconnects, problem, follow_all}``: each time one of them has changed. The
  round trip is in seconds. ``problem`` is a text, or null while connected. ``follow_all`` is ``{prefix, exclude}``
  or null.
- ``channels {channels: […], total}``: each time that has changed, the first time behind ``hello``. A channel is
  ``{name, kind, is_cache, subscriptions, users, followed, is_subscribed, is_ours_only}``. ``kind`` is public,
  private, presence or encrypted. Counts are null where the server does not tell, and leave this console out. What
  is followed and not subscribed is not confirmed yet, or refused, as a notice says; it is tried again at the next
  reconnect. ``total`` is more than there are in the list where there are very many.
- ``events {events: [{n, time, channel, event, user_id, size, data, sealed}]}`` and
  ``gap {n, time, channel, downtime}``: in the order of their numbers. ``time`` is in milliseconds since 1970,
  ``size`` in bytes, ``downtime`` in seconds. ``data`` is the text of the JSON as it was received.
- ``dropped {count}``: so many entries were lost to this page before the next one; the log has them no more.
- ``finding {step, ok, seconds, detail, causes, settings?}``: of a ``doctor`` that this page has asked for.
- ``notice {level, text}``: info, warning or error.
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
from .desk import Desk, Everything, RefusedError

if TYPE_CHECKING:
    from aiohttp.web import WebSocketResponse

__all__ = ["Page"]

log = logging.getLogger("reverb.console")

_BATCH_INTERVAL = 0.05
"""Seconds between two frames of events."""
_MAX_ENTRIES = 1_000
_MAX_BYTES = 512 * 1024
"""Of entries, in one frame or answer."""
_MAX_REQUESTS = 8
"""That are carried out at the same time. Those beyond wait where they are: in the socket."""
_MAX_NOTICES = 50
"""That wait for a page; of more, the oldest are forgotten."""

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
_Names = Annotated[list[_Text], msgspec.Meta(min_length=1, max_length=1_000)]


class _Request(msgspec.Struct, tag_field="do", forbid_unknown_fields=True):
    id: int

    async def carry_out(self, desk: Desk, page: Page) -> Any:
        raise NotImplementedError


class _Follow(_Request, tag="follow"):
    channels: _Names
    presence: bool = False

    async def carry_out(self, desk: Desk, page: Page) -> Any:
        return await desk.follow(self.channels, with_presence=self.presence)


class _Unfollow(_Request, tag="unfollow"):
    channels: _Names

    async def carry_out(self, desk: Desk, page: Page) -> Any:
        return await desk.unfollow(self.channels)


class _FollowAll(_Request, tag="follow_all"):
    on: bool
    prefix: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    exclude: Annotated[Sequence[_Text], msgspec.Meta(max_length=100)] = ()

    async def carry_out(self, desk: Desk, page: Page) -> Any:
        return await desk.follow_all(Everything(self.prefix, self.exclude) if self.on else None)


class _Members(_Request, tag="members"):
    channel: _Text

    async def carry_out(self, desk: Desk, page: Page) -> Any:
        return await desk.members(self.channel)


class _Publish(_Request, tag="publish"):
    channels: _Names
    event: _Text
    data: str
    to_others: bool = False

    async def carry_out(self, desk: Desk, page: Page) -> Any:
        return await desk.publish(self.channels, self.event, self.data, to_others=self.to_others)


class _Trigger(_Request, tag="trigger"):
    channel: _Text
    event: _Text
    data: str

    async def carry_out(self, desk: Desk, page: Page) -> Any:
        return await desk.trigger(self.channel, self.event, self.data)


class _Doctor(_Request, tag="doctor"):
    async def carry_out(self, desk: Desk, page: Page) -> Any:
        return await desk.examine(page.put)


class _Events(_Request, tag="events"):
    before: int
    count: Annotated[int, msgspec.Meta(ge=1)]

    async def carry_out(self, desk: Desk, page: Page) -> Any:
        found = desk.feed.before(self.before, min(self.count, _MAX_ENTRIES), _MAX_BYTES)
        return {"events": [msgspec.Raw(each) for each in found], "first": desk.feed.first}


_decode = msgspec.json.Decoder(
    _Follow | _Unfollow | _FollowAll | _Members | _Publish | _Trigger | _Doctor | _Events
).decode


class _Identified(msgspec.Struct):
    """What is enough to answer."""

    id: int


class Page:
    """Talks with a page over its WebSocket, until that is closed.

    A page that does not read holds up nothing but itself: what waits for it is bounded; events wait in the log.
    """

    def __init__(self, socket: WebSocketResponse, desk: Desk) -> None:
        self._socket = socket
        self._desk = desk
        self._room = asyncio.Semaphore(_MAX_REQUESTS)
        self._answering: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._frames: deque[tuple[bytes, bool]] = deque()
        """Answers (True) and findings. Bounded by the requests that there may be at a time."""
        self._notices: deque[bytes] = deque(maxlen=_MAX_NOTICES)
        self._shown: list[bytes] = [b"", b""]
        """Which state and which channels the page has."""
        self._last = desk.feed.last
        """The number of the last entry that it has."""
        self._may_batch = True

    async def run(self) -> None:
        """Talk until the page is closed, or does not take any more."""
        await self._desk.enter(self)
        self.put(msgspec.json.encode(self._desk.hello()))
        self._shown[0] = self._desk.state
        self.wake()
        both = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._desk.leave(self)
            tasks = [*both, *self._answering]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- for the desk ------------------------------------------------------------------------------------------

    def wake(self) -> None:
        self._changed.set()

    def notice(self, frame: bytes) -> None:
        self._notices.append(frame)
        self.wake()

    def put(self, frame: bytes) -> None:
        """Send a frame, behind those that wait."""
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
            return {"re": number, "ok": False, "error": f"this is no request: {error}"}
        try:
            result = await request.carry_out(self._desk, self)
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
            if self._may_batch and self._desk.feed.last != self._last:
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
        for number, frame in enumerate((self._desk.state, self._desk.channels)):
            if self._shown[number] is not frame:
                self._shown[number] = frame
                await self._send(frame)

    async def _write_batch(self) -> None:
        dropped, frames, last = self._desk.feed.after(self._last, _MAX_ENTRIES, _MAX_BYTES)
        self._last = last
        if dropped:
            await self._send(msgspec.json.encode({"type": "dropped", "count": dropped}))
        for frame in frames:
            await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        await self._socket.send_frame(frame, WSMsgType.TEXT)
