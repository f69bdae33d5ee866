"""A program without asyncio that listens. The client runs in the event loop of another thread.

    pip install python-reverb
    export REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    python listen_in_thread.py

    reverb publish private-labels print '{"id": 7, "text": "Fragile"}'

The main thread prints a label for each event ``print`` on ``private-labels``. It may block for as long as
it wants. It answers with the client event ``printed``. Copy ``EventLoop`` to your program, and use the rest as a
model:

- Use the client in its thread only. ``call()`` runs a coroutine there and returns its result, or raises its
  exception. ``start()`` does not wait for the coroutine.
- Put steps that belong together into one coroutine, such as ``connect()`` below. Then no event is lost
  between them.
- Events wait in a stream until the main thread takes them. The stream has a bound, ends with ``disconnect()``, and
  raises when the connection is lost for good.

The program ends on Ctrl-C and SIGTERM, after the current event.
"""

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from reverb import Event, EventStream, ReverbClient, ReverbError

CHANNEL = "private-labels"


@dataclass
class Label:
    id: int
    text: str


class EventLoop:
    """An event loop in a thread. It runs until the end of the block."""

    def __enter__(self) -> "EventLoop":
        started: Future[None] = Future()

        async def live() -> None:
            self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
            started.set_result(None)
            await self._over.wait()

        self._thread = threading.Thread(target=lambda: asyncio.run(live()), name="reverb", daemon=True)
        self._thread.start()
        started.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.start(coroutine).result()


async def connect(client: ReverbClient) -> EventStream[Event[Label]]:
    await client.connect()
    channel = await client.subscribe(CHANNEL)
    return channel.events("print", type=Label)


async def answer(client: ReverbClient, label: Label) -> None:
    try:
        await client.channels[CHANNEL].trigger("printed", {"id": label.id})
    except ReverbError as error:
        logging.warning("label %d is printed, and nobody is told: %s", label.id, error)


def print_label(label: Label) -> None:
    """Stand for work that takes time and blocks."""
    time.sleep(0.1)
    print(f"label {label.id}: {label.text!r}", flush=True)


def main() -> None:
    client, is_over = ReverbClient(), threading.Event()
    with EventLoop() as loop, suppress(StopAsyncIteration):  # raised at the end of the stream

        def stop(*_: object) -> None:
            is_over.set()
            loop.start(client.disconnect())

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        try:
            labels = loop.call(connect(client))
            logging.info("waiting for labels")
            while not is_over.is_set():
                event = loop.call(anext(labels))
                print_label(event.data)
                loop.call(answer(client, event.data))
        finally:
            loop.call(client.disconnect())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    try:
        main()
    except ReverbError as error:
        sys.exit(str(error))
