"""``reverb bench``: measure latency and throughput of events through a server."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable
from itertools import pairwise
from time import perf_counter
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import Events, ReverbClient, ReverbConfig, TimeoutError
from .options import Given, configure, takes_server
from .output import progress_bar
from .process import ExitCode, complete, exit_on_error, fail, make_cancel
from .view import OutputConsole, plural, print_json, printable

__all__ = ["bench"]

_EVENT = "client-bench"
_AT_A_TIME = 100
"""Events that are sent and have not arrived yet, at most, when the throughput is measured."""
_TIMES = 10
"""For the throughput, so many times more events are sent than for the latency."""
_DEADLINE = 10.0
"""Seconds in which an event has to arrive."""
_WARM_UP = 5
"""Events before a measurement that are not counted."""
_PROGRESS_INTERVAL = 0.1
"""Seconds between two updates of the progress bar."""
_ROWS = 10
"""Rows of the histogram."""
_BAR = 40
"""Width of the histogram's longest bar, in cells."""


class Measurement(NamedTuple):
    """The result of a measurement."""

    name: str
    meaning: str
    latencies: list[float]
    """Seconds from sending to arrival, of each event, in ascending order."""
    seconds: float
    """The duration of the measurement."""

    def percentile(self, percent: float) -> float:
        """Return the time in milliseconds in which this percentage of the events arrived."""
        return self.latencies[max(0, math.ceil(len(self.latencies) * percent / 100) - 1)] * 1e3

    @property
    def events_per_second(self) -> float:
        return len(self.latencies) / self.seconds


class _RefusedError(Exception):
    """The server answered an event with an error."""


@takes_server(with_app_id=True)
def bench(
    given: Given,
    count: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help=f"The number of events for each latency. For the throughput, {_TIMES} times as many.",
        ),
    ] = 200,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="The longest time of each measurement, in seconds.")
    ] = 5.0,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per line, for programs: one for each measurement."),
    ] = False,
) -> None:
    """Measure the latency and the throughput of events through a server.

    **This puts load on the server, which its users may notice.** The application must allow client events, and
    must not limit their rate.

    The command opens two connections, and sends events from one to the other on a private channel with a random
    name. It measures:

    - the latency of client events, from `trigger()` to the handler

    - the latency of events published over the HTTP API, from the request to the handler; this needs an application
      id

    - the throughput of client events per second, with up to 100 events on the way

    The client itself takes some hundredths of a millisecond of each latency.
    """
    with exit_on_error():
        config = configure(given, reconnect_enabled=False)  # a measurement has no gaps
        try:
            complete(_bench(config, count, seconds, as_json=as_json))
        except _RefusedError as error:
            raise fail(str(error), ExitCode.REFUSED) from None


async def _bench(config: ReverbConfig, count: int, seconds: float, *, as_json: bool) -> None:
    on_broken_pipe = make_cancel()
    status = Console(stderr=True, highlight=False)
    name = f"private-reverb-bench-{secrets.token_hex(4)}"
    publishes = config.app_id is not None
    async with ReverbClient(config) as sender, ReverbClient(config) as receiver:
        channel = await sender.subscribe(name)
        track = _Track(sender, receiver, seconds)
        (await receiver.subscribe(name)).bind(_EVENT, track.on_arrival)
        view = _JsonLines(on_broken_pipe) if as_json else _View(OutputConsole(on_broken_pipe), config.address)
        status.print(
            printable(f"putting load on {config.address}; press Ctrl-C to stop"), style="yellow", soft_wrap=True
        )
        if not publishes:
            message = "REVERB_APP_ID is missing; the latency of published events is not measured"
            status.print(message, style="yellow", soft_wrap=True)

        async def trigger(number: int) -> None:
            await channel.trigger(_EVENT, {"n": number})

        async def publish(number: int) -> None:
            await sender.api.trigger(name, _EVENT, {"n": number})

        await track.run("warming up", "", trigger, _WARM_UP)
        view.show(await track.run("client event", "from trigger() to the handler", trigger, count))
        if publishes:
            await track.run("warming up", "", publish, _WARM_UP)
            view.show(await track.run("published", "from the HTTP request to the handler", publish, count))
        what = f"client events, {_AT_A_TIME} on the way at a time"
        view.show(await track.run("throughput", what, trigger, count * _TIMES, _AT_A_TIME))


