"""``reverb bench``: how long events take through a server, and how many get through."""

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
from .process import ExitCode, complete, ends_this_task, exit_on_error, fail
from .view import OutputConsole, plural, print_json, printable

__all__ = ["bench"]

_EVENT = "client-bench"
_AT_A_TIME = 100
"""Events on the way when the throughput is measured."""
_TIMES = 10
"""How many more events are sent for the throughput than for the round trips."""
_DEADLINE = 10.0
"""Seconds that an event may take to arrive."""
_WARM_UP = 5
"""Events that are not counted."""
_PROGRESS_INTERVAL = 0.1
"""Seconds until progress is shown again: between events, and not after each."""
_ROWS = 10
"""Of the histogram."""
_BAR = 40
"""Cells of its longest bar."""


class Measurement(NamedTuple):
    """What was measured, with each event's time from sending to arrival, in seconds."""

    name: str
    meaning: str
    trips: list[float]
    """In ascending order."""
    seconds: float
    """How long all of it took."""

    def percentile(self, percent: float) -> float:
        """The time within which so many of the events arrived, in milliseconds."""
        return self.trips[max(0, math.ceil(len(self.trips) * percent / 100) - 1)] * 1e3

    @property
    def events_per_second(self) -> float:
        return len(self.trips) / self.seconds


class _RefusedError(Exception):
    """The server does not take what we send."""


@takes_server(with_app_id=True)
def bench(
    given: Given,
    count: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help=f"Events of each kind, one after another; {_TIMES} times as many at once."
        ),
    ] = 200,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="The longest time for each measurement.")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line, for each measurement.")
    ] = False,
) -> None:
    """Measure how long events take through a server, and how many get through.

    Opens two connections and sends events from one to the other, on a private channel with a name of its own:

    - client events, one after another: from `trigger()` to the handler, so twice through the network

    - events published over the HTTP API, one after another: from the request to the handler (with an application
    id)

    - client events, up to 100 on the way at a time: how many arrive in a second

    The times contain this client's own, some hundredths of a millisecond. It puts load on the server, which others
    there may notice. The application must allow client events, and not limit their rate.
    """
    with exit_on_error():
        config = configure(given, reconnect_enabled=False)  # what is measured has no gaps
        try:
            complete(_bench(config, count, seconds, as_json=as_json))
        except _RefusedError as error:
            raise fail(str(error), ExitCode.REFUSED) from None


async def _bench(config: ReverbConfig, count: int, seconds: float, *, as_json: bool) -> None:
    on_unread = ends_this_task()
    status = Console(stderr=True, highlight=False)
    name = f"private-reverb-bench-{secrets.token_hex(4)}"
    publishes = config.app_id is not None
    async with ReverbClient(config) as sender, ReverbClient(config) as receiver:
        channel = await sender.subscribe(name)
        track = _Track(sender, receiver, seconds)
        (await receiver.subscribe(name)).bind(_EVENT, track.on_arrival)
        view = _JsonLines(on_unread) if as_json else _View(OutputConsole(on_unread), config.address)
        status.print(
            printable(f"putting load on {config.address}; Ctrl-C ends it"), style="yellow", soft_wrap=True
        )
        if not publishes:
            status.print("publishing is not measured: REVERB_APP_ID is missing", style="yellow", soft_wrap=True)

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
    """Sends events on one connection and sees them arrive on the other."""

    def __init__(self, sender: ReverbClient, receiver: ReverbClient, seconds: float) -> None:
        self._clients = (sender, receiver)
        self._seconds = seconds
        self._started: dict[int, float] = {}
        """When events were sent that are on the way, by number."""
        self._trips: list[float] = []
        self._news = asyncio.get_running_loop().create_future()
        self._refusal: str | None = None
        for client in self._clients:
            client.bind("error", self._on_error)
            client.bind(Events.STATE_CHANGE, lambda *_: self._tell())

    def on_arrival(self, event: str, data: Any, channel: str | None) -> None:
        started = self._started.pop(data["n"], None)
        if started is not None:
            self._trips.append(perf_counter() - started)
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
        """Send events, up to ``at_a_time`` before the first of them has arrived, until they are ``count`` or the
        time is over."""
        self._trips = []
        progress = progress_bar(auto_refresh=False)  # which a thread does, and would be measured, too
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
                    progress.update(task, completed=len(self._trips), refresh=True)
                    shown_at = perf_counter()
            while self._started:
                await self._wait()
            elapsed = perf_counter() - began
        return Measurement(name, meaning, sorted(self._trips), elapsed)

    async def _wait(self) -> None:
        """Wait until an event arrives; raise when none will."""
        # Before Python 3.12, wait_for() can swallow the cancellation that Ctrl-C is.
        await asyncio.wait({self._news}, timeout=_DEADLINE)
        if not self._news.done():
            raise TimeoutError(f"an event did not arrive within {plural(_DEADLINE, 'second')}")
        self._news = asyncio.get_running_loop().create_future()
        if self._refusal is not None:
            raise _RefusedError(f"the server refused: {self._refusal}")
        for client in self._clients:
            if not client.is_connected:
                await client.listen()  # raises why


