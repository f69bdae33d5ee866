"""The receiving side: what is measured, each as it would be written by someone who wants it to be fast.

A receiver is an async context manager that is entered when it is connected, subscribed and ready, and that gives a
:class:`Tally` what it receives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import msgspec
import picows

from reverb import ReverbClient

from .load import CHANNEL, EVENT, LAST_EVENT
from .sender import HOST

_TEXT = picows.WSMsgType.TEXT
_APP_KEY = "bench"
_URL = f"ws://{HOST}:%d/app/{_APP_KEY}?protocol=7&client=bench&version=1"
_SUBSCRIBE = msgspec.json.encode({"event": "pusher:subscribe", "data": {"channel": CHANNEL}})

_decode_json = msgspec.json.Decoder().decode


class Tally:
    """Which of ``messages`` events a handler got, and when it got the last of them.

    ``handle`` and ``handle_async`` are the same handler; whoever is measured calls one of them for each event.
    """

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.ids: list[int] = []
        self.finished: asyncio.Future[tuple[float, float]] = asyncio.get_running_loop().create_future()
        """The wall clock and the CPU clock of this process at the last event."""
        last = messages - 1
        append, finish = self.ids.append, self.finish

        def handle(event: str, data: Any, channel: str | None) -> None:
            number = data["id"]
            append(number)
            if number == last:
                finish()

        async def handle_async(event: str, data: Any, channel: str | None) -> None:
            number = data["id"]
            append(number)
            if number == last:
                finish()

        self.handle = handle
        self.handle_async = handle_async

    def finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result((perf_counter(), process_time()))


@dataclass(frozen=True)
class Receiver:
    """Something to measure."""

    name: str
    receive: Callable[[int, Tally], AbstractAsyncContextManager[None]]
    """Receives from a port into a tally."""
    expects: Callable[[int], Sequence[int]] = range
    """The ids that its handler has to get when so many events were sent."""


# --- picows by itself ------------------------------------------------------------------------------------------


class _CountingListener(picows.WSListener):
    """Takes every frame and looks into none."""

    def __init__(self, tally: Tally) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self._messages = tally.messages
        self._left = 2 + tally.messages  # connection_established and subscription_succeeded come first
        self._finish = tally.finish

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self._left -= 1
        if self._left == self._messages:
            self.ready.set_result(None)
        elif self._left == 0:
            self._finish()


class _Envelope(msgspec.Struct, gc=False):
    event: str
    data: str
    channel: str | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


class _DecodingListener(picows.WSListener):
    """The floor: decodes the message and what is in it, calls a function, and does nothing besides."""

    def __init__(self, tally: Tally) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self._handle: Callable[[str, Any, str | None], None] = self._prepare
        self._handle_events = tally.handle

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        message = _decode_envelope(frame.get_payload_as_memoryview())
        self._handle(message.event, _decode_json(message.data), message.channel)

    def _prepare(self, event: str, data: Any, channel: str | None) -> None:
        if event == "pusher_internal:subscription_succeeded":
            self._handle = self._handle_events
            self.ready.set_result(None)


@asynccontextmanager
async def _receive_with_picows(listener: _CountingListener | _DecodingListener, port: int) -> AsyncIterator[None]:
    transport, _ = await picows.ws_connect(lambda: listener, _URL % port)
    try:
        transport.send(_TEXT, _SUBSCRIBE)
        await listener.ready
        yield
    finally:
        transport.disconnect()
        await transport.wait_disconnected()


# --- python-reverb ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def _receive_with_reverb(
    port: int, events: tuple[str, ...], handler: Callable[[str, Any, str | None], Any]
) -> AsyncIterator[None]:
    client = ReverbClient(app_key=_APP_KEY, host=HOST, port=port, scheme="ws", path="", log_level="ERROR")
    async with client:
        channel = await client.subscribe(CHANNEL)
        for event in events:
            channel.bind(event, handler)
        await asyncio.sleep(0.02)  # a new channel keeps its first events for a moment
        yield


FLOOR = Receiver(
    "picows + msgspec, plain function",
    lambda port, tally: _receive_with_picows(_DecodingListener(tally), port),
)

RECEIVERS = (
    Receiver(
        "picows, nothing decoded",
        lambda port, tally: _receive_with_picows(_CountingListener(tally), port),
        expects=lambda messages: (),
    ),
    FLOOR,
    Receiver(
        "reverb, plain handler",
        lambda port, tally: _receive_with_reverb(port, (EVENT, LAST_EVENT), tally.handle),
    ),
    Receiver(
        "reverb, async handler",
        lambda port, tally: _receive_with_reverb(port, (EVENT, LAST_EVENT), tally.handle_async),
    ),
    Receiver(
        "reverb, events nobody bound",
        lambda port, tally: _receive_with_reverb(port, (LAST_EVENT,), tally.handle),
        expects=lambda messages: (messages - 1,),
    ),
)
