"""Telling systemd how the service is: ready, connected or not, alive (the protocol of ``sd_notify(3)``).

systemd asks for it, with the variable ``NOTIFY_SOCKET`` for units of ``Type=notify`` and ``WATCHDOG_USEC`` for
those with ``WatchdogSec``. Where it does not, nothing in here does anything. What it sees is a process, whatever
number of clients listen in it: so that is what it is told about.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic

from ._core import Core
from ._tasks import spawn
from .events import ConnectionState
from .exceptions import ReverbError

log = logging.getLogger("reverb.systemd")

_LOOK_INTERVAL = 5.0
"""Seconds between two looks at what changes without an event, the number of missing channels."""
_LEEWAY = 10.0
"""Seconds that an attempt to connect may be late, on a busy machine, until it counts as never coming."""

_STATUS = {
    ConnectionState.CONNECTING: "connecting to {}",
    ConnectionState.CONNECTED: "connected to {}",
    ConnectionState.UNAVAILABLE: "{} is unavailable, still connecting",
}


@asynccontextmanager
async def service(core: Core) -> AsyncIterator[None]:
    """Tell systemd about a client while it listens, which is all that is done in here."""
    if not os.environ.get("NOTIFY_SOCKET"):
        yield
        return
    # Only the end of the process is sure to be the end of the service: who stops listening may listen again.
    atexit.unregister(_tell_end)
    atexit.register(_tell_end)
    listener = _Listener(core)
    _listeners.append(listener)
    attending = spawn(_attend(listener))
    last_words = f"disconnected from {core.config.address}"
    try:
        yield
    except ReverbError as error:
        last_words = str(error)
        raise
    finally:
        _listeners.remove(listener)
        attending.cancel()
        await asyncio.wait({attending})
        if _listeners:
            _tell_state()
        else:
            _send(_status(last_words))


@contextmanager
def remark(text: Callable[[], str]) -> Iterator[None]:
    """Have what a client is used for told behind how it is."""
    _remarks.append(text)
    try:
        yield
    finally:
        _remarks.remove(text)


async def _attend(listener: _Listener) -> None:
    watchdog = _watchdog()
    interval = _LOOK_INTERVAL if watchdog is None else min(_LOOK_INTERVAL, watchdog / 2)
    while True:
        told = [listener.status, *_all_remarks()]
        _tell_state()
        changed = False
        while not changed and [listener.status, *_all_remarks()] == told:
            listener.look()
            if watchdog is not None and all(each.is_alive(watchdog) for each in tuple(_listeners)):
                _send("WATCHDOG=1")
            changed = await listener.wait_changed(interval)


class _Listener:
    """A client that listens, and when it was last seen alive.

    Alive is more than running: while connected, the connection looks after itself; while it is not, attempts to
    connect have to follow each other as they are meant to; and while reading is paused because handlers can't keep
    up, events have to be delivered. A handler that takes long, or for ever, is no sign of death: it holds up its
    own channel only, until so much waits that reading is paused.
    """

    def __init__(self, core: Core) -> None:
        config = core.config
        self._core = core
        self._address = config.address
        self._longest_outage_step = config.reconnect_delay_max + config.connect_timeout + _LEEWAY
        self._seen: object = None
        self._alive_at = monotonic()

    @property
    def status(self) -> str:
        status = _STATUS.get(self._core.supervisor.state, "disconnected from {}").format(self._address)
        session = self._core.session
        # Behind a reconnect all are missing for a moment, which is not worth a word.
        missing = self._core.channels.missing if session is not None and session.is_restored else 0
        return f"{status}, channels missing: {missing}" if missing else status

    @property
    def is_connected(self) -> bool:
        return self._core.session is not None

    async def wait_changed(self, timeout: float | None) -> bool:
        """Wait until there is something else to tell, for ``timeout`` seconds at most."""
        return await self._core.supervisor.wait_changed(timeout)

    def look(self) -> None:
        """Note what the client does. Called by the loop that it lives on: if that hangs, nobody looks."""
        seen = self._what_has_to_change()
        if seen is None or seen != self._seen:
            self._alive_at = monotonic()
        self._seen = seen

    def is_alive(self, watchdog: float) -> bool:
        """Whether it was alive within the last ``watchdog`` seconds, or had reason to wait."""
        allowance = watchdog if self.is_connected else max(watchdog, self._longest_outage_step)
        return monotonic() - self._alive_at < allowance

    def _what_has_to_change(self) -> object:
        if not self.is_connected:
            return "attempts", self._core.supervisor.attempts
        if self._core.dispatcher.is_full:
            return "pending", self._core.dispatcher.pending_events
        return None


_listeners: list[_Listener] = []
"""All of this process, on whatever event loop."""
_remarks: list[Callable[[], str]] = []


def _all_remarks() -> list[str]:
    return [text() for text in tuple(_remarks)]


def _watchdog() -> float | None:
    """The seconds of ``WatchdogSec``, if this process is the one that is watched."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) > 0 else None


def _tell_state() -> None:
    listeners = tuple(_listeners)
    # Said again after each reconnect: systemd does not mind.
    ready = "READY=1\n" if all(each.is_connected for each in listeners) else ""
    _send(ready + _status(", ".join(dict.fromkeys([*(each.status for each in listeners), *_all_remarks()]))))


def _tell_end() -> None:
    _send("STOPPING=1")


def _status(text: str) -> str:
    """Say what ``systemctl status`` shows, in one line: lines are orders, and an error may quote the server."""
    return f"STATUS={' '.join(text.split())}"


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return  # it was there when this process began to listen
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux's abstract sockets
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.setblocking(False)
            notify.sendto(message.encode(), address)
    except OSError as error:
        log.warning("systemd can't be told %r: %s (NOTIFY_SOCKET)", message, error)
