"""The receiving side: what is measured, each as it would be written by someone who wants it to be fast.

A receiver is an async context manager that is entered when it is connected, subscribed and ready, and that gives a
:class:`Tally` what it receives.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import picows

from reverb import Channel, ChannelAuth, Events, ReverbClient

from .load import ENCRYPTION_KEY, EVENT, LAST_EVENT, Load
from .sender import HOST

_TEXT = picows.WSMsgType.TEXT
APP_KEY = "bench"

_decode_json = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Address:
    """Where the sender listens; with ``ca_file``, by TLS."""

    port: int
    ca_file: str | None = None

    @property
    def scheme(self) -> str:
        return "ws" if self.ca_file is None else "wss"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.port}/app/{APP_KEY}?protocol=7&client=bench&version=1"

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        return None if self.ca_file is None else ssl.create_default_context(cafile=self.ca_file)


class Tally:
    """Which events a handler got, in its order; ``finished`` when it has had as many as ``wanted``.

    ``handle`` and ``handle_async`` are the same handler; whoever is measured calls one of them for each event.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.ids: list[int] = []
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ids, append = self.ids, self.ids.append

        def handle(event: str, data: Any, channel: str | None) -> None:
            append(data["id"])
            if len(ids) == wanted:
                self.finish()

        async def handle_async(event: str, data: Any, channel: str | None) -> None:
            append(data["id"])
            if len(ids) == wanted:
                self.finish()

        self.handle = handle
        self.handle_async = handle_async

    def finish(self) -> None:
        self.finished.set_result(None)


@dataclass(frozen=True)
class Receiver:
    """Something to measure."""

    receive: Callable[[Address, Load, Tally], AbstractAsyncContextManager[None]]
    calls: int = 1
    """How many times each event reaches a handler."""
    only_last: bool = False
    """Whether it asks for the last event alone."""
    looks_inside: bool = True
    """Whether it sees what it gets."""


# --- picows by itself ------------------------------------------------------------------------------------------


OnFrame = Callable[[picows.WSTransport, picows.WSFrame], None]


class Listener(picows.WSListener):
    """Subscribes to all channels of a load; then it is ``ready``, and every frame goes to ``on_event``."""

    def __init__(self, load: Load, on_event: OnFrame) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._load = load
        self._on_event = on_event
        self._left = 1 + load.channels  # connection_established, and subscription_succeeded for each channel

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        for number in range(self._load.channels):
            subscribe = {"event": "pusher:subscribe", "data": {"channel": self._load.channel(number)}}
            transport.send(_TEXT, msgspec.json.encode(subscribe))

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self._left -= 1
        if self._left == 0:
            self.on_ws_frame = self._on_event  # type: ignore[assignment,method-assign]  # no method is called as fast
            self.ready.set_result(None)


class _Envelope(msgspec.Struct, gc=False):
    event: str
    data: str
    channel: str | None = None


class _Encrypted(msgspec.Struct, gc=False):
    nonce: str
    ciphertext: str


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_encrypted = msgspec.json.Decoder(_Encrypted).decode