_COLUMNS = {"min": 0, "p50": 50, "p90": 90, "p99": 99, "max": 100}


class _JsonLines:
    """Prints what was measured, for programs."""

    def __init__(self, on_unread: Callable[[], None]) -> None:
        self._on_unread = on_unread

    def show(self, measured: Measurement) -> None:
        fields = {
            "measurement": measured.name,
            "count": len(measured.trips),
            "seconds": round(measured.seconds, 6),
        }
        for name, percent in _COLUMNS.items():
            fields[f"{name}_ms"] = round(measured.percentile(percent), 4)
        fields["events_per_second"] = round(measured.events_per_second, 1)
        print_json(fields, self._on_unread)


class _View:
    """Prints what was measured, for people."""

    def __init__(self, console: Console, address: str) -> None:
        self._console = console
        self._console.print(Text(f"Events through {printable(address)}", "bold"), soft_wrap=True)

    def show(self, measured: Measurement) -> None:
        self._console.print()
        self._console.print(Text.assemble((measured.name, "bold"), f": {measured.meaning}"), soft_wrap=True)
        if measured.name == "throughput":
            rate = f"{measured.events_per_second:,.0f} events a second"
            self._console.print(
                Text.assemble(
                    "  ", (rate, "bold green"), f", {len(measured.trips)} in {measured.seconds:.2f} seconds"
                )
            )
            return
        table = Table.grid(padding=(0, 3, 0, 0))
        for _ in range(len(_COLUMNS) + 2):
            table.add_column(justify="right")
        table.add_row(" ", "events", *_COLUMNS, style="dim")
        times = [f"{measured.percentile(percent):.2f} ms" for percent in _COLUMNS.values()]
        table.add_row(" ", str(len(measured.trips)), *times)
        self._console.print(table)
        self._console.print()
        self._console.print(_histogram(measured.trips))


def _histogram(trips: list[float]) -> Text:
    """Draw how many of the times, which ascend, are how long. Each row reaches as many times further than the one
    before: most are short, and few are very long."""
    least, most = trips[0] * 1e3, trips[-1] * 1e3
    edges = [least * (most / least) ** (row / _ROWS) for row in range(_ROWS + 1)] if most > least else [least] * 2
    edges[-1] = math.inf
    counts = [sum(low <= trip * 1e3 < high for trip in trips) for low, high in pairwise(edges)]
    labels = [f"  from {low:.2f} ms  " for low in edges[:-1]]
    width = max(map(len, labels))
    rows = []
    for label, number in zip(labels, counts, strict=True):
        bar = "█" * round(_BAR * number / max(counts)) or ("▏" if number else "")
        rows.append(Text.assemble(label.rjust(width), (bar, "cyan"), f" {number}"))
    return Text("\n").join(rows)
