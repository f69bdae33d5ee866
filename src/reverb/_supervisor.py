"""Connects, stays connected, and disconnects. The only owner of the connection.

A lifetime begins with :meth:`Supervisor.start`. It ends with :meth:`Supervisor.stop`, or when the connection is
lost for good. One task connects, waits for the loss, decides, backs off, and starts over. Another task ends the
lifetime, once for all callers. No lifetime begins before the last one has ended. Callers only wait for these
tasks, so they can be cancelled anywhere without harm.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from time import monotonic
from typing import NamedTuple, Protocol

from ._backoff import Backoff
from ._dispatch import Dispatcher
from ._protocol import Action, action_after
from ._session import Session
from ._tasks import spawn
from ._visible import visible
from .config import ReverbConfig
from .events import ConnectionState
from .exceptions import ConnectionError, ReverbError, TimeoutError, again, plural

log = logging.getLogger("reverb.supervisor")

_UNAVAILABLE_AFTER = 10.0
"""Seconds of connecting after which the state becomes UNAVAILABLE, as in pusher-js."""
_GOOD_AFTER = 5.0
"""Seconds that a restored connection has to last before delays start again at the minimum."""


class Outage(NamedTuple):
    """A time without a connection."""

    since: float
    """When it began: at the last sign of life, on the clock of :func:`time.monotonic`."""
    attempts: int
    """Connection attempts since then."""


class Owner(Protocol):
    """The owner of the supervisor, which the supervisor calls."""

    def began(self) -> None:
        """A lifetime begins."""

    def new_session(self) -> Session:
        """Return a session for the next connection."""

    def connected(self) -> None:
        """The server has accepted the connection."""

    def state_changed(self, previous: ConnectionState, current: ConnectionState) -> None: ...

    def reconnected(self, outage: Outage) -> None:
        """The connection is restored after an outage."""

    def ended(self, error: ReverbError, *, is_failure: bool) -> None:
        """There is no connection, and there will be none: on purpose, or because of a failure."""

    async def close(self) -> None:
        """Handlers had their time: release everything. Steps that must not be skipped come before the first
        ``await``."""


class Supervisor:
    """Keeps one connection up, from :meth:`start` to :meth:`stop` or until it is lost for good."""

    def __init__(self, config: ReverbConfig, dispatcher: Dispatcher, owner: Owner) -> None:
        self.state = ConnectionState.INITIALIZED
        self.reconnects = 0
        """How many times the client has reconnected."""
        self.failure: ReverbError | None = None
        """The error that ended the last connection for good, or the last attempt to connect."""
        self._config = config
        self._log_fields = {"reverb_address": config.address}
        self._dispatcher = dispatcher
        self._owner = owner
        self._lifetime: _Lifetime | None = None
        self._ending: asyncio.Task[None] | None = None
        """The task that is ending the lifetime."""
        self._stopping = 0
        """Number of callers that wait for it."""
        self._is_abandoned = False
        """Whether no caller waits for it any more."""
        self._session: Session | None = None
        self._state_changed: asyncio.Future[None] | None = None
        self._unavailable_timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff(config.reconnect_delay_min, config.reconnect_delay_max)
        self._outage: Outage | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a connection, or the client is connecting."""
        return self._lifetime is not None and self._ending is None and not self._lifetime.task.done()

    @property
    def attempts(self) -> int:
        """Connection attempts since the connection was lost."""
        return 0 if self._outage is None else self._outage.attempts

    # --- for callers -------------------------------------------------------------------------------------------

    async def start(self, ssl_context: ssl.SSLContext | None) -> None:
        """Connect with one attempt, and raise its error. After success, reconnect from then on.

        Does nothing if it is running. Waits for an attempt that is under way, and for the end of the last
        lifetime. If all callers that wait for the attempt are cancelled, the attempt is cancelled, too.
        """
        while self._ending is not None:
            if self._dispatcher.is_handler():
                raise ConnectionError(
                    f"cannot connect to {self._config.address} from a handler that disconnect() waits for"
                )
            await asyncio.wait({self._ending})
        lifetime = self._lifetime
        if lifetime is None or lifetime.task.done():
            lifetime = self._begin(ssl_context)
        lifetime.waiting += 1
        try:
            await asyncio.wait({lifetime.opened})
        except asyncio.CancelledError:
            lifetime.waiting -= 1
            if not (lifetime.is_taken or lifetime.waiting or lifetime.task.done()):
                await self.stop()
            raise
        lifetime.waiting -= 1
        error = lifetime.opened.exception()
        if isinstance(error, ReverbError):
            raise again(error)
        lifetime.is_taken = True

    async def stop(self) -> None:
        """Close the connection, let handlers finish, and end the lifetime.

        If all callers that wait for it are cancelled, it continues, but no longer waits for handlers and the
        server.
        """
        if self._ending is None:
            self._is_abandoned = False
            self._ending = spawn(self._end(self._lifetime))
            self._ending.add_done_callback(self._on_stopped)
        worker = self._dispatcher.current_worker()
        if worker is not None:
            self._dispatcher.exclude(worker)  # its handler waits for this
        ending = self._ending
        self._stopping += 1
        try:
            await asyncio.wait({ending})
        finally:
            self._stopping -= 1
            if not (ending.done() or self._stopping):
                self._stop_at_once()

    async def wait_connected(self, timeout: float | None) -> None:
        """Wait until connected; raise the reason if that is impossible, or TimeoutError after ``timeout``
        seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        while self.state is not ConnectionState.CONNECTED:
            if not self.is_running:
                raise self.why_not_running()
            remaining = None if deadline is None else deadline - monotonic()
            if timeout is not None and remaining is not None and remaining <= 0:
                raise TimeoutError(f"not connected to {self._config.address} within {plural(timeout, 'second')}")
            await self.wait_changed(remaining)

    async def wait_changed(self, timeout: float | None) -> bool:
        """Wait for the next change of state, for ``timeout`` seconds at most; return whether there was one."""
        if self._state_changed is None:
            self._state_changed = asyncio.get_running_loop().create_future()
        changed, _ = await asyncio.wait({self._state_changed}, timeout=timeout)
        return bool(changed)

    async def wait_ended(self) -> None:
        """Wait for :meth:`stop`; raise the error that ended the connection for good."""
        if self._lifetime is None:
            raise self.why_not_running()
        await asyncio.wait({self._lifetime.task})
        if self.failure is not None:
            raise again(self.failure)

    def why_not_running(self) -> ReverbError:
        """Return the error for callers that need a connection when there is none and will be none."""
        if self.failure is not None:
            return again(self.failure)
        state = self.state if self._ending is None else "disconnecting"
        return ConnectionError(
            f"not connected to {self._config.address} ({state}): call connect() first, or use 'async with'"
        )

    # --- beginning and ending ----------------------------------------------------------------------------------

    def _begin(self, ssl_context: ssl.SSLContext | None) -> _Lifetime:
        self.failure = None
        self._outage = None
        self._backoff.restart()
        self._dispatcher.open()
        self._owner.began()
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lifetime = self._lifetime = _Lifetime(opened, spawn(self._run(ssl_context, opened)))
        lifetime.task.add_done_callback(lambda task: self._on_lifetime_over(lifetime))
        self._set_state(ConnectionState.CONNECTING)
        return lifetime

    def _on_lifetime_over(self, lifetime: _Lifetime) -> None:
        # A callback, because a task that is cancelled before its first step never reaches a "finally".
        if lifetime.task.cancelled():
            disconnected = ConnectionError(f"disconnected from {self._config.address}")
            if not lifetime.opened.done():
                lifetime.opened.set_exception(
                    ConnectionError(f"disconnected while connecting to {self._config.address}")
                )
            self._set_state(ConnectionState.DISCONNECTED)
            self._owner.ended(disconnected, is_failure=False)
        lifetime.opened.exception()  # there may be no caller left to retrieve it

    async def _end(self, lifetime: _Lifetime | None) -> None:
        """End a lifetime. If this is cancelled, it waits for nothing any more."""
        try:
            if lifetime is not None:
                lifetime.task.cancel()
                await asyncio.wait({lifetime.task})
            await self._dispatcher.drain(0.0 if self._is_abandoned else self._config.drain_timeout)
        except asyncio.CancelledError:
            self._stop_at_once()
            await self._dispatcher.drain(0.0)
            raise
        finally:
            await self._owner.close()

    def _on_stopped(self, ending: asyncio.Task[None]) -> None:
        self._ending = None
        if not ending.cancelled() and (error := ending.exception()) is not None:
            log.error("internal error while disconnecting", exc_info=error, extra=self._log_fields)

    def _stop_at_once(self) -> None:
        """No caller waits for the end any more: don't wait for the server and the handlers."""
        self._is_abandoned = True
        if self._session is not None:
            self._session.connection.abort()
        self._dispatcher.cancel_handlers()

    # --- one life ----------------------------------------------------------------------------------------------

    async def _run(self, ssl_context: ssl.SSLContext | None, opened: asyncio.Future[None]) -> None:
        try:
            while True:
                loss, action = await self._connect_once(ssl_context, opened)
                delay = self._delay_after(action) if opened.done() else None
                if delay is None:
                    break
                self._set_state(ConnectionState.CONNECTING)
                log.warning("%s; reconnecting in %.1f seconds", loss, delay, extra=self._log_fields)
                await asyncio.sleep(delay)
        except Exception as error:  # a bug of ours: without this, the task would end and the client look connected
            loss, action = ReverbError(f"internal error: {error!r}"), Action.FAIL
            loss.__cause__ = error
        self.failure = loss
        self._owner.ended(loss, is_failure=True)
        if opened.done():
            log.error("%s; not reconnecting", loss, exc_info=loss.__cause__, extra=self._log_fields)
            self._set_state(ConnectionState.FAILED)
        else:
            is_final = action is Action.FAIL or loss.code in _FINAL_STATUSES
            self._set_state(ConnectionState.FAILED if is_final else ConnectionState.DISCONNECTED)
            if not opened.done():
                opened.set_exception(loss)

    async def _connect_once(
        self, ssl_context: ssl.SSLContext | None, opened: asyncio.Future[None]
    ) -> tuple[ReverbError, Action]:
        """Make one connection and wait for its end; return the reason, and what to do about it."""
        if self._outage is not None:
            self._outage = self._outage._replace(attempts=self._outage.attempts + 1)
        session = self._session = self._owner.new_session()
        connection = session.connection
        try:
            try:
                await connection.open(ssl_context)
            except ReverbError as error:
                return error, action_after(error.code, None, established=False, is_first=not opened.done())
            if connection.is_open:  # it may have ended right after it was established
                if self._outage is not None:
                    self.reconnects += 1
                address, socket_id = self._config.address, visible(connection.socket_id)
                log.info("connected to %s as %s", address, socket_id, extra=self._log_fields)
                self._owner.connected()
                self._set_state(ConnectionState.CONNECTED)
                session.start(lambda: self._on_restored(opened))
            loss = await connection.wait_lost()
        except asyncio.CancelledError:
            await connection.close()
            raise
        finally:
            connection.abort()
        if not opened.done():
            opened.set_result(None)
        if session.is_restored and connection.alive_at - connection.opened_at >= _GOOD_AFTER:
            self._backoff.restart()
        if self._outage is None:
            self._outage = Outage(connection.alive_at, 0)
        error_code = loss.code if connection.close_code is None else None
        return loss, action_after(error_code, connection.close_code, established=True)

    def _on_restored(self, opened: asyncio.Future[None]) -> None:
        if not opened.done():
            opened.set_result(None)
        outage, self._outage = self._outage, None
        if outage is not None:
            self._owner.reconnected(outage)

    def _delay_after(self, action: Action) -> float | None:
        """Return the seconds to wait before reconnecting; None for never."""
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
        self._owner.state_changed(previous, current)


class _Lifetime:
    """The time from a ``connect()`` to the end of everything that it started."""

    __slots__ = ("is_taken", "opened", "task", "waiting")

    def __init__(self, opened: asyncio.Future[None], task: asyncio.Task[None]) -> None:
        self.opened = opened
        """Done when the first attempt is over; has its error."""
        self.task = task
        self.waiting = 0
        """Number of ``connect()`` calls that wait for the first attempt."""
        self.is_taken = False
        """Whether one of them has returned."""


_FINAL_STATUSES = (401, 403, 404)
"""HTTP statuses that, at the first attempt, usually mean a wrong address, not a server that is not ready."""
