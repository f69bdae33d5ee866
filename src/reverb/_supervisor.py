"""The life of the connection, and its only owner: connecting, staying connected, and disconnecting.

A life begins with :meth:`Supervisor.start` and ends with :meth:`Supervisor.stop`, or with a loss that is for good.
One task lives it: connect, wait for the loss, decide, back off, and start over. Another one ends it, once for all
who ask for that; no life begins before the last one has ended. Callers only wait for these tasks, so it does no
harm to cancel them wherever they are.
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
"""Seconds of trying after which the connection is called unavailable (as in pusher-js)."""
_GOOD_AFTER = 5.0
"""Seconds that a connection, on which everything was answered, has to live before the next delays start over."""


class Outage(NamedTuple):
    """A time without connection."""

    since: float
    """When it began, on the clock of :func:`time.monotonic`: with the last sign of life."""
    attempts: int
    """Connection attempts made since then."""


class Host(Protocol):
    """Who has the connection, and is told about it."""

    def began(self) -> None:
        """A life begins."""

    def new_session(self) -> Session:
        """Return what lives and dies with the next connection."""

    def connected(self) -> None:
        """The server has greeted us."""

    def state_changed(self, previous: ConnectionState, current: ConnectionState) -> None: ...

    def reconnected(self, outage: Outage) -> None:
        """The connection is back, and everything has been asked for again."""

    def ended(self, error: ReverbError, *, is_failure: bool) -> None:
        """There is no connection, and there will be none: that was asked for, or it failed."""

    async def close(self) -> None:
        """Handlers have had their time: let go of everything. What can't wait is done first."""


