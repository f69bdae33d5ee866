"""The channels of a client: takes the calls of the program, and carries out the commands of the subscriptions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from . import _protocol
from ._dispatch import Dispatcher, EventQueue
from ._protocol import ServerError
from ._records import ChannelRecord
from ._session import Session, no_answer
from ._subscriptions import (
    Answered,
    Command,
    Confirmed,
    Forgotten,
    Ping,
    Refused,
    Restored,
    Retry,
    Subscription,
    Subscriptions,
    Unsubscribe,
    Waiter,
    Withdrawn,
)
from ._tasks import resolve
from ._timeouts import Timeouts
from ._visible import visible
from .auth import Authorizer, SecretAuthorizer
from .config import ReverbConfig
from .exceptions import AuthenticationError, ReverbError, SubscriptionError, TimeoutError
from .stream import Streams

log = logging.getLogger("reverb.channels")

_SLOW_AFTER = 1.0
"""Seconds for which reading is paused before a warning is logged."""
_SLOW_WARNING_INTERVAL = 60.0
"""Seconds between two warnings that handlers are too slow."""


class Channels:
    """Keeps the wanted channels subscribed. ``subscriptions`` has their states and the rules."""

    def __init__(
        self,
        config: ReverbConfig,
        authorizer: Authorizer | None,
        dispatcher: Dispatcher,
        client_queue: EventQueue,
        streams: Streams,
    ) -> None:
        self.subscriptions: Subscriptions[ChannelRecord] = Subscriptions(self._explain)
        self.session: Session | None = None
        """The session of the present connection, or of one that is being made."""
        self._config = config
        self._address = config.address
        self._authorizer = authorizer
        self._dispatcher = dispatcher
        self._client_queue = client_queue
        self._streams = streams
        self._is_carrying_out = False
        self._waiting: Timeouts[Waiter[ChannelRecord]] = Timeouts(self._give_up)
        """How long callers wait."""
        self._slow_timer: asyncio.TimerHandle | None = None
        self._warned_slow_at = -_SLOW_WARNING_INTERVAL

    # --- callers -----------------------------------------------------------------------------------------------

    async def subscribe(
        self, name: str, make: Callable[[], ChannelRecord], max_pending: int | None = None
    ) -> Subscription[ChannelRecord]:
        """Return the subscription to a channel when the server has confirmed it.

        ``make`` makes the record of a channel that is new. If anything else happens, cancellation included, the
        caller no longer wants the channel.
        """
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found = self.subscriptions.get(name)
        item = make() if found is None else found.item
        waiter = self.subscriptions.add_waiter(name, item, partial(resolve, answer))
        self._waiting.start(waiter, self._config.subscribe_timeout)
        if max_pending is not None:
            waiter.subscription.item.queue.max_pending = max_pending
        try:
            self.carry_out()
            await answer
            if not self.subscriptions.give(waiter):
                raise SubscriptionError(f"{name!r} was unsubscribed before it could be used")
        except BaseException:
            self.subscriptions.withdraw(waiter)
            self.carry_out()
            raise
        finally:
            self._waiting.stop(waiter)
            if waiter.subscription.is_given:
                waiter.subscription.item.given()
        return waiter.subscription

    def _give_up(self, waiter: Waiter[ChannelRecord]) -> None:
        """A caller has waited as long as the server may take to answer."""
        name, timeout = waiter.subscription.name, self._config.subscribe_timeout
        if self.session is None or not self.session.is_open:
            waiter.resolve(TimeoutError(f"{no_answer(name, timeout)}: there was no connection"))
        elif self.subscriptions.is_stuck(waiter.subscription):
            waiter.resolve(TimeoutError(no_answer(name, timeout)))
        else:  # the authorizer, or the rate limiter, has its own time
            self._waiting.start(waiter, timeout)

    def want(self, name: str, make: Callable[[], ChannelRecord]) -> Subscription[ChannelRecord]:
        """Want a channel without waiting for it. It is subscribed as soon as possible."""
        found = self.subscriptions.get(name)
        wanted = self.subscriptions.want(name, make() if found is None else found.item)
        self.carry_out()
        return wanted

    def unsubscribe(self, name: str) -> None:
        found = self.subscriptions.get(name)
        if found is not None:
            reason = f"{name!r} was unsubscribed before the server had confirmed it"
            self.subscriptions.leave(name, SubscriptionError(reason))
            self._forget(found)  # at once, even if a handler calls this in the middle of other commands
            self.carry_out()

    @property
    def missing(self) -> int:
        """Number of channels that the program has and that are not subscribed now."""
        return sum(each.is_given and not each.is_subscribed for each in self.subscriptions)

    def client_bound(self) -> None:
        """The client has a new handler for the events of all channels."""
        for each in self.subscriptions:
            if each.is_given:
                each.item.client_bound()

    def end(self, error: ReverbError) -> None:
        """There will be no connection: all callers that wait get the ``error``."""
        self.subscriptions.give_up(error)
        for each in self.subscriptions:
            each.item.failed(error)
        self.carry_out()

    def clear(self) -> None:
        """Discard events that are not delivered yet."""
        for each in self.subscriptions:
            each.item.queue.clear()

    # --- the present connection --------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """Carry out the commands of the subscriptions, and request wanted channels.

        Handlers that are called meanwhile may call this again; what that adds is done after the rest.
        """
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        try:
            commands = self.subscriptions.commands
            while True:
                while commands:
                    self._carry_out(commands.popleft())
                session = self.session
                if session is not None and self.subscriptions.has_next and session.request_next():
                    continue
                if not commands:
                    return
        finally:
            self._is_carrying_out = False

    def _carry_out(self, command: Command) -> None:
        session = self.session
        if isinstance(command, Confirmed):
            self._confirm(command.subscription, command.answer)
        elif isinstance(command, Refused):
            self._report(command.subscription, command.error, is_lasting=command.is_lasting)
        elif isinstance(command, Forgotten):
            self._forget(command.subscription)
        elif session is None or not session.is_open:
            return  # the rest is about a connection that is gone
        elif isinstance(command, Answered):
            session.answered(command.request, command.error)
        elif isinstance(command, Retry):
            session.retry_later(command.subscription, command.error)
        elif isinstance(command, Withdrawn):
            session.withdraw(command.subscription)
        elif isinstance(command, Unsubscribe):
            session.unsubscribe(command.name)
        elif isinstance(command, Ping):
            session.ping_for_answers()
        elif isinstance(command, Restored):
            session.restored()

    def _confirm(self, subscription: Subscription[ChannelRecord], answer: Any) -> None:
        if subscription.is_subscribed:  # a handler may have left it meanwhile
            record, (message, size) = subscription.item, answer
            self._dispatcher.queues[subscription.name] = record.queue
            record.confirmed(message, size, is_awaited=subscription.is_awaited)

    def _report(self, subscription: Subscription[ChannelRecord], error: ReverbError, *, is_lasting: bool) -> None:
        """Tell the program of a refusal: of a channel that it has, so that no caller may be waiting."""
        when = (
            "the client tries again after the next reconnect"
            if is_lasting
            else "the client tries again until it succeeds"
        )
        fields = {"reverb_address": self._address, "reverb_channel": visible(subscription.name)}
        log.error("%s; %s", error, when, extra=fields)
        if is_lasting:
            subscription.item.failed(error)
        subscription.item.queue.report_error(str(error), error)

    def _forget(self, subscription: Subscription[ChannelRecord]) -> None:
        record, queues = subscription.item, self._dispatcher.queues
        if queues.get(subscription.name) is record.queue:
            del queues[subscription.name]
        record.close()
        self._streams.end_of(record)
        if self.session is not None:
            self.session.forget(subscription)

    def _explain(self, name: str, error: ServerError) -> ReverbError:
        if not _protocol.is_auth_refusal(error):
            text = f"{self._address} refused the subscription to {name!r}: {error}"
            return SubscriptionError(text, code=error.code)
        hint = (
            "check REVERB_APP_KEY and REVERB_APP_SECRET"
            if isinstance(self._authorizer, SecretAuthorizer)
            else "check the authorizer"
        )
        text = f"{self._address} refused the signature for {name!r}: {error}; {hint}"
        return AuthenticationError(text, code=error.code)

    # --- reading at the pace of the handlers -------------------------------------------------------------------

    def regulate_reading(self) -> None:
        """Read from the server while handlers keep up; log a warning when reading is paused for long."""
        if self.session is None or self.session.regulate_reading():
            self._cancel_slow_warning()
        elif self._slow_timer is None:
            self._slow_timer = asyncio.get_running_loop().call_later(_SLOW_AFTER, self._warn_slow)

    def _warn_slow(self) -> None:
        self._slow_timer = None
        if monotonic() - self._warned_slow_at < _SLOW_WARNING_INTERVAL:
            return
        self._warned_slow_at = monotonic()
        slowest = max([self._client_queue, *(each.item.queue for each in self.subscriptions)], key=len)
        log.warning(
            "handlers are slower than the server: %d events wait, %d of them on %s; "
            "the client stops reading until they have caught up",
            self._dispatcher.pending_events,
            len(slowest),
            visible(slowest.name or "the client"),
            extra={"reverb_address": self._address, "reverb_channel": slowest.name and visible(slowest.name)},
        )

    def _cancel_slow_warning(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None
