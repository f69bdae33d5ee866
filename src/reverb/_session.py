"""One connection and everything that ends with it: requests, authorisations, retries, the sign-in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

import msgspec

from . import _protocol
from ._authorizations import Authenticate, Authorizations
from ._backoff import Backoff
from ._connection import Connection, Traffic
from ._dispatch import Dispatcher, EventQueue
from ._protocol import Action, Message, ServerError
from ._rate_limit import RateLimiter
from ._records import ChannelRecord, UserRecord
from ._subscriptions import Request, Subscription, Subscriptions
from ._tasks import resolve, spawn
from ._timeouts import Timeouts
from ._visible import event_fields, quoted
from .auth import ChannelAuth, SecretAuthorizer
from .config import ReverbConfig
from .events import Events
from .exceptions import AuthenticationError, ConnectionError, ProtocolError, ReverbError, TimeoutError, plural

log = logging.getLogger("reverb.session")

_CANCEL_TIMEOUT = 1.0
"""Seconds that authorizers have to clean up when their connection is lost."""


class Session:
    """One connection, from the attempt to connect to its end.

    Messages of the server go to ``subscriptions``, to the record of a channel, or to a caller that waits here.
    ``carry_out`` is called when the subscriptions may have commands.
    """

    def __init__(
        self,
        config: ReverbConfig,
        subscriptions: Subscriptions[ChannelRecord],
        carry_out: Callable[[], None],
        user: UserRecord,
        client_queue: EventQueue,
        dispatcher: Dispatcher,
        authorizations: Authorizations,
        limiter: RateLimiter,
        traffic: Traffic,
    ) -> None:
        self.connection = Connection(config, dispatcher, traffic, self._take, self._end)
        self.is_restored = False
        """Whether each channel that was wanted when the connection was made is subscribed, refused, or overdue."""
        self._config = config
        self._address = config.address
        self._subscriptions = subscriptions
        self._carry_out = carry_out
        self._user = user
        self._queue = client_queue
        self._dispatcher = dispatcher
        self._authorizations = authorizations
        self._limiter = limiter
        self._on_restored: Callable[[], None] = lambda: None
        self._attempts: dict[Subscription[ChannelRecord], _SubscribeAttempt] = {}
        """Subscriptions that wait for the authorizer or for the server."""
        self._deadlines: Timeouts[Subscription[ChannelRecord]] = Timeouts(self._overdue)
        """How long the server may take to answer each subscribe."""
        self._waiting: dict[Request, asyncio.Future[None]] = {}
        """Callers that wait for the answer to a ping or a sign-in."""
        self._retries: dict[Subscription[ChannelRecord], asyncio.TimerHandle] = {}
        self._next_turn: asyncio.TimerHandle | None = None
        """When the next subscribe may be sent, if the server has a rate limit."""
        self._signing_in: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_open(self) -> bool:
        return self.connection.is_open

    # --- the connection's life ---------------------------------------------------------------------------------

    def start(self, on_restored: Callable[[], None]) -> None:
        """The server has accepted the connection: request every wanted channel.

        ``on_restored`` is called when each of them is subscribed, refused, or overdue.
        """
        connection = self.connection
        if not connection.is_open:
            return
        self._on_restored = on_restored
        self._limiter.connected()
        self._queue.put(
            Events.CONNECTION_ESTABLISHED.value,
            {"socket_id": connection.socket_id, "activity_timeout": connection.activity_timeout},
        )
        if self._user.authenticate is not None:
            self._spawn(self._sign_in_again(self._user.authenticate))
        self._subscriptions.connected(connection.requests)
        self._carry_out()
        self.regulate_reading()

    def _end(self) -> None:
        """The connection is ending: end everything that belongs to it."""
        for task in self._tasks:
            task.cancel()
        for attempt in self._attempts.values():
            attempt.stop()
        self._attempts.clear()
        self._deadlines.clear()
        for timer in self._retries.values():
            timer.cancel()
        self._retries.clear()
        if self._next_turn is not None:
            self._next_turn.cancel()
        for request, waiter in self._waiting.items():
            when = "before a ping was answered" if request.channel is None else "while signing in"
            resolve(waiter, ConnectionError(f"lost the connection to {self._address} {when}"))
        self._waiting.clear()
        self._user.is_signed_in = False
        for each in self._subscriptions:
            if each.is_subscribed:
                each.item.lost(self.connection.alive_at)
        self._subscriptions.lost()

    async def wait_ended(self) -> None:
        """Wait, for a limited time, until the tasks of the connection have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CANCEL_TIMEOUT)
        await self._authorizations.wait_ended(_CANCEL_TIMEOUT)

    def restored(self) -> None:
        if not self.is_restored:
            self.is_restored = True
            self._on_restored()

    def regulate_reading(self) -> bool:
        """Read from the socket, unless too many events wait for handlers; return whether we read.

        While a subscribe or a ping is unanswered, reading continues up to a higher bound. Otherwise a handler that
        subscribes would wait for an answer that nobody reads.
        """
        full = self._dispatcher.is_full
        if full and (self._waiting or any(each.is_sent for each in self._attempts.values())):
            full = self._dispatcher.is_flooded
        self.connection.set_reading(not full)
        return not full

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- subscribes -------------------------------------------------------------------------------------------

    def request_next(self) -> bool:
        """Request the next wanted channel, if it is time; return whether there was one."""
        if not self.is_open:
            return False
        now = monotonic()
        wait = self._limiter.wait(now)
        if wait > 0:
            self._wait_for_turn(wait)
            return False
        subscription = self._subscriptions.take_next()
        if subscription is None:
            return False
        self._limiter.sent()
        attempt = self._attempts[subscription] = _SubscribeAttempt(now, now)
        authorizer, record = self._authorizations.authorizer, subscription.item
        if not _protocol.needs_auth(subscription.name):
            self._send(subscription, attempt, None)
        elif isinstance(authorizer, SecretAuthorizer):
            auth = authorizer.authorize(self.connection.socket_id, subscription.name, record.channel_data)
            self._send(subscription, attempt, auth)
        else:
            attempt.authorizing = self._spawn(self._authorize(subscription, attempt))
        return True

    def _wait_for_turn(self, wait: float) -> None:
        if self._next_turn is not None:
            self._next_turn.cancel()
        if wait < inf:
            self._next_turn = asyncio.get_running_loop().call_later(wait, self._carry_out)
        self._subscriptions.held_up()

    async def _authorize(self, subscription: Subscription[ChannelRecord], attempt: _SubscribeAttempt) -> None:
        def on_turn() -> None:
            attempt.began_at = monotonic()

        try:
            auth = await self._authorizations.ask_for_channel(
                self.connection.socket_id, subscription.name, on_turn
            )
        except ReverbError as error:
            self._fail(subscription, attempt, error)
        else:
            self._send(subscription, attempt, auth)
        self._carry_out()

    def _send(
        self, subscription: Subscription[ChannelRecord], attempt: _SubscribeAttempt, auth: ChannelAuth | None
    ) -> None:
        connection, record = self.connection, subscription.item
        if self._attempts.get(subscription) is not attempt or not connection.is_open:
            return
        attempt.authorizing = None
        try:
            if auth is not None:
                record.authorized(auth, connection.socket_id)
            request = connection.send_subscribe(
                subscription.name, None if auth is None else auth.auth, record.channel_data
            )
        except AuthenticationError as error:
            self._fail(subscription, attempt, error)
            return
        except (TypeError, ValueError):  # an authorizer may return anything
            text = f"the authorizer failed for {subscription.name!r}: it returned a value that cannot be sent"
            self._fail(subscription, attempt, AuthenticationError(text))
            return
        self._subscriptions.requested(subscription, request)
        attempt.is_sent = True
        self._deadlines.start(
            subscription, max(0.0, attempt.began_at + self._config.subscribe_timeout - monotonic())
        )
        if self._dispatcher.is_full:
            self.regulate_reading()

    def _fail(
        self, subscription: Subscription[ChannelRecord], attempt: _SubscribeAttempt, error: ReverbError
    ) -> None:
        if self._attempts.get(subscription) is attempt:
            del self._attempts[subscription]
            self._limiter.dropped()
            self._subscriptions.refused(subscription, error)

    def _overdue(self, subscription: Subscription[ChannelRecord]) -> None:
        error = TimeoutError(no_answer(subscription.name, self._config.subscribe_timeout))
        self._subscriptions.overdue(subscription, error)
        self._carry_out()

    # --- commands of the subscriptions -------------------------------------------------------------------------

    def answered(self, request: Request, error: ServerError | None) -> None:
        """A request was answered, or never will be."""
        waiter = self._waiting.pop(request, None)
        if waiter is not None:
            resolve(waiter, None if error is None else self._explain(request, error))
        attempt = None if request.subject is None else self._attempts.pop(request.subject, None)
        if attempt is not None and request.subject is not None:
            self._deadlines.stop(request.subject)
            if error is not None and _protocol.is_rate_limit(*error):
                self._limiter.refused(attempt.started_at, monotonic())
            else:
                self._limiter.taken(attempt.started_at, monotonic())
        if self._dispatcher.is_full:
            self.regulate_reading()

    def withdraw(self, subscription: Subscription[ChannelRecord]) -> None:
        """Stop signing for a channel that nobody wants any more."""
        attempt = self._attempts.pop(subscription, None)
        if attempt is not None:
            attempt.stop()
            self._limiter.dropped()

    def forget(self, subscription: Subscription[ChannelRecord]) -> None:
        """Cancel the retry of a channel that nobody wants any more."""
        timer = self._retries.pop(subscription, None)
        if timer is not None:
            timer.cancel()

    def retry_later(self, subscription: Subscription[ChannelRecord], error: ReverbError) -> None:
        """Try again after a passing refusal.

        After a rate limit: as soon as the limiter allows it. Otherwise: after a delay that grows each time.
        """

        def retry() -> None:
            self._retries.pop(subscription, None)
            self._subscriptions.retry(subscription)
            self._carry_out()

        if _protocol.is_rate_limit(error.code, str(error)):
            self._subscriptions.retry(subscription)
            return
        backoff = Backoff(self._config.reconnect_delay_min, self._config.reconnect_delay_max)
        backoff.attempts = subscription.attempts - 1
        self.forget(subscription)
        self._retries[subscription] = asyncio.get_running_loop().call_later(backoff.delay(Action.BACK_OFF), retry)

    def unsubscribe(self, name: str) -> None:
        if self.is_open:
            self.connection.send_silent(_protocol.encode_unsubscribe(name))

    def ping_for_answers(self) -> None:
        if self.is_open:
            self.connection.send_ping()
            self.regulate_reading()

    # --- callers ------------------------------------------------------------------------------------------------

    async def ping(self, timeout: float) -> float:
        started = monotonic()
        request = self.connection.send_ping()
        answer = self._wait_for(request)
        try:
            await asyncio.wait({answer}, timeout=timeout)
        finally:
            self._waiting.pop(request, None)
        if not answer.done():
            request.is_overdue = True  # otherwise the next pong would count as its answer
            raise TimeoutError(
                f"{self._address} did not answer a ping within {plural(timeout, 'second')} (REVERB_PONG_TIMEOUT)"
            )
        answer.result()
        return monotonic() - started

    async def sign_in(self, authenticate: Authenticate) -> None:
        """Sign the user in, and remember how. Continues if the caller is cancelled."""
        while self._signing_in is not None:
            await asyncio.wait({self._signing_in})
        if not self.is_open:
            raise ConnectionError(f"cannot sign in: not connected to {self._address}")
        task = self._signing_in = self._spawn(self._sign_in(authenticate))
        task.add_done_callback(self._signed_in)
        await asyncio.wait({task})
        if task.cancelled():
            raise ConnectionError(f"lost the connection to {self._address} while signing in")
        task.result()

    async def _sign_in(self, authenticate: Authenticate) -> None:
        try:
            await self._try_to_sign_in(authenticate)
        except (AuthenticationError, TimeoutError) as error:
            # Laravel itself has no route that signs users in.
            if not self.connection.is_laravel_reverb:
                raise
            text = f"{self._address} does not support the sign-in of users, as it is Laravel Reverb"
            raise ProtocolError(f"{text}; the error was: {error}") from error
        self._user.authenticate = authenticate

    async def _try_to_sign_in(self, authenticate: Authenticate) -> None:
        auth = await self._authorizations.ask_for_user(authenticate, self.connection.socket_id)
        if self.connection.requests.is_open(_protocol.SIGNIN):
            raise ProtocolError("the server has not answered an earlier sign-in on this connection")
        timeout = self._config.subscribe_timeout
        try:
            request = self.connection.send_signin(auth.auth, auth.user_data)
        except (TypeError, ValueError):
            text = "the authorizer failed for the user: it returned a value that cannot be sent"
            raise AuthenticationError(text) from None
        answer = self._wait_for(request)
        try:
            await asyncio.wait({answer}, timeout=timeout)
        except asyncio.CancelledError:
            # The connection has ended. soketi closes it right after a refusal, which has arrived by now.
            if not answer.done():
                raise
        if not answer.done():
            request.is_overdue = True
            self.ping_for_answers()
            raise TimeoutError(
                f"{self._address} did not answer the sign-in within {plural(timeout, 'second')} "
                "(REVERB_SUBSCRIBE_TIMEOUT): check that user authentication is enabled for the application"
            )
        answer.result()

    def _signed_in(self, task: asyncio.Task[None]) -> None:
        self._signing_in = None
        if not task.cancelled():
            task.exception()  # the caller may be cancelled; then nobody else retrieves it

    async def _sign_in_again(self, authenticate: Authenticate) -> None:
        try:
            await self.sign_in(authenticate)
        except ReverbError as error:
            if self.is_open:
                fields = {"reverb_address": self._address}
                log.error("%s; the client tries again after the next reconnect", error, extra=fields)
                self._queue.report_error(str(error), error)

    def _wait_for(self, request: Request) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[request] = waiter
        self.regulate_reading()
        return waiter

    def _explain(self, request: Request, error: ServerError) -> ReverbError:
        if request.channel != _protocol.SIGNIN:
            return ProtocolError(f"{self._address} refused a ping: {error}", code=error.code)
        if error.code == _protocol.INVALID_MESSAGE:
            return ProtocolError(
                f"{self._address} does not support the sign-in of users: {error}; Laravel Reverb does not",
                code=error.code,
            )
        return AuthenticationError(f"{self._address} refused to sign the user in: {error}", code=error.code)

    # --- messages of the server ---------------------------------------------------------------------------------

    def _take(self, message: Message, size: int) -> None:
        """Take a message that did not go the fast path (:meth:`Connection._receiver`)."""
        if message.event.startswith("reverb:"):
            fields = event_fields(message.event, message.channel)
            what = quoted(message.event)
            log.warning(
                "skipped %s from the server: only the client sends events with this prefix", what, extra=fields
            )
            return
        queue = self._dispatcher.queues.get(message.channel)
        if queue is not None and not message.event.startswith("pusher"):
            self._dispatcher.taken += 1
            queue.take(queue.add_route(message.event), message, size)
        elif self.is_open:
            if message.channel is None:
                self._take_of_connection(message, size)
            else:
                self._take_of_channel(message.channel, message, size)
            self._carry_out()

    def _take_of_channel(self, name: str, message: Message, size: int) -> None:
        if message.event == Events.SUBSCRIPTION_SUCCEEDED:
            self._subscriptions.succeeded(name, (message, size))
            return
        if message.event == "pusher:subscription_error":
            error = _protocol.parse_error(_protocol.parse_data(message.data))
            if self._subscriptions.rejected(name, error):
                return
        elif message.event == Events.ERROR:  # soketi's, about a client event
            self._log_error(message, _protocol.parse_error(_protocol.parse_data(message.data)))
        found = self._subscriptions.get(name)
        if found is not None and found.is_subscribed:
            found.item.take(message, size)

    def _take_of_connection(self, message: Message, size: int) -> None:
        event = message.event
        if event == "pusher:pong":
            self._subscriptions.ponged()
            return
        if event == Events.SIGNIN_SUCCESS:
            name = self._user.signed_in(message)
            self._subscriptions.succeeded(_protocol.SIGNIN, None)
            if self.is_open and not self.connection.requests.is_open(name):
                self.connection.send_subscribe(name, None, None)
            return
        if event == "pusher_internal:watchlist_events":
            self._user.take_watchlist(message)
            return
        if event == Events.ERROR:
            error = _protocol.parse_error(_protocol.parse_data(message.data))
            if not self._subscriptions.errored(error):
                self._log_error(message, error)
            self._carry_out()
        self._queue.put(event, message.data, message.user_id, size)

    def _log_error(self, message: Message, error: ServerError) -> None:
        fields = {"reverb_address": self._address, **event_fields(message.event, message.channel)}
        log.warning("%s sent an error: %s", self._address, error, extra=fields)


class _SubscribeAttempt(msgspec.Struct, eq=False):
    """A subscription that waits for the authorizer or for the server."""

    started_at: float
    """When the rate limiter allowed it, on the clock of :func:`time.monotonic`."""
    began_at: float
    """When the authorizer began with it, on the same clock."""
    authorizing: asyncio.Task[Any] | None = None
    is_sent: bool = False
    """Whether the subscribe was sent."""

    def stop(self) -> None:
        if self.authorizing is not None:
            self.authorizing.cancel()


def no_answer(name: str, timeout: float) -> str:
    return (
        f"the server did not answer the subscribe to {name!r} within {plural(timeout, 'second')} "
        "(REVERB_SUBSCRIBE_TIMEOUT)"
    )
