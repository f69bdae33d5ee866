"""The whole client, fed by Hypothesis: whatever a server sends, nothing gets out of hand and nothing dies."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from reverb import ReverbClient, ReverbError
from tests.scripted import MISSING, TEXT, Peer, ScriptedServer, encode_frame, encode_message
from tests.watching import client_tasks, until

from .scene import SETTINGS

EXAMPLES = int(os.environ.get("REVERB_FUZZ_EXAMPLES", "100"))
NEWS, ORDERS, ROOM, FRESH = "news", "private-orders", "presence-room", "fresh"
IMPATIENT = {**SETTINGS, "ping_interval": 0.05, "pong_timeout": 0.05, "subscribe_timeout": 1.0}
"""A frame that announces more than ever comes is only found out by silence."""

# --- what the server sends -------------------------------------------------------------------------------------


def _frame(opcode: int, flags: int, payload: bytes) -> bytes:
    frame = bytearray(encode_frame(opcode, payload))
    frame[0] = flags << 4 | opcode
    return bytes(frame)


payloads = st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
frames = st.builds(_frame, st.integers(0, 15), st.sampled_from([8, 8, 8, 0, 12, 15]), payloads)
raw = st.binary(max_size=60) | st.builds(lambda start, rest: start[:7] + rest, frames, st.binary(max_size=20))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
texts = values.map(json.dumps)

EVENTS = [
    "pusher:connection_established",
    "pusher:error",
    "pusher:ping",
    "pusher:pong",
    "pusher:cache_miss",
    "pusher:subscription_error",
    "pusher:subscription_count",
    "pusher:signin_success",
    "pusher_internal:subscription_succeeded",
    "pusher_internal:member_added",
    "pusher_internal:member_removed",
    "client-typing",
    "reverb:reconnected",
    "reverb:error",
    r"App\Events\OrderShipped",
    "*",
    "error",
]
members = st.fixed_dictionaries({}, optional={"user_id": values, "user_info": values})
lists_of_members = st.fixed_dictionaries(
    {}, optional={"count": values, "ids": values | st.lists(st.integers() | st.text(max_size=3)), "hash": values}
)
data = (
    values
    | members
    | st.fixed_dictionaries({}, optional={"presence": lists_of_members | values})
    | st.fixed_dictionaries(
        {}, optional={"code": st.sampled_from([4001, 4009, 4200, 4201, 4301]) | values, "message": values}
    )
    | st.fixed_dictionaries({}, optional={"socket_id": values, "activity_timeout": values})
)
fields = {
    "event": st.sampled_from(EVENTS) | values,
    "data": data | data.map(json.dumps),
    "channel": st.sampled_from([NEWS, ORDERS, ROOM, FRESH]) | values,
    "user_id": values,
}
messages = st.fixed_dictionaries({}, optional=fields).map(json.dumps) | st.builds(
    encode_message,
    st.sampled_from(EVENTS),
    st.just(MISSING) | data | data.map(json.dumps),
    st.just(MISSING) | st.sampled_from([NEWS, ORDERS, ROOM, FRESH]),
)

moments = st.sampled_from(["before the greeting", "before the confirmations", "afterwards"])

# --- what must hold --------------------------------------------------------------------------------------------


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def nothing_out_of_hand() -> Iterator[None]:
    """Fail for what was logged with a traceback, or by anybody but us."""
    handler = Records()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
    for record in handler.records:
        if not record.name.startswith("asyncio") or record.levelno > logging.DEBUG:
            assert record.name.startswith("reverb"), record.getMessage()
        assert record.exc_info is None, record.getMessage()
        assert "nhandled" not in record.getMessage()


async def play(moment: str, nonsense: bytes) -> None:
    """Send ``nonsense`` on the first connection; the client must come through, there or on another one."""

    async def script(peer: Peer) -> None:
        async def interfere(now: str) -> None:
            if peer.number == 1 and moment == now:
                await peer.send_raw(nonsense)

        await peer.upgrade()
        await interfere("before the greeting")
        established = json.dumps({"socket_id": f"1.{peer.number}", "activity_timeout": 30})
        await peer.send("pusher:connection_established", established)
        await interfere("before the confirmations")
        while True:
            message = await peer.receive()
            if message["event"] == "pusher:ping":
                await peer.send("pusher:pong")
            elif message["event"] == "pusher:subscribe":
                channel = message["data"]["channel"]
                await peer.confirm(channel)
                if channel == ROOM:
                    await interfere("afterwards")
                await peer.send("alive", "{}", channel)

    alive = asyncio.Event()
    async with ScriptedServer(script) as server:
        client = ReverbClient(
            app_key="k",
            app_secret="s",
            host=server.host,
            port=server.port,
            scheme="ws",
            log_level="DEBUG",
            **IMPATIENT,
        )
        client.bind("*", lambda event, data, channel: None)
        for name in (NEWS, ORDERS, ROOM, FRESH):
            await insist(client, name)
        client.channels[FRESH].bind("alive", lambda event, data, channel: alive.set())
        await asyncio.wait_for(alive.wait(), 5)
        assert client.is_connected
        assert server.connections <= 4
        await client.disconnect()
        await until(lambda: not client_tasks())


async def insist(client: ReverbClient, name: str) -> None:
    """Subscribe. What the server has said may refuse the first attempt or the connection, never a later one."""
    refusals: list[ReverbError] = []
    while True:
        try:
            await client.connect()
            await client.subscribe(name, {"user_id": "us"} if name == ROOM else None)
        except ReverbError as error:
            refusals.append(error)
            assert len(refusals) < 5, refusals
        else:
            return


def run(moment: str, nonsense: bytes) -> None:
    async def watched() -> None:
        unhandled: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        await play(moment, nonsense)
        assert unhandled == []

    with nothing_out_of_hand():
        asyncio.run(watched())


@settings(max_examples=EXAMPLES)
@given(moments, st.lists(frames | raw, min_size=1, max_size=4))
@example("before the confirmations", [b"\x80\x00", b"\x00\x01\x00"])
@example("afterwards", [b"\x00#" + b"\x00" * 11, b"\x80\x01\x00"])  # what follows is read at the wrong place
def test_arbitrary_frames_and_bytes(moment: str, sent: list[bytes]) -> None:
    run(moment, b"".join(sent))


@settings(max_examples=EXAMPLES)
@given(moments, st.lists(texts, min_size=1, max_size=10))
@example("afterwards", ["[" * 5000 + "]" * 5000, '{"event":"x","data":' + "[" * 5000 + "]" * 5000 + "}"])
def test_arbitrary_json(moment: str, sent: list[str]) -> None:
    run(moment, b"".join(encode_frame(TEXT, text) for text in sent))


@settings(max_examples=3 * EXAMPLES)
@given(moments, st.lists(messages, min_size=1, max_size=10))
def test_plausible_messages(moment: str, sent: list[str]) -> None:
    run(moment, b"".join(encode_frame(TEXT, text) for text in sent))
