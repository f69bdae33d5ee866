"""The life of the connection: one task that connects, waits for the loss, decides, backs off, and starts over."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from time import monotonic
from typing import Protocol

from ._connection import Connection
from ._protocol import Action, Message, action_for_code
from .config import ReverbConfig
from .exceptions import ConnectionError, ReverbError

log = logging.getLogger("reverb.supervisor")


class Session(Protocol):
    """What lives on the connection, and is told about it (:class:`ReverbClient`)."""

    def _on_message(self, message: Message) -> None: ...

    async def _on_connected(self, connection: Connection) -> None: ...

    def _on_lost(self) -> None: ...

    def _on_failed(self, error: ReverbError) -> None: ...


class Supervisor:
    """Keeps one connection up, from :meth:`start` to :meth:`stop` or to a loss that is for good."""

    def __init__(self, config: ReverbConfig, session: Session) -> None:
        self.connection: Connection | None = None
        self._config = config
        self._session = session
        self._task: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._failure: ReverbError | None = None
        self._backoff = Backoff(config.reconnect_delay_min, config.reconnect_delay_max)

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def start(self, ssl_context: ssl.SSLContext | None) -> None:
        """Connect, with one attempt, and raise what it fails with; from then on reconnect.

        Does nothing when running; waits for the attempt when that is under way.
        """
        if self.is_running:
            assert self._opened is not None
            await asyncio.shield(self._opened)
            return
        loop = asyncio.get_running_loop()
        self._failure = None
        self._opened = loop.create_future()
        self._task = loop.create_task(self._run(ssl_context, self._opened))
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connection, if there is one, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def wait_ended(self) -> None:
        """Wait for :meth:`stop`; raise what ended the connection for good."""
        if self._task is None:
            raise ConnectionError("not connected: call connect() first, or use 'async with'")
        await asyncio.wait({self._task})
        if self._failure is not None:
            raise self._failure

    async def _run(self, ssl_context: ssl.SSLContext | None, opened: asyncio.Future[None]) -> None:
        try:
            loss = await self._live(ssl_context, opened)
            while opened.done() and (delay := self._delay_after(loss)) is not None:
                log.warning("%s; connecting again in %.1f seconds", loss, delay)
                await asyncio.sleep(delay)
                loss = await self._live(ssl_context, opened)
            self._failure = loss
            self._session._on_failed(loss)
            if opened.done():
                log.error("%s; this is for good", loss)
            else:
                opened.set_exception(loss)
        finally:
            if not opened.done():
                opened.set_exception(ConnectionError("disconnected while connecting"))
            if not opened.cancelled():
                opened.exception()  # whoever asked is told by start(); nobody has to be

    async def _live(self, ssl_context: ssl.SSLContext | None, opened: asyncio.Future[None]) -> ReverbError:
        """Live through one connection; return what ended it."""
        try:
            connection = await Connection.open(self._config, ssl_context, self._session._on_message)
        except ReverbError as error:
            return error
        log.info("connected to %s as %s", self._config.address, connection.socket_id)
        connected_at = monotonic()
        self.connection = connection
        preparing = asyncio.ensure_future(self._session._on_connected(connection))
        lost = asyncio.ensure_future(connection.wait_lost())
        try:
            await asyncio.wait({preparing, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                opened.set_result(None)
            return await lost
        finally:
            self.connection = None
            preparing.cancel()
            await asyncio.wait({preparing})
            self._session._on_lost()
            await connection.close()
            await lost
            self._backoff.lived(monotonic() - connected_at)

    def _delay_after(self, loss: ReverbError) -> float | None:
        """Seconds to wait before connecting again; None for never."""
        action = Action.BACK_OFF if loss.code is None else action_for_code(loss.code)
        if action is Action.FAIL or not self._config.reconnect_enabled:
            return None
        return self._backoff.delay(action)


class Backoff:
    """Delays between attempts to connect: random, so that many clients spread out, between ``least`` seconds and a
    limit that doubles up to ``most``. It starts again once a connection has lasted ``most`` seconds, so that a
    server that accepts and drops at once is not hammered."""

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._attempts = 0
        self._retried_now = False

    def lived(self, seconds: float) -> None:
        """Note how long a connection lasted."""
        if seconds >= self._most:
            self._attempts = 0
            self._retried_now = False

    def delay(self, action: Action) -> float:
        if action is Action.RETRY_NOW and not self._retried_now:
            self._retried_now = True
            return 0.0
        self._attempts += 1
        limit = min(self._most, self._least * 2 ** min(self._attempts, 64))
        return random.uniform(self._least, limit)  # noqa: S311 - spreading load, not keeping secrets
