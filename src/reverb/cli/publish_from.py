"""``reverb publish --from``: what others write into a stream of an engine, over the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from rich.console import Console
from rich.text import Text

from .. import ConfigurationError, ReverbAPI, ReverbConfig
from .._checks import text
from .._settings import Checked, SecretStr, setting
from .._tasks import spawn
from ..relay import DeadLetter, NatsSource, Published, Publisher, RedisSource, Report, Source, Waiting
from .output import print_lines
from .process import ends_this_task
from .view import View, plural, print_json, printable

__all__ = ["publish_from", "source_of"]

_REDIS, _NATS = ("redis", "rediss"), ("nats", "tls")


@dataclass(frozen=True, init=False, eq=False, repr=False)
class _Settings(Checked):
    relay_password: SecretStr | None = setting(text, None, is_secret=True)
    """The engine's password, or for NATS the token where the URL has no user."""


def source_of(
    url: str, *, group: str, stream: str | None, dead_letter: str | None, consumer: str | None, claim_after: float
) -> Source:
    """Make the source that a URL names. Raises :class:`ConfigurationError` for one that names none."""
    scheme, has_more, _ = url.partition("://")
    if scheme not in (*_REDIS, *_NATS) or not has_more:
        raise ConfigurationError(
            "--from takes a URL such as redis://host:6379/0, rediss://host:6379/0, nats://host:4222 or "
            "tls://host:4222"
        )
    password = _Settings.from_env().relay_password
    found = SecretStr(url if password is None else _with_password(url, password))
    options: dict[str, str] = {"group": group}
    if stream is not None:
        options["stream"] = stream
    if dead_letter is not None:
        options["dead_letter"] = dead_letter
    if scheme in _NATS:
        if consumer is not None:
            raise ConfigurationError(
                "--consumer is for Redis: JetStream knows the processes of a group without names"
            )
        return NatsSource(found.get_secret_value(), claim_after=claim_after, **options)
    return RedisSource(found.get_secret_value(), consumer=consumer, claim_after=claim_after, **options)


def _with_password(url: str, password: SecretStr) -> str:
    """Put a password into a URL, which may have a user."""
    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    user, _, _ = login.partition(":")
    between = ":" if user or parts.scheme in _REDIS else ""  # a NATS token stands alone
    netloc = f"{user}{between}{quote(password.get_secret_value(), safe='')}@{place}"
    return urlunsplit(parts._replace(netloc=netloc))


async def publish_from(config: ReverbConfig, source: Source, *, as_json: bool) -> None:
    """Publish until cancelled; what has begun is finished then. Cancelled again, it ends at once."""
    view = _JsonLines(ends_this_task()) if as_json else _View(source.address, config.address)
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
    """Prints what happens, for programs."""

    def __init__(self, on_unread: Callable[[], None]) -> None:
        self._on_unread = on_unread

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
        print_json(fields, self._on_unread)

    def end(self, publisher: Publisher) -> None:
        """Nothing: the last line has the totals."""


class _View:
    """Tells people what goes wrong, a line each, and in a terminal how far it is, in one line that changes."""

    def __init__(self, source: str, address: str) -> None:
        console = Console(stderr=True, highlight=False)
        self._tell = View(console, ["-"]).status
        self._way = f"{source} to {address}"
        self._line = console.status(printable(f"{self._way}: nothing published yet"))
        self._shows_line = console.is_terminal
        self._is_away = False

    def __enter__(self) -> None:
        self._tell(f"publishing from {self._way}; Ctrl-C ends it", "green")
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
                self._is_away = True
                self._tell(f"{error}; trying again in {plural(round(seconds, 1), 'second')}", "yellow")
            case Published() if self._is_away:
                self._is_away = False
                self._tell("publishing again", "green")
        self._line.update(Text(printable(f"{self._way}: {_totals(publisher)}")))

    def end(self, publisher: Publisher) -> None:
        print_lines([_totals(publisher)])


def _totals(publisher: Publisher) -> str:
    lag = "" if publisher.lag is None else f", lag {publisher.lag:,}"
    dead = plural(publisher.dead, "dead letter")
    return f"published {plural(publisher.published, 'event')}, {dead}{lag}"
