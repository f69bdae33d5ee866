"""``reverb publish --from``: publish the entries of an engine's stream over the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from .. import ReverbAPI, ReverbConfig
from .._checks import text
from .._settings import Checked, SecretStr, setting
from .._tasks import spawn
from ..relay import DeadLetter, Published, Publisher, Report, Source, Waiting
from ..relay._engines import make_source, with_password
from .output import print_lines
from .process import make_cancel
from .view import View, plural, print_json, printable

__all__ = ["publish_from", "source_of"]


@dataclass(frozen=True, init=False, eq=False, repr=False)
class _Settings(Checked):
    relay_password: SecretStr | None = setting(text, None, is_secret=True)
    """The engine's password. For NATS, the token if the URL has no user."""


def source_of(
    url: str, *, group: str, stream: str | None, dead_letter: str | None, consumer: str | None, claim_after: float
) -> Source:
    """Make the source for a URL. Raises :class:`ConfigurationError` if the URL names no source."""
    options = {"group": group, "stream": stream, "dead_letter": dead_letter, "consumer": consumer}
    return make_source(
        with_password(SecretStr(url), _Settings.from_env().relay_password),
        claim_after=claim_after,
        **{name: value for name, value in options.items() if value is not None},
    )


async def publish_from(config: ReverbConfig, source: Source, *, as_json: bool) -> None:
    """Publish until cancelled. The first cancellation waits for the running batch, a second one does not."""
    view = _JsonLines(make_cancel()) if as_json else _View(source.address, config.address)
    async with ReverbAPI(config) as api:
        publisher = Publisher(source, api, report=lambda report: view.show(report, publisher))
        work = spawn(publisher.run())
        try:
            with view:
                try:
                    await asyncio.wait({work})
                except asyncio.CancelledError:
                    publisher.stop()
                    await asyncio.wait({work})
        finally:
            work.cancel()
            await asyncio.wait({work})
            view.end(publisher)
    work.result()


class _JsonLines:
    """Prints reports as JSON lines, for programs."""

    def __init__(self, on_broken_pipe: Callable[[], None]) -> None:
        self._on_broken_pipe = on_broken_pipe

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, report: Report, publisher: Publisher) -> None:
        totals = {"total": publisher.published, "dead": publisher.dead, "lag": publisher.lag}
        fields: dict[str, Any]
        match report:
            case Published(items):
                fields = {"published": len(items), **totals}
            case DeadLetter(item, reason):
                names = {"channel": item.channel, "event": item.event}
                fields = {"dead_letter": item.id, **names, "reason": reason, **totals}
            case Waiting(error, seconds):
                fields = {"waiting": round(seconds, 3), "reason": str(error), **totals}
        print_json(fields, self._on_broken_pipe)

    def end(self, publisher: Publisher) -> None:
        """Print nothing: the last line already has the totals."""


class _View:
    """Prints problems for people, one per line. In a terminal, one more line shows the progress."""

    def __init__(self, source: str, address: str) -> None:
        console = Console(stderr=True, highlight=False)
        self._tell = View(console, ["-"]).status
        self._route = f"{source} to {address}"
        self._line = console.status(printable(f"{self._route}: nothing published yet"))
        self._shows_line = console.is_terminal
        self._is_waiting = False

    def __enter__(self) -> None:
        self._tell(f"publishing from {self._route}; press Ctrl-C to stop", "green")
        if self._shows_line:
            self._line.start()

    def __exit__(self, *_: object) -> None:
        self._line.stop()

    def show(self, report: Report, publisher: Publisher) -> None:
        match report:
            case DeadLetter(item, reason):
                name = f"{item.event or 'no event'} on {item.channel or 'no channel'}"
                self._tell(f"dead letter {item.id}, {name}: {reason}", "red")
            case Waiting(error, seconds):
                self._is_waiting = True
                self._tell(f"{error}; the next try is in {plural(round(seconds, 1), 'second')}", "yellow")
            case Published() if self._is_waiting:
                self._is_waiting = False
                self._tell("publishing again", "green")
        self._line.update(Text(printable(f"{self._route}: {_totals(publisher)}")))

    def end(self, publisher: Publisher) -> None:
        print_lines([_totals(publisher)])


def _totals(publisher: Publisher) -> str:
    lag = "" if publisher.lag is None else f", lag {publisher.lag:,}"
    dead = plural(publisher.dead, "dead letter")
    return f"published {plural(publisher.published, 'event')}, {dead}{lag}"
