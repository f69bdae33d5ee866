"""``python -m bench.profile``: measure the time that each part of an event's way takes.

For each part there is a listener of picows that does this part and all parts before it. The order is that of
``Connection._receiver``, and for ``async def`` handlers that of a queue and its worker. The cost of a part is the
time that it adds. The listeners and the client are measured in turns, in one process. The table shows medians of
the CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from textwrap import indent
from time import monotonic, process_time
from typing import Any

import picows

from reverb import _protocol
from reverb._dispatch import Route

from .load import EVENT, LAST_EVENT, Load
from .receivers import RECEIVERS, Address, OnFrame, Receiver, Tally, connect_picows
from .sender import Sender

_COUNTED = "count the event and its size"
_HANDLER = "call the handler"
_PLAIN = (
    ("picows' frame, a call of the listener", ""),
    ("copy the payload", "payload = frame.get_payload_as_bytes()"),
    ("check for a control frame", "if len(payload) <= 125 and frame.msg_type is not TEXT: return"),
    ("decode the message", "message = decode(payload)"),
    ("record the time of the last read", "if frame.last_in_buffer: queue.last = monotonic()"),
    (
        "find the channel and the handlers",
        "found = queues[message.channel]\nroute = found.routes[message.event]",
    ),
    (_COUNTED, "sizes.append(len(payload))"),
    (
        "check whether the handler can be called at once",
        "plain = route.plain\nif plain is None or found.is_busy: return",
    ),
    ("check whether the data is a string", "data = message.data\nif type(data) is not str: return"),
    ("decode the data", "data = decode_json(data)"),
    (_HANDLER, "result = plain(message.event, data, message.channel)"),
    ("check whether it returned an awaitable", "if result is not None: return"),
)
_BOOKED = """\
pending.append((message, len(payload)))
queue.pending_events += 1
queue.pending_bytes += len(payload)
if frame.last_in_buffer: create_task(work())"""
_ASYNC = (("a queue, its counts, and a worker", "plain"), ("create a coroutine and await it", "await awaited"))
_LISTENER = """
def make({names}, left):
    async def work():
        while pending:
            message, size = pending.popleft()
            queue.pending_events -= 1
            queue.pending_bytes -= size
            route = queue.routes[message.event]
            data = message.data
            if type(data) is str: data = decode_json(data)
            {call}(message.event, data, message.channel)
    def on_ws_frame(transport, frame):
        nonlocal left
        left -= 1
        if left == 0: done()
{body}
    return on_ws_frame
"""


@dataclass
class _EventQueue:
    """What the listeners look things up in: slots, as a queue of the client has them."""

    __slots__ = ("is_busy", "last", "pending_bytes", "pending_events", "routes")

    is_busy: bool
    last: float
    pending_bytes: int
    pending_events: int
    routes: dict[str, Route]


def _make_listener(load: Load, tally: Tally, lines: Sequence[str], call: str, calls: bool) -> OnFrame:
    routes = dict.fromkeys((EVENT, LAST_EVENT), Route(tally.handle, None, (), True, False))
    queue = _EventQueue(False, 0.0, 0, 0, routes)
    names = {
        "TEXT": picows.WSMsgType.TEXT,
        "decode": _protocol.decode_unchecked,
        "decode_json": _protocol.decode_json,
        "monotonic": monotonic,
        "queue": queue,
        "queues": {load.channel(0): queue},
        "plain": tally.handle,
        "awaited": tally.handle_async,
        "pending": deque(),
        "sizes": [],
        "create_task": asyncio.get_running_loop().create_task,
        "done": (lambda: None) if calls else tally.finish,
    }
    scope: dict[str, Any] = {}
    body = indent("\n".join(lines), " " * 8)
    exec(_LISTENER.format(names=", ".join(names), call=call, body=body), scope)
    listener: OnFrame = scope["make"](*names.values(), load.messages)
    return listener


def _listener(lines: Sequence[str], call: str = "plain", calls: bool = False) -> Receiver:
    """A listener that does what ``lines`` say, and ends by itself unless it ``calls`` the handler."""

    @asynccontextmanager
    async def receive(address: Address, load: Load, tally: Tally) -> AsyncIterator[None]:
        async with connect_picows(address, load, _make_listener(load, tally, lines, call, calls)):
            yield

    return Receiver(receive)


def _receivers() -> dict[str, Receiver]:
    lines = [line for _, line in _PLAIN]
    handler = [name for name, _ in _PLAIN].index(_HANDLER)
    parts = {
        name: _listener(lines[: number + 1], calls=number >= handler) for number, (name, _) in enumerate(_PLAIN)
    }
    booking = [*lines[: [name for name, _ in _PLAIN].index(_COUNTED) + 1], _BOOKED]
    return parts | {name: _listener(booking, call, calls=True) for name, call in _ASYNC}


async def _measure(sender: Sender, receiver: Receiver, load: Load) -> float:
    tally = Tally(load.messages)
    async with receiver.receive(Address(sender.port), load, tally):
        gc.collect()
        started = process_time()
        sender.blast(load)
        await tally.finished
        return 1e9 * (process_time() - started) / load.messages


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile", description="Measure the time that each part of an event's way takes."
    )
    parser.add_argument("--messages", type=int, default=100_000, metavar="N", help="number of events")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="number of measurements of each part")
    options = parser.parse_args()
    load = Load(options.messages)
    receivers = _receivers()
    whole = {name: RECEIVERS[name] for name in ("baseline", "reverb, plain", "reverb, async")}
    figures: dict[str, list[float]] = {name: [] for name in receivers | whole}
    with Sender() as sender:
        sender.prepare(load)
        for _ in range(options.rounds):
            for name, receiver in (receivers | whole).items():
                figures[name].append(asyncio.run(_measure(sender, receiver, load)))
    _print(figures)


def _print(figures: Mapping[str, Sequence[float]]) -> None:
    def row(part: str, after: str, before: str | None = None) -> None:
        grown = [x - y for x, y in zip(figures[after], figures[before], strict=True)] if before else figures[after]
        print(f"| {part} | {median(grown):.0f} | {median(figures[after]):.0f} |")

    print("| part | ns | sum in ns |\n|---|---|---|")
    before = None
    for name, _ in _PLAIN:
        row(name, name, before)
        before = name
    row("**reverb, plain**: catching exceptions, and the rest", "reverb, plain", before)
    (queue, _), (coroutine, _) = _ASYNC
    row(f"instead of the last one: {queue}", queue, before)
    row(coroutine, coroutine, queue)
    row("**reverb, async**: catching exceptions, and the rest", "reverb, async", coroutine)
    row("**baseline**, for comparison", "baseline")


if __name__ == "__main__":
    main()
