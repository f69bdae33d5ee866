"""The parts of a client, connected with each other. The client, its channels and its user are views of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from ._authorizations import Authorizations
from ._channels import Channels
from ._connection import Traffic
from ._dispatch import Dispatcher, EventQueue
from ._rate_limit import RateLimiter
from ._records import UserRecord
from ._session import Session
from ._supervisor import Outage, Supervisor
from ._tasks import spawn
from .auth import Authorizer, ChannelAuth
from .config import ReverbConfig
from .events import ConnectionState, Events
from .exceptions import ReverbError
from .stream import Streams

_ALIVE = (ConnectionState.CONNECTING, ConnectionState.CONNECTED, ConnectionState.UNAVAILABLE)
"""The states in which events, or the end of a stream, may come."""


class Core:
    """Has the parts, and passes on the calls of the :class:`Supervisor`."""

    def __init__(self, config: ReverbConfig, authorizer: Authorizer | None) -> None:
        self.config = config
        self.authorizer = authorizer
        self.traffic = Traffic()
        self.dispatcher = Dispatcher(config.max_pending_bytes, self._on_pressure)
        self.queue = EventQueue(None, self.dispatcher)
        """The client's own queue, with the handlers for the events of all channels."""
        self.streams = Streams(self.dispatcher, config.drain_timeout, self._why_no_events)
        self.channels = Channels(config, authorizer, self.dispatcher, self.queue, self.streams)
        self.user = UserRecord(self.dispatcher, self.queue)
        self.supervisor = Supervisor(config, self.dispatcher, self)
        self.closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """Functions to call when the client disconnects."""
        self.discovered: dict[str, object] = {}
        """The channels that the program has not subscribed to itself, and the discovery that found each."""
        self._established: Session | None = None
        """The session of the last connection that the server accepted."""
        self._authorizations: Authorizations | None = None
        self._limiter: RateLimiter | None = None

    @property
    def session(self) -> Session | None:
        """The session of the present connection. None while nothing can be sent."""
        session = self._established
        return session if session is not None and session.is_open else None

    async def ask_for_key(self, socket_id: str, channel: str) -> ChannelAuth:
        """Ask the authorizer for a channel again, to get its new key."""
        assert self._authorizations is not None
        return await self._authorizations.ask_for_channel(socket_id, channel)

    def _why_no_events(self) -> ReverbError | None:
        # Not is_running: while the client disconnects, events that have arrived still come, and then the end.
        return None if self.supervisor.state in _ALIVE else self.supervisor.why_not_running()

    def _on_pressure(self) -> None:
        self.channels.regulate_reading()

    # --- called by the supervisor ------------------------------------------------------------------------------

    def began(self) -> None:
        config = self.config
        self._authorizations = Authorizations(self.authorizer, config.auth_concurrency, config.subscribe_timeout)
        self._limiter = RateLimiter(config.reconnect_delay_min, config.reconnect_delay_max)

    def new_session(self) -> Session:
        assert self._authorizations is not None
        assert self._limiter is not None
        session = self.channels.session = Session(
            self.config,
            self.channels.subscriptions,
            self.channels.carry_out,
            self.user,
            self.queue,
            self.dispatcher,
            self._authorizations,
            self._limiter,
            self.traffic,
        )
        return session

    def connected(self) -> None:
        self._established = self.channels.session
        self.streams.start()

    def state_changed(self, previous: ConnectionState, current: ConnectionState) -> None:
        self.queue.put(Events.STATE_CHANGE.value, {"previous": previous, "current": current})

    def reconnected(self, outage: Outage) -> None:
        downtime = monotonic() - outage.since
        self.queue.put(Events.RECONNECTED.value, {"downtime": downtime, "attempts": outage.attempts})

    def ended(self, error: ReverbError, *, is_failure: bool) -> None:
        self.channels.end(error)
        self.streams.end(error if is_failure else None)

    async def close(self) -> None:
        self.channels.clear()
        self.user.queue.clear()
        self.queue.clear()
        closing = [spawn(close()) for close in self.closers]
        if self.channels.session is not None:
            await self.channels.session.wait_ended()
        if closing:
            await asyncio.wait(closing)
