"""A program without async of its own that listens: the client lives in the event loop of another thread.

    pip install python-reverb
    export REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    python listen_in_thread.py

    reverb publish private-labels print '{"id": 7, "text": "Fragile"}'

The main thread works off each event ``print`` on ``private-labels``, for which it may block as long as it likes,
and answers with a client event ``printed``. Into your program take ``event_loop``, and the rest as a model:

- What belongs to the client is done in its thread. ``call()`` runs a coroutine there and returns its result, or
  raises what it has raised.
- What goes together is one coroutine, such as ``connect()`` below: no event gets lost between its steps.
- Events wait in a stream until the main thread takes them. It is bounded, ends with ``disconnect()``, and raises
  when the connection is lost for good.

Ends on Ctrl-C and SIGTERM.
"""

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from reverb import Event, EventStream, ReverbClient, ReverbError

CHANNEL = "private-labels"


@dataclass
class Label:
    id: int
    text: str


@contextmanager
def event_loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Run an event loop in a thread while the block runs; give what calls into it."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def live() -> None:
        over = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), over))
        await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="reverb", daemon=True)
    thread.start()
    loop, over = started.result()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


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
    """Stand for what takes its time, and blocks."""
    time.sleep(0.1)
    print(f"label {label.id}: {label.text!r}", flush=True)


def main() -> None:
    client = ReverbClient()
    with event_loop() as call, suppress(StopAsyncIteration, KeyboardInterrupt):
        try:
            labels = call(connect(client))
            logging.info("waiting for labels")
            while True:
                event = call(anext(labels))
                print_label(event.data)
                call(answer(client, event.data))
        finally:
            call(client.disconnect())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    try:
        main()
    except ReverbError as error:
        sys.exit(str(error))
