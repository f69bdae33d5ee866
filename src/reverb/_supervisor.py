"""The life of the connection: one task that connects, waits for the loss, decides, backs off, and starts over."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from time import monotonic
from typing import NamedTuple, Protocol

from ._connection import Connection, Traffic
from ._dispatch import Dispatcher
from ._protocol import Action, Message, action_after
from .config import ReverbConfig
from .events import ConnectionState
from .exceptions import ConnectionError, ReverbError, TimeoutError

log = logging.getLogger("reverb.supervisor")

_UNAVAILABLE_AFTER = 10.0
"""Seconds of trying after which the connection is called unavailable (as in pusher-js)."""


class Outage(NamedTuple):
    """A time without connection."""

    since: float
    """When it began, on the clock of :func:`time.monotonic`."""
    attempts: int
    """Connection attempts made since then."""


class Session(Protocol):
    """What lives on the connection, and is told about it (:class:`ReverbClient`)."""

    _dispatcher: Dispatcher

    def _on_state_change(self, previous: ConnectionState, current: ConnectionState) -> None: ...

    async def _on_connected(self, connection: Connection, outage: Outage | None) -> None: ...

    def _on_message(self, message: Message, size: int) -> None: ...

    def _on_lost(self) -> None: ...

    def _on_failed(self, error: ReverbError) -> None: ...


class Supervisor:
    """Keeps one connection up, from :meth:`start` to :meth:`stop` or to a loss that is for good."""

    def __init__(self, config: ReverbConfig, session: Session) -> None:
        self.connection: Connection | None = None
        self.state = ConnectionState.INITIALIZED
        self.traffic = Traffic()
        self.reconnects = 0
        """How many times a lost connection was made again."""
        self._config = config
        self._log_fields = {"reverb_address": config.address}
        self._session = session
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._opened: asyncio.Future[None] | None = None
        self.failure: ReverbError | None = None
        """What ended the last connection for good, or the last attempt to make one."""
        self._state_changed: asyncio.Future[None] | None = None
        self._unavailable_timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff(config.reconnect_delay_min, config.reconnect_delay_max)
        self._outage: Outage | None = None

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def attempts(self) -> int:
        """Connection attempts since the connection was lost."""
        return 0 if self._outage is None else self._outage.attempts

    async def start(self, ssl_context: ssl.SSLContext | None) -> None:
        """Connect, with one attempt, and raise what it fails with; from then on reconnect.

        Does nothing when running; waits for the attempt when that is under way.
        """
        while self._stopping and self._task is not None:
            await asyncio.wait({self._task})
        if self._task is not None and not self._task.done():
            assert self._opened is not None
            await asyncio.shield(self._opened)
            return
        loop = asyncio.get_running_loop()
        self.failure = None
        self._outage = None
        self._backoff = Backoff(self._config.reconnect_delay_min, self._config.reconnect_delay_max)
        self._opened = loop.create_future()
        self._task = loop.create_task(self._run(ssl_context, self._opened))
        self._task.add_done_callback(self._on_ended)
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connection, if there is one, and end."""
        if self._task is not None and not self._task.done():
            self._stopping = True
            self._task.cancel()
            await asyncio.wait({self._task})

    async def wait_connected(self, timeout: float | None) -> None:
        """Wait until connected; raise what makes that impossible, or after ``timeout`` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        while self.state is not ConnectionState.CONNECTED:
            if not self.is_running:
                raise self.failure or ConnectionError(f"not connected to {self._config.address}: {self.state}")
            remaining = None if deadline is None else deadline - monotonic()
            if remaining is not None and remaining <= 0:
                raise TimeoutError(f"not connected to {self._config.address} within {timeout:g} seconds")
            await self.wait_changed(remaining)

    async def wait_changed(self, timeout: float | None) -> bool:
        """Wait for the next change of state, for ``timeout`` seconds at most; return whether there was one."""
        if self._state_changed is None:
            self._state_changed = asyncio.get_running_loop().create_future()
        changed, _ = await asyncio.wait({self._state_changed}, timeout=timeout)
        return bool(changed)

    async def wait_ended(self) -> None:
        """Wait for :meth:`stop`; raise what ended the connection for good."""
        if self._task is None:
            raise ConnectionError("not connected: call connect() first, or use 'async with'")
        await asyncio.wait({self._task})
        if self.failure is not None:
            raise self.failure

    async def _run(self, ssl_context: ssl.SSLContext | None, opened: asyncio.Future[None]) -> None:
        try:
            while True:
                loss, action = await self._live(ssl_context, opened)
                delay = self._delay_after(action) if opened.done() else None
                if delay is None:
                    break
                self._set_state(ConnectionState.CONNECTING)
                log.warning("%s; connecting again in %.1f seconds", loss, delay, extra=self._log_fields)
                await asyncio.sleep(delay)
        except asyncio.CancelledError:
            self._set_state(ConnectionState.DISCONNECTED)
            raise
        except Exception as error:  # a bug of ours: it must not end this task and look like a connection
            loss, action = ReverbError(f"internal error: {error!r}"), Action.FAIL
            loss.__cause__ = error
        self.failure = loss
        self._session._on_failed(loss)
        if opened.done():
            log.error("%s; not connecting again", loss, exc_info=loss.__cause__, extra=self._log_fields)
            self._set_state(ConnectionState.FAILED)
        else:
            opened.set_exception(loss)
            is_final = action is Action.FAIL or loss.code in _FINAL_STATUSES
            self._set_state(ConnectionState.FAILED if is_final else ConnectionState.DISCONNECTED)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        # A callback, because a task that is cancelled before its first step never gets to a "finally".
        assert self._opened is not None
        self._stopping = False
        if not self._opened.done():
            self._opened.set_exception(ConnectionError(f"disconnected while connecting to {self._config.address}"))
        self._opened.exception()  # start() raises it to whoever asked; nobody has to be left to ask

    async def _live(
        self, ssl_context: ssl.SSLContext | None, opened: asyncio.Future[None]
    ) -> tuple[ReverbError, Action]:
        """Live through one connection; return what ended it, and what to do about that."""
        self._set_state(ConnectionState.CONNECTING)
        if self._outage is not None:
            self._outage = self._outage._replace(attempts=self._outage.attempts + 1)
        try:
            connection = await Connection.open(
                self._config, ssl_context, self._session._dispatcher, self._session._on_message, self.traffic
            )
        except ReverbError as error:
            return error, action_after(error.code, None, established=False)
        self.connection = connection
        if self._outage is not None:
            self.reconnects += 1
        log.info("connected to %s as %s", self._config.address, connection.socket_id, extra=self._log_fields)
        self._set_state(ConnectionState.CONNECTED)
        preparing = asyncio.ensure_future(self._prepare(connection))
        lost = asyncio.ensure_future(connection.wait_lost())
        try:
            await asyncio.wait({preparing, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                opened.set_result(None)
            loss = await lost
        finally:
            self.connection = None
            preparing.cancel()
            await asyncio.wait({preparing})
            self._session._on_lost()
            await connection.close()
            await lost
        self._backoff.lived(monotonic() - connection.opened_at)
        if self._outage is None:
            self._outage = Outage(monotonic(), 0)
        error_code = loss.code if connection.close_code is None else None
        return loss, action_after(error_code, connection.close_code, established=True)

    async def _prepare(self, connection: Connection) -> None:
        try:
            await self._session._on_connected(connection, self._outage)
        except Exception:
            log.exception("internal error while subscribing after connecting", extra=self._log_fields)
        self._outage = None

    def _delay_after(self, action: Action) -> float | None:
        """Seconds to wait before connecting again; None for never."""
        most = self._config.reconnect_max_attempts
        if action is Action.FAIL or not self._config.reconnect_enabled:
            return None
        if most is not None and self._backoff.attempts >= most:
            return None
        return self._backoff.delay(action)

    def _set_state(self, current: ConnectionState) -> None:
        previous = self.state
        if current is previous or (current, previous) == (ConnectionState.CONNECTING, ConnectionState.UNAVAILABLE):
            return
        self.state = current
        if self._unavailable_timer is not None:
            self._unavailable_timer.cancel()
        if current is ConnectionState.CONNECTING:
            self._unavailable_timer = asyncio.get_running_loop().call_later(
                _UNAVAILABLE_AFTER, self._set_state, ConnectionState.UNAVAILABLE
            )
        if self._state_changed is not None:
            self._state_changed.set_result(None)
            self._state_changed = None
        self._session._on_state_change(previous, current)


_FINAL_STATUSES = (401, 403, 404)
"""HTTP statuses that, at a first attempt, mean a wrong address more often than a server that is not ready."""


class Backoff:
    """Delays between attempts to connect: random, so that many clients spread out, between ``least`` seconds and a
    limit that doubles up to ``most``. It starts again once a connection has lasted ``most`` seconds, so that a
    server that accepts and drops at once is not hammered."""

    def __init__(self, least: float, most: float) -> None:
        self.attempts = 0
        """Attempts since a connection lasted."""
        self._least = least
        self._most = most
        self._retried_now = False

    def lived(self, seconds: float) -> None:
        """Note how long a connection lasted."""
        if seconds >= self._most:
            self.attempts = 0
            self._retried_now = False

    def delay(self, action: Action) -> float:
        self.attempts += 1
        if action is Action.RETRY_NOW and not self._retried_now:
            self._retried_now = True
            return 0.0
        limit = min(self._most, self._least * 2 ** min(self.attempts, 64))
        return random.uniform(self._least, limit)  # noqa: S311 - spreading load, not keeping secrets