class Supervisor:
    """Keeps one connection up, from :meth:`start` to :meth:`stop` or to a loss that is for good."""

    def __init__(self, config: ReverbConfig, dispatcher: Dispatcher, host: Host) -> None:
        self.state = ConnectionState.INITIALIZED
        self.reconnects = 0
        """How many times a lost connection was made again."""
        self.failure: ReverbError | None = None
        """What ended the last connection for good, or the last attempt to make one."""
        self._config = config
        self._log_fields = {"reverb_address": config.address}
        self._dispatcher = dispatcher
        self._host = host
        self._life: _Life | None = None
        self._ending: asyncio.Task[None] | None = None
        """What ends the life, while it does."""
        self._stopping = 0
        """How many wait for that."""
        self._is_hurried = False
        """Whether nobody waits for it any more."""
        self._session: Session | None = None
        self._state_changed: asyncio.Future[None] | None = None
        self._unavailable_timer: asyncio.TimerHandle | None = None
        self._backoff = Backoff(config.reconnect_delay_min, config.reconnect_delay_max)
        self._outage: Outage | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a connection, or there will be one."""
        return self._life is not None and self._ending is None and not self._life.task.done()

    @property
    def attempts(self) -> int:
        """Connection attempts since the connection was lost."""
        return 0 if self._outage is None else self._outage.attempts

    # --- for callers -------------------------------------------------------------------------------------------

    async def start(self, ssl_context: ssl.SSLContext | None) -> None:
        """Connect, with one attempt, and raise what it fails with; from then on reconnect.

        Does nothing when running; waits for the attempt when that is under way, and for the end of the last life.
        When all who wait for the attempt are cancelled, it is given up.
        """
        while self._ending is not None:
            if self._dispatcher.is_handler():
                raise ConnectionError(
                    f"cannot connect to {self._config.address} from a handler that disconnect() waits for"
                )
            await asyncio.wait({self._ending})
        life = self._life
        if life is None or life.task.done():
            life = self._begin(ssl_context)
        life.waiting += 1
        try:
            await asyncio.wait({life.opened})
        except asyncio.CancelledError:
            life.waiting -= 1
            if not (life.is_taken or life.waiting or life.task.done()):
                await self.stop()
            raise
        life.waiting -= 1
        error = life.opened.exception()
        if isinstance(error, ReverbError):
            raise again(error)
        life.is_taken = True

    async def stop(self) -> None:
        """Close the connection, if there is one, let handlers finish, and end.

        When all who wait for that are cancelled, it goes on without them, and without waiting for handlers or the
        server.
        """
        if self._ending is None:
            self._is_hurried = False
            self._ending = spawn(self._end(self._life))
            self._ending.add_done_callback(self._on_stopped)
        worker = self._dispatcher.current_worker()
        if worker is not None:
            self._dispatcher.spare(worker)  # its handler waits for us
        ending = self._ending
        self._stopping += 1
        try:
            await asyncio.wait({ending})
        finally:
            self._stopping -= 1
            if not (ending.done() or self._stopping):
                self._hurry()

    async def wait_connected(self, timeout: float | None) -> None:
        """Wait until connected; raise what makes that impossible, or after ``timeout`` seconds."""
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
        """Wait for :meth:`stop`; raise what ended the connection for good."""
        if self._life is None:
            raise self.why_not_running()
        await asyncio.wait({self._life.task})
        if self.failure is not None:
            raise again(self.failure)

    def why_not_running(self) -> ReverbError:
        """The error for those who want something of a connection that there is not, and will not be."""
        if self.failure is not None:
            return again(self.failure)
        state = self.state if self._ending is None else "disconnecting"
        return ConnectionError(
            f"not connected to {self._config.address} ({state}): call connect() first, or use 'async with'"
        )

    # --- beginning and ending ----------------------------------------------------------------------------------

    def _begin(self, ssl_context: ssl.SSLContext | None) -> _Life:
        self.failure = None
        self._outage = None
        self._backoff.restart()
        self._dispatcher.open()
        self._host.began()
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        life = self._life = _Life(opened, spawn(self._run(ssl_context, opened)))
        life.task.add_done_callback(lambda task: self._on_life_over(life))
        self._set_state(ConnectionState.CONNECTING)
        return life

    def _on_life_over(self, life: _Life) -> None:
        # A callback, because a task that is cancelled before its first step never gets to a "finally".
        if life.task.cancelled():
            disconnected = ConnectionError(f"disconnected from {self._config.address}")
            if not life.opened.done():
                life.opened.set_exception(
                    ConnectionError(f"disconnected while connecting to {self._config.address}")
                )
            self._set_state(ConnectionState.DISCONNECTED)
            self._host.ended(disconnected, is_failure=False)
        life.opened.exception()  # there may be nobody left to see it

    async def _end(self, life: _Life | None) -> None:
        """End a life. Cancelled, it waits for nothing any more."""
        try:
            if life is not None:
                life.task.cancel()
                await asyncio.wait({life.task})
            await self._dispatcher.drain(0.0 if self._is_hurried else self._config.drain_timeout)
        except asyncio.CancelledError:
            self._hurry()
            await self._dispatcher.drain(0.0)
            raise
        finally:
            await self._host.close()

    def _on_stopped(self, ending: asyncio.Task[None]) -> None:
        self._ending = None
        if not ending.cancelled() and (error := ending.exception()) is not None:
            log.error("internal error while disconnecting", exc_info=error, extra=self._log_fields)

    def _hurry(self) -> None:
        """Nobody waits for the end any more: it is not to wait for the server and for handlers either."""
        self._is_hurried = True
        if self._session is not None:
            self._session.connection.abort()
        self._dispatcher.hurry()

    # --- one life ----------------------------------------------------------------------------------------------

    async def _run(self, ssl_context: ssl.SSLContext | None, opened: asyncio.Future[None]) -> None:
        try:
            while True:
                loss, action = await self._connect_once(ssl_context, opened)
                delay = self._delay_after(action) if opened.done() else None
                if delay is None:
                    break
                self._set_state(ConnectionState.CONNECTING)
                log.warning("%s; connecting again in %.1f seconds", loss, delay, extra=self._log_fields)
                await asyncio.sleep(delay)
        except Exception as error:  # a bug of ours: it must not end this task and look like a connection
            loss, action = ReverbError(f"internal error: {error!r}"), Action.FAIL
            loss.__cause__ = error
        self.failure = loss
        self._host.ended(loss, is_failure=True)
        if opened.done():
            log.error("%s; not connecting again", loss, exc_info=loss.__cause__, extra=self._log_fields)
            self._set_state(ConnectionState.FAILED)
        else:
            is_final = action is Action.FAIL or loss.code in _FINAL_STATUSES
            self._set_state(ConnectionState.FAILED if is_final else ConnectionState.DISCONNECTED)
            if not opened.done():
                opened.set_exception(loss)

    async def _connect_once(
        self, ssl_context: ssl.SSLContext | None, opened: asyncio.Future[None]
    ) -> tuple[ReverbError, Action]:
        """Live through one connection; return what ended it, and what to do about that."""
        if self._outage is not None:
            self._outage = self._outage._replace(attempts=self._outage.attempts + 1)
        session = self._session = self._host.new_session()
        connection = session.connection
        try:
            try:
                await connection.open(ssl_context)
            except ReverbError as error:
                return error, action_after(error.code, None, established=False, is_first=not opened.done())
            if connection.is_open:  # its end may have come right behind the greeting
                if self._outage is not None:
                    self.reconnects += 1
                address, socket_id = self._config.address, visible(connection.socket_id)
                log.info("connected to %s as %s", address, socket_id, extra=self._log_fields)
                self._host.connected()
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
            self._host.reconnected(outage)

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
        self._host.state_changed(previous, current)


class _Life:
    """From a connect() to the end of all that came of it."""

    __slots__ = ("is_taken", "opened", "task", "waiting")

    def __init__(self, opened: asyncio.Future[None], task: asyncio.Task[None]) -> None:
        self.opened = opened
        """Done when the first attempt is over, with what it failed with."""
        self.task = task
        self.waiting = 0
        """How many calls of connect() wait for the first attempt, …"""
        self.is_taken = False
        """… and whether one of them has returned."""


_FINAL_STATUSES = (401, 403, 404)
"""HTTP statuses that, at a first attempt, mean a wrong address more often than a server that is not ready."""
