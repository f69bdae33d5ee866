"""Tells systemd the state of the service: ready, connected or not, alive (the protocol of ``sd_notify(3)``).

systemd asks for it with variables: ``NOTIFY_SOCKET`` for units with ``Type=notify``, and ``WATCHDOG_USEC`` for
units with ``WatchdogSec``. Without them, nothing here does anything. systemd sees one process, however many
clients listen in it. So the state is that of all of them.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic

from ._core import Core
from ._tasks import spawn
from .events import ConnectionState
from .exceptions import ReverbError

log = logging.getLogger("reverb.systemd")

_LOOK_INTERVAL = 5.0
"""Seconds between two checks of the number of missing channels, which changes without an event."""
_LEEWAY = 10.0
"""Seconds that a connection attempt may be late, on a busy machine, before the client counts as dead."""

_STATUS = {
    ConnectionState.CONNECTING: "connecting to {}",
    ConnectionState.CONNECTED: "connected to {}",
    ConnectionState.UNAVAILABLE: "{} is unavailable, still connecting",
}


@asynccontextmanager
async def service(core: Core) -> AsyncIterator[None]:
    """Tell systemd about a client while it listens."""
    if not os.environ.get("NOTIFY_SOCKET"):
        yield
        return
    # Only the end of the process is the end of the service: a client may listen again.
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
    """Add a text about the use of the client to the status."""
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
            listener.check()
            if watchdog is not None and all(each.is_alive(watchdog) for each in tuple(_listeners)):
                _send("WATCHDOG=1")
            changed = await listener.wait_changed(interval)


class _Listener:
    """A client that listens, and when it was last seen alive.

    It is alive under these conditions. Connected: the connection checks itself. Not connected: connection attempts
    follow each other in time. Reading paused because handlers don't keep up: events are delivered. A handler that
    takes long, or never ends, is no reason to restart: it delays its own channel only, until so many events wait
    that reading is paused.
    """

    def __init__(self, core: Core) -> None:
        config = core.config
        self._core = core
        self._address = config.address
        self._longest_outage_step = config.reconnect_delay_max + config.connect_timeout + _LEEWAY
        self._progress_seen: object = None
        self._alive_at = monotonic()

    @property
    def status(self) -> str:
        status = _STATUS.get(self._core.supervisor.state, "disconnected from {}").format(self._address)
        session = self._core.session
        # Right after a reconnect all channels are missing for a moment. That is not reported.
        missing = self._core.channels.missing if session is not None and session.is_restored else 0
        return f"{status}, channels missing: {missing}" if missing else status

    @property
    def is_connected(self) -> bool:
        return self._core.session is not None

    async def wait_changed(self, timeout: float | None) -> bool:
        """Wait until the status has changed, for ``timeout`` seconds at most."""
        return await self._core.supervisor.wait_changed(timeout)

    def check(self) -> None:
        """Note whether the client makes progress. The loop of the client calls this: if the loop hangs, nobody
        does."""
        progress = self._progress()
        if progress is None or progress != self._progress_seen:
            self._alive_at = monotonic()
        self._progress_seen = progress

    def is_alive(self, watchdog: float) -> bool:
        """Return whether it was alive within the last ``watchdog`` seconds, or had a reason to wait."""
        allowance = watchdog if self.is_connected else max(watchdog, self._longest_outage_step)
        return monotonic() - self._alive_at < allowance

    def _progress(self) -> object:
        if not self.is_connected:
            return "attempts", self._core.supervisor.attempts
        if self._core.dispatcher.is_full:
            return "pending", self._core.dispatcher.pending_events
        return None


_listeners: list[_Listener] = []
"""All clients that listen in this process, on any event loop."""
_remarks: list[Callable[[], str]] = []


def _all_remarks() -> list[str]:
    return [text() for text in tuple(_remarks)]


def _watchdog() -> float | None:
    """Return the seconds of ``WatchdogSec``, if systemd watches this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) > 0 else None


def _tell_state() -> None:
    listeners = tuple(_listeners)
    # Sent again after each reconnect. systemd accepts that.
    ready = "READY=1\n" if all(each.is_connected for each in listeners) else ""
    _send(ready + _status(", ".join(dict.fromkeys([*(each.status for each in listeners), *_all_remarks()]))))


def _tell_end() -> None:
    _send("STOPPING=1")


def _status(text: str) -> str:
    """Return the line for ``systemctl status``. One line, because each line is a command and an error may quote
    the server."""
    return f"STATUS={' '.join(text.split())}"


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or sys.platform == "win32":
        return  # it was set when this process began to listen
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket of Linux
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.setblocking(False)
            notify.sendto(message.encode(), address)
    except OSError as error:
        log.warning("cannot send %r to systemd: %s (NOTIFY_SOCKET)", message, error)