class _Track:
    """Sends events on one connection, and measures when they arrive on the other."""

    def __init__(self, sender: ReverbClient, receiver: ReverbClient, seconds: float) -> None:
        self._clients = (sender, receiver)
        self._seconds = seconds
        self._started: dict[int, float] = {}
        """The send times of events that have not arrived yet, by their numbers."""
        self._latencies: list[float] = []
        self._news = asyncio.get_running_loop().create_future()
        self._refusal: str | None = None
        for client in self._clients:
            client.bind("error", self._on_error)
            client.bind(Events.STATE_CHANGE, lambda *_: self._tell())

    def on_arrival(self, event: str, data: Any, channel: str | None) -> None:
        started = self._started.pop(data["n"], None)
        if started is not None:
            self._latencies.append(perf_counter() - started)
            self._tell()

    def _on_error(self, event: str, data: Any, channel: str | None) -> None:
        self._refusal = str(data.get("message") if isinstance(data, dict) else data)
        self._tell()

    def _tell(self) -> None:
        if not self._news.done():
            self._news.set_result(None)

    async def run(
        self, name: str, meaning: str, send: Callable[[int], Awaitable[None]], count: int, at_a_time: int = 1
    ) -> Measurement:
        """Send ``count`` events, or fewer if the time is over, and wait until all have arrived.

        At most ``at_a_time`` events are on the way at any time."""
        self._latencies = []
        progress = progress_bar(auto_refresh=False)  # a refreshing thread would disturb the measurement
        task = progress.add_task(name, total=count)
        with progress:
            began = shown_at = perf_counter()
            sent = 0
            while sent < count and (sent == 0 or perf_counter() - began < self._seconds):
                self._started[sent] = perf_counter()
                await send(sent)
                sent += 1
                while len(self._started) >= at_a_time:
                    await self._wait()
                if perf_counter() - shown_at >= _PROGRESS_INTERVAL:
                    progress.update(task, completed=len(self._latencies), refresh=True)
                    shown_at = perf_counter()
            while self._started:
                await self._wait()
            elapsed = perf_counter() - began
        return Measurement(name, meaning, sorted(self._latencies), elapsed)

    async def _wait(self) -> None:
        """Wait until an event arrives. Raise if the server refuses, the connection is lost, or none arrives."""
        # Before Python 3.12, wait_for() can swallow the cancellation by Ctrl-C.
        await asyncio.wait({self._news}, timeout=_DEADLINE)
        if not self._news.done():
            raise TimeoutError(f"an event did not arrive within {plural(_DEADLINE, 'second')}")
        self._news = asyncio.get_running_loop().create_future()
        if self._refusal is not None:
            raise _RefusedError(f"the server refused: {self._refusal}")
        for client in self._clients:
            if not client.is_connected:
                await client.listen()  # raises the reason


_COLUMNS = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}


class _JsonLines:
    """Prints measurements for programs."""

    def __init__(self, on_broken_pipe: Callable[[], None]) -> None:
        self._on_broken_pipe = on_broken_pipe

    def show(self, measured: Measurement) -> None:
        fields = {
            "measurement": measured.name,
            "count": len(measured.latencies),
            "seconds": round(measured.seconds, 6),
        }
        for name, percent in _COLUMNS.items():
            fields[f"{name}_ms"] = round(measured.percentile(percent), 4)
        fields["events_per_second"] = round(measured.events_per_second, 1)
        print_json(fields, self._on_broken_pipe)


class _View:
    """Prints measurements for people."""

    def __init__(self, console: Console, address: str) -> None:
        self._console = console
        self._console.print(Text(f"Events through {printable(address)}", "bold"), soft_wrap=True)

    def show(self, measured: Measurement) -> None:
        self._console.print()
        self._console.print(Text.assemble((measured.name, "bold"), f": {measured.meaning}"), soft_wrap=True)
        if measured.name == "throughput":
            rate = f"{measured.events_per_second:,.0f} events per second"
            self._console.print(
                Text.assemble(
                    "  ", (rate, "bold green"), f", {len(measured.latencies)} in {measured.seconds:.2f} seconds"
                )
            )
            return
        table = Table.grid(padding=(0, 3, 0, 0))
        for _ in range(len(_COLUMNS) + 2):
            table.add_column(justify="right")
        table.add_row(" ", "events", *_COLUMNS, style="dim")
        times = [f"{measured.percentile(percent):.2f} ms" for percent in _COLUMNS.values()]
        table.add_row(" ", str(len(measured.latencies)), *times)
        self._console.print(table)
        self._console.print()
        self._console.print(_histogram(measured.latencies))


def _histogram(latencies: list[float]) -> Text:
    """Draw a histogram of latencies, which are in ascending order.

    The rows have a logarithmic scale, because most latencies are short and few are very long."""
    least, most = latencies[0] * 1e3, latencies[-1] * 1e3
    edges = [least * (most / least) ** (row / _ROWS) for row in range(_ROWS + 1)] if most > least else [least] * 2
    edges[-1] = math.inf
    counts = [sum(low <= latency * 1e3 < high for latency in latencies) for low, high in pairwise(edges)]
    labels = [f"  from {low:.2f} ms  " for low in edges[:-1]]
    width = max(map(len, labels))
    rows = []
    for label, number in zip(labels, counts, strict=True):
        bar = "█" * round(_BAR * number / max(counts)) or ("▏" if number else "")
        rows.append(Text.assemble(label.rjust(width), (bar, "cyan"), f" {number}"))
    return Text("\n").join(rows)