def _counting(load: Load, tally: Tally) -> OnFrame:
    """Takes every frame and looks into none."""
    left = load.messages

    def on_frame(transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            tally.finish()

    return on_frame


class Decoding:
    """The baseline: decodes the message and its data, and calls a function. Its functions are methods."""

    def __init__(self, handle: Callable[[str, Any, str | None], Any]) -> None:
        self._handle = handle

    def on_small_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        message = _decode_envelope(frame.get_payload_as_bytes())
        self._handle(message.event, _decode_json(message.data), message.channel)

    def on_large_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        message = _decode_envelope(frame.get_payload_as_memoryview())
        self._handle(message.event, _decode_json(message.data), message.channel)


def _decoding(load: Load, tally: Tally) -> OnFrame:
    baseline = Decoding(tally.handle)
    # Copying 160 bytes costs less than making a memoryview of them, copying 4 KB costs more.
    return baseline.on_small_frame if load.size < 1000 else baseline.on_large_frame


def _decoding_in_a_closure(load: Load, tally: Tally) -> OnFrame:
    """The baseline as a closure, as the client has it."""
    handle, decode, decode_json = tally.handle, _decode_envelope, _decode_json

    def on_frame(transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        message = decode(frame.get_payload_as_bytes())
        handle(message.event, decode_json(message.data), message.channel)

    return on_frame


def _decoding_by_orjson(load: Load, tally: Tally) -> OnFrame:
    """The baseline with another decoder, which reads escapes faster."""
    import orjson

    handle, decode = tally.handle, orjson.loads

    def on_frame(transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        message = decode(frame.get_payload_as_bytes())
        handle(message["event"], decode(message["data"]), message["channel"])

    return on_frame


def _decoding_for(calls: int) -> Callable[[Load, Tally], OnFrame]:
    def decoding(load: Load, tally: Tally) -> OnFrame:
        """The baseline for several handlers: decodes once, and calls each."""
        handlers = (tally.handle,) * calls

        def on_frame(transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            message = _decode_envelope(frame.get_payload_as_bytes())
            event, data, channel = message.event, _decode_json(message.data), message.channel
            for handle in handlers:
                handle(event, data, channel)

        return on_frame

    return decoding


def _decrypting(load: Load, tally: Tally) -> OnFrame:
    """The baseline for encrypted events, with NaCl's own function."""
    from nacl.bindings import crypto_secretbox_open

    handle = tally.handle

    def on_frame(transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        message = _decode_envelope(frame.get_payload_as_bytes())
        encrypted = _decode_encrypted(message.data)
        ciphertext, nonce = a2b_base64(encrypted.ciphertext), a2b_base64(encrypted.nonce)
        data = _decode_json(crypto_secretbox_open(ciphertext, nonce, ENCRYPTION_KEY))
        handle(message.event, data, message.channel)

    return on_frame


@asynccontextmanager
async def connect_picows(
    address: Address, load: Load, on_event: OnFrame, use_aiofastnet: bool | None = None
) -> AsyncIterator[picows.WSTransport]:
    listener = Listener(load, on_event)
    transport, _ = await picows.ws_connect(
        lambda: listener,
        address.url,
        ssl_context=address.ssl_context,
        use_aiofastnet=use_aiofastnet,
    )
    try:
        await listener.ready
        yield transport
    finally:
        transport.disconnect()
        await transport.wait_disconnected()


def _picows(
    make: Callable[[Load, Tally], OnFrame], *, calls: int = 1, use_aiofastnet: bool | None = None
) -> Receiver:
    @asynccontextmanager
    async def receive(address: Address, load: Load, tally: Tally) -> AsyncIterator[None]:
        async with connect_picows(address, load, make(load, tally), use_aiofastnet):
            yield

    return Receiver(receive, calls, looks_inside=make is not _counting)


# --- python-reverb ---------------------------------------------------------------------------------------------


_SIGNED: dict[str, Any] = {"auth": "bench:signature", "shared_secret": b64encode(ENCRYPTION_KEY).decode()}


async def _authorize(socket_id: str, channel: str) -> ChannelAuth:
    return ChannelAuth(**_SIGNED)


def make_client(address: Address, **more: Any) -> ReverbClient:
    return ReverbClient(
        app_key=APP_KEY,
        app_secret="secret",
        host=HOST,
        port=address.port,
        scheme=address.scheme,
        path="",
        log_level="ERROR",
        ssl_context=address.ssl_context,
        **more,
    )


async def subscribe(client: ReverbClient, names: Sequence[str]) -> list[Channel]:
    """Subscribe, and have the confirmations behind us before there are handlers that would get them, too."""
    left = len(names)
    confirmed = asyncio.Event()

    def on_confirmed(event: str, data: Any, channel: str | None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            confirmed.set()

    async def join(name: str) -> Channel:
        return (await client.subscribe(name)).bind(Events.SUBSCRIPTION_SUCCEEDED, on_confirmed)

    channels = await asyncio.gather(*map(join, names))
    await confirmed.wait()
    for channel in channels:
        channel.unbind(Events.SUBSCRIPTION_SUCCEEDED)
    return channels


def _reverb(*, is_async: bool = False, events: Sequence[str] = (EVENT, LAST_EVENT), calls: int = 1) -> Receiver:
    @asynccontextmanager
    async def receive(address: Address, load: Load, tally: Tally) -> AsyncIterator[None]:
        async with make_client(address, **({"authorizer": _authorize} if load.encrypted else {})) as client:
            names = [load.channel(number) for number in range(load.channels)]
            for channel in await subscribe(client, names):
                for event in events:
                    for _ in range(calls):
                        channel.bind(event, tally.handle_async if is_async else tally.handle)
            yield

    return Receiver(receive, calls, only_last=events == (LAST_EVENT,))


class NotThereError(Exception):
    """What would be measured does not exist, or is not installed."""


RECEIVERS = {
    "picows, nothing decoded": _picows(_counting),
    "baseline": _picows(_decoding),
    "baseline, in a closure": _picows(_decoding_in_a_closure),
    "baseline, without aiofastnet": _picows(_decoding, use_aiofastnet=False),
    "baseline, orjson": _picows(_decoding_by_orjson),
    "baseline, 5 calls": _picows(_decoding_for(5), calls=5),
    "baseline, encrypted": _picows(_decrypting),
    "reverb, plain": _reverb(),
    "reverb, async": _reverb(is_async=True),
    "reverb, plain, 5 handlers": _reverb(calls=5),
    "reverb, async, 5 handlers": _reverb(is_async=True, calls=5),
    "reverb, plain, wildcard": _reverb(events=("*",)),
    "reverb, async, wildcard": _reverb(is_async=True, events=("*",)),
    "reverb, no handler": _reverb(events=(LAST_EVENT,)),
}
