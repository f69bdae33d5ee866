"""Which channels are subscribed: who wants each one, its state, and which answer of the server belongs to it.

Pure: no I/O, no clock, no task, no logging. Methods of :class:`Subscriptions` take what happens. They append
commands to :attr:`Subscriptions.commands`; :class:`reverb._channels.Channels` carries them out in that order.
Nothing in here calls out, so a command never sees a state that is half changed.

A subscription goes through these states on each connection::

    WANTED ── take_next() ──► AUTHORIZING ── requested() ──► REQUESTED ── succeeded() ──► SUBSCRIBED
       ▲                           │                             │
       │                           └────── refused() ────────────┤
       ├── retry() ──  REFUSED, for a passing reason  ◄──────────┤
       └── next connection ──  REJECTED, for a lasting one ◄─────┘

The rules:

1. *Wanted.* A subscription is kept while somebody wants it: callers that wait (its waiters), or the program that
   has the channel. When a connection ends, the subscription goes back to WANTED.
2. *Left.* When nobody wants it any more, it is GONE at once; if it was SUBSCRIBED, it is unsubscribed. But a
   REQUESTED one is LEAVING until the server has answered: only then is it known whether to unsubscribe. Its name
   is not requested again before that.
3. *Refused.* Waiters get the error. A channel that the program has is tried again: after a delay, or on the next
   connection if the reason lasts (:func:`is_lasting`). A new caller has it tried again at once. After an "Invalid
   message" the server may still count us as a member, so we also unsubscribe.
4. *Which request.* Reverb's errors name no channel. :class:`PendingRequests` finds the request that an error
   belongs to, and says whether that is sure. If it needs one more answer for that, it asks for a :class:`Ping`.
5. *Overdue.* If the server does not answer in time, waiters get an error, and a ping is sent. If the pong comes
   first, the request is given up: a server that answers in order, as Reverb does, will never answer it. If the
   channel is still wanted, it is requested again.
6. *Unanswered.* But soketi answers out of order, and may still answer a request that was given up. So a name with
   such a request is also unsubscribed if we know of no success: when it is left, and when it is rejected.
7. *Guesses.* If it is not sure which request was answered, we do what is right in all cases. After a refusal we
   also unsubscribe, and try again. A success that may be older than our last unsubscribe does not count: the
   channel is requested again. A refusal that may belong to an older request does not last.
8. *Doubtful.* A rate limit also refuses unsubscribes. After the next pong we unsubscribe again from each name
   concerned, unless it is subscribed again by then.
9. *Restored.* A connection is restored when each channel that was wanted at its start is subscribed, refused, or
   overdue. That is said once per connection.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from itertools import takewhile
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ._protocol import (
    INVALID_MESSAGE,
    SIGNIN,
    UNAUTHORIZED,
    ServerError,
    is_auth_refusal,
    is_rate_limit,
    needs_auth,
)
from .exceptions import AuthenticationError, ConfigurationError, ReverbError

T = TypeVar("T")


class State(Enum):
    """The state of a subscription."""

    WANTED = "wanted"
    """To be requested, when there is a connection and it is its turn."""
    AUTHORIZING = "authorizing"
    """The authorizer is signing for it, or it waits for the authorizer."""
    REQUESTED = "requested"
    """The subscribe is sent; the server has not answered yet."""
    SUBSCRIBED = "subscribed"
    """The server has confirmed it."""
    REFUSED = "refused"
    """Refused for a passing reason. Tried again on this connection."""
    REJECTED = "rejected"
    """Refused for a lasting reason. Tried again on the next connection."""
    LEAVING = "leaving"
    """Nobody wants it any more, but the server has not answered yet."""
    GONE = "gone"
    """Neither wanted nor subscribed."""


class Subscription(Generic[T]):
    """A channel that is wanted. ``item`` is whatever the user of this module keeps for it."""

    __slots__ = ("attempts", "is_given", "item", "name", "reported", "request", "state", "waiters")

    def __init__(self, name: str, item: T) -> None:
        self.name = name
        self.item = item
        self.state = State.WANTED
        self.is_given = False
        """Whether the program has the channel: it was returned to the program, and the program has not left it."""
        self.reported: State | None = None
        """The refusal that the program knows of since the channel was last subscribed: REFUSED, REJECTED, or
        None."""
        self.attempts = 0
        """Number of refusals for a passing reason since it was last subscribed, or since the connection was
        made."""
        self.request: Request | None = None
        """The request that the server has not answered yet."""
        self.waiters: list[Waiter[T]] = []

    @property
    def is_subscribed(self) -> bool:
        return self.state is State.SUBSCRIBED

    @property
    def is_awaited(self) -> bool:
        """Whether callers wait for it, or are about to get it."""
        return bool(self.waiters)

    @property
    def is_wanted(self) -> bool:
        return self.is_given or self.is_awaited

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r} {self.state.value}>"


class Waiter(Generic[T]):
    """A caller that waits for a channel.

    ``resolve`` is called once: with None when the channel is subscribed, or with the error. It must not call back.
    After that the waiter has to be given the channel, or withdrawn.
    """

    __slots__ = ("is_resolved", "request", "resolve", "subscription")

    def __init__(self, subscription: Subscription[T], resolve: Callable[[ReverbError | None], None]) -> None:
        self.subscription = subscription
        self.resolve = resolve
        self.is_resolved = False
        self.request: Request | None = None
        """The request whose timeout is also the caller's. None if the caller came after it was sent."""


class _Unanswered:
    """State of a name that the server left without an answer."""

    __slots__ = ("open", "refusals", "void")

    def __init__(self) -> None:
        self.open = 0
        """Number of requests that were given up and that the server may still answer."""
        self.void = 0
        """Number of successes that may still come and don't count, because we unsubscribed after their
        requests."""
        self.refusals = 0
        """Number of lasting refusals that have come for this name."""


# --- commands --------------------------------------------------------------------------------------------------


class Confirmed(msgspec.Struct, frozen=True):
    """The server has confirmed the subscription. ``answer`` is what was passed to
    :meth:`Subscriptions.succeeded`."""

    subscription: Subscription[Any]
    answer: Any


class Refused(msgspec.Struct, frozen=True):
    """Tell the program that a channel is refused: one that it has, or is about to get."""

    subscription: Subscription[Any]
    error: ReverbError
    is_lasting: bool


class Retry(msgspec.Struct, frozen=True):
    """Call :meth:`Subscriptions.retry` after a delay, which grows with ``attempts``."""

    subscription: Subscription[Any]
    error: ReverbError


class Withdrawn(msgspec.Struct, frozen=True):
    """Stop signing for it: nobody wants it any more."""

    subscription: Subscription[Any]


class Forgotten(msgspec.Struct, frozen=True):
    """Delete what was kept for it: nobody wants it any more."""

    subscription: Subscription[Any]


class Unsubscribe(msgspec.Struct, frozen=True):
    """Send an unsubscribe."""

    name: str


class Ping(msgspec.Struct, frozen=True):
    """Send a ping. Its answer shows which requests have none."""


class Answered(msgspec.Struct, frozen=True):
    """A request was answered, or never will be. ``error`` is None if it succeeded."""

    request: Request
    error: ServerError | None


class Restored(msgspec.Struct, frozen=True):
    """Each channel that was wanted when the connection was made is subscribed, refused, or overdue."""


Command = Confirmed | Refused | Retry | Withdrawn | Forgotten | Unsubscribe | Ping | Answered | Restored


class Subscriptions(Generic[T]):
    """All channels that a client wants. ``explain(name, error)`` turns a refusal of the server into an
    exception."""

    def __init__(self, explain: Callable[[str, ServerError], ReverbError]) -> None:
        self.commands: deque[Command] = deque()
        """Commands to carry out, in this order."""
        self._explain = explain
        self._wanted: dict[str, Subscription[T]] = {}
        self._leaving: dict[str, Subscription[T]] = {}
        self._queue: OrderedDict[Subscription[T], None] = OrderedDict()
        """Subscriptions to request, in order. (To take the first item of a plain dict gets slower, the more
        were taken before.)"""
        self._unrestored: set[Subscription[T]] = set()
        self._was_held_up = False
        self._requests: PendingRequests | None = None
        """The requests on the present connection."""
        self._unanswered: dict[str, _Unanswered] = {}
        """Names that the server left without an answer on this connection, although it may have subscribed us."""
        self._left: dict[str, int | None] = {}
        """Names that were unsubscribed, although the server may have refused that; with the number of requests
        that had been sent at the first pong after that."""
        self._doubtful: dict[str, None] = {}
        """Those of them that a rate limit may have refused."""

    def __iter__(self) -> Iterator[Subscription[T]]:
        return iter(list(self._wanted.values()))

    def get(self, name: str) -> Subscription[T] | None:
        """Return the wanted subscription with this name."""
        return self._wanted.get(name)

    def is_stuck(self, subscription: Subscription[T]) -> bool:
        """Return whether it waits for an answer that is overdue."""
        first = self._leaving.get(subscription.name, subscription)
        return first.request is not None and first.request.is_overdue

    # --- callers -----------------------------------------------------------------------------------------------

    def add_waiter(self, name: str, item: T, resolve: Callable[[ReverbError | None], None]) -> Waiter[T]:
        """Want a channel, and wait for it. ``item`` is for a new subscription.

        If the channel is subscribed already, the waiter is resolved at once. If it is refused, it is tried again
        at once.
        """
        found = self._find(name, item)
        waiter = Waiter(found, resolve)
        found.waiters.append(waiter)
        if found.is_subscribed:
            self._resolve(waiter, None)
        return waiter

    def want(self, name: str, item: T) -> Subscription[T]:
        """Want a channel without waiting for it. The program has it until :meth:`leave`.

        If it is refused, it is tried again at once.
        """
        found = self._find(name, item)
        found.is_given = True
        return found

    def _find(self, name: str, item: T) -> Subscription[T]:
        found = self._wanted.get(name)
        if found is None:
            found = self._wanted[name] = Subscription(name, item)
            self._enqueue(found)
        elif found.state in (State.REFUSED, State.REJECTED):
            self._want(found)
        return found

    def give(self, waiter: Waiter[T]) -> bool:
        """Give the channel to the program, which has it until :meth:`leave`; return False if it was left
        meanwhile."""
        subscription = waiter.subscription
        if waiter not in subscription.waiters:
            return False
        subscription.waiters.remove(waiter)
        subscription.is_given = True
        return True

    def withdraw(self, waiter: Waiter[T]) -> None:
        """Remove a waiter. The channel is left if nobody else wants it."""
        subscription = waiter.subscription
        if waiter in subscription.waiters:
            subscription.waiters.remove(waiter)
        if not subscription.is_wanted:
            self._drop(subscription)

    def leave(self, name: str, error: ReverbError) -> None:
        """Leave a channel, whoever wants it. Waiters get the ``error``."""
        found = self._wanted.get(name)
        if found is not None:
            self._resolve_all(found, error)
            found.waiters.clear()
            found.is_given = False
            self._drop(found)

    def give_up(self, error: ReverbError) -> None:
        """There will be no further connection: all waiters get the ``error``. Channels that the program has
        stay wanted."""
        for each in self:
            self._resolve_all(each, error)
            if not each.is_wanted:
                self._drop(each)

    # --- the connection ----------------------------------------------------------------------------------------

    def connected(self, requests: PendingRequests) -> None:
        """There is a new connection. All channels are to be requested on it."""
        self._requests = requests
        self._unrestored = set(self._wanted.values())
        self._was_held_up = False
        if not self._unrestored:
            self.commands.append(Restored())

    def lost(self) -> None:
        """The connection is lost, and with it all requests."""
        self._requests = None
        self._unrestored = set()
        self._unanswered.clear()
        self._left.clear()
        self._doubtful.clear()
        for leaving in self._leaving.values():
            leaving.state = State.GONE
        self._leaving.clear()
        self._queue.clear()
        for each in self._wanted.values():
            each.request = None
            each.attempts = 0
            if each.reported is State.REJECTED:
                each.reported = State.REFUSED  # each connection tells a lasting refusal again
            self._want(each)

    # --- requests ----------------------------------------------------------------------------------------------

    @property
    def has_next(self) -> bool:
        """Whether :meth:`take_next` may return a subscription."""
        return bool(self._queue) and self._requests is not None

    def take_next(self) -> Subscription[T] | None:
        """Return the next subscription to sign for and to request."""
        while self._requests is not None and self._queue:
            taken, _ = self._queue.popitem(last=False)
            if taken.name not in self._leaving:
                taken.state = State.AUTHORIZING
                return taken
        return None

    def requested(self, subscription: Subscription[T], request: Request) -> None:
        """The subscribe was sent."""
        request.subject = subscription
        subscription.request = request
        for waiter in subscription.waiters:
            waiter.request = request
        if subscription.is_wanted:
            subscription.state = State.REQUESTED
        else:  # the authorizer that signed for it has left it meanwhile
            subscription.state = State.LEAVING
            self._leaving[subscription.name] = subscription
            request.is_overdue = True

    def refused(self, subscription: Subscription[T], error: ReverbError) -> None:
        """The authorizer could not sign for it."""
        if subscription.state is State.AUTHORIZING:
            self._refuse(subscription, error)

    def overdue(self, subscription: Subscription[T], error: ReverbError) -> None:
        """The server did not answer in time. Callers that have waited all that time get the ``error``.

        The answer may still come. If it has not come when the server answers a ping, it never will.
        """
        if subscription.request is None:
            return
        subscription.request.is_overdue = True
        if self._requests is not None and not self._requests.is_ping_last:
            self.commands.append(Ping())
        if subscription.state is State.LEAVING:
            return
        late = [each for each in subscription.waiters if each.request is not subscription.request]
        self._resolve_all(subscription, error, but=late)
        if not subscription.is_wanted:
            self._drop(subscription)
            return
        if subscription.is_given or any(each.is_resolved for each in subscription.waiters):
            self._report(subscription, error, State.REFUSED)
        self._mark_restored(subscription)

    def retry(self, subscription: Subscription[T]) -> None:
        """Request again a channel that was refused for a passing reason."""
        if subscription.state is State.REFUSED:
            self._want(subscription)

    def held_up(self) -> None:
        """No channel can be requested at present. The channels in the queue don't delay ``Restored``."""
        if not self._was_held_up:  # channels that come into the queue later don't count
            self._was_held_up = True
            for each in self._queue:
                self._mark_restored(each)

    # --- the server --------------------------------------------------------------------------------------------

    def succeeded(self, name: str, answer: Any) -> None:
        """The server has confirmed a subscription, or a sign-in."""
        request = self._take_answer(name)
        if request is None:
            self._succeeded_late(name, answer)
            return
        subscription = self._close(request, None)
        if subscription is None:
            return
        if subscription.state is State.REQUESTED and self._may_predate_unsubscribe(name):
            self._want(subscription)
        else:
            self._confirm(subscription, answer)

    def rejected(self, name: str, error: ServerError) -> bool:
        """The server has refused a subscription by name; return whether one was requested."""
        request = self._take_answer(name)
        if request is not None:
            may_last = self._may_last(name, error)
            self._take_refusal(Refusal(request, error, is_sure=True), may_last=may_last)
        return request is not None

    def errored(self, error: ServerError) -> bool:
        """The server has sent an error that names no channel; return whether it answers a known request."""
        if self._requests is None:
            return False
        if is_rate_limit(*error):
            self._doubtful.update(dict.fromkeys(self._left))
            self._left.clear()
        refusal = self._requests.refused(error)
        if refusal is not None:
            self._take_refusal(refusal, may_last=refusal.is_sure)
        elif self._requests.needs_ping:
            self.commands.append(Ping())
        return refusal is not None

    def ponged(self) -> None:
        """The server has answered a ping."""
        request = self._take_answer(None)
        if request is None or self._requests is None:
            return
        self._close(request, None)
        for name, asked in list(self._left.items()):
            if asked is None:  # the ping may be from before the unsubscribe
                self._left[name] = self._requests.count
            elif request.number > asked:
                del self._left[name]
        self._unsubscribe_again()

    def _take_answer(self, name: str | None) -> Request | None:
        if self._requests is None:
            return None
        request, refusals, unanswered = self._requests.answered(name)
        for refusal in refusals:
            self._take_refusal(refusal, may_last=refusal.is_sure)
        for each in unanswered:
            self._give_up_request(each)
        return request

    def _close(self, request: Request, error: ServerError | None) -> Subscription[T] | None:
        """End a request that was answered, or never will be; return its subscription."""
        self.commands.append(Answered(request, error))
        if request.subject is not None:
            request.subject.request = None
        return request.subject

    def _take_refusal(self, refusal: Refusal, *, may_last: bool) -> None:
        request, error, is_sure = refusal
        subscription = self._close(request, error)
        if subscription is None:
            return
        is_leaving = subscription.state is State.LEAVING
        if error.code == INVALID_MESSAGE or not is_sure or (is_leaving and subscription.name in self._unanswered):
            # Reverb also answers so if another member lacks user_info, and then counts us as a member. A refusal
            # that is not sure may have been that one. To unsubscribe does no harm if we are no member.
            self._unsubscribe(subscription.name)
        if is_leaving:
            self._end_leaving(subscription)
        else:
            self._refuse(subscription, self._explain(subscription.name, error), may_last=may_last)

    def _confirm(self, subscription: Subscription[T], answer: Any) -> None:
        if subscription.state is State.LEAVING:
            self._unsubscribe(subscription.name)
            self._end_leaving(subscription)
            return
        subscription.state = State.SUBSCRIBED
        subscription.attempts = 0
        subscription.reported = None
        self.commands.append(Confirmed(subscription, answer))
        self._resolve_all(subscription, None)
        self._mark_restored(subscription)

    def _succeeded_late(self, name: str, answer: Any) -> None:
        """Take the answer to a request that was given up."""
        unanswered = self._unanswered.get(name)
        if unanswered is None:
            return
        is_void = self._may_predate_unsubscribe(name)
        unanswered.open = max(0, unanswered.open - 1)
        found = self._wanted.get(name)
        if found is None or found.state is State.REJECTED:
            self._unsubscribe(name)
        elif found.state is State.REFUSED and not is_void:
            self._confirm(found, answer)

    def _may_predate_unsubscribe(self, name: str) -> bool:
        """Return whether a success may answer a request from before the last unsubscribe, and so does not count.

        That happens on a server that answers out of order, after a request was given up. As many successes may be
        outdated as there are such requests; the next one counts.
        """
        unanswered = self._unanswered.get(name)
        if unanswered is None or not unanswered.void:
            return False
        unanswered.void -= 1
        return True

    def _may_last(self, name: str, error: ServerError) -> bool:
        """Return whether a refusal that names the channel surely answers a request that was not given up."""
        unanswered = self._unanswered.get(name)
        if unanswered is None:
            return True
        unanswered.refusals += is_lasting(self._explain(name, error))
        return unanswered.refusals > unanswered.open

    def _give_up_request(self, request: Request) -> None:
        error = ServerError(None, "it did not answer")
        subscription = self._close(request, error)
        if subscription is None:
            return
        self._unanswered.setdefault(subscription.name, _Unanswered()).open += 1
        if subscription.state is State.LEAVING:
            self._unsubscribe(subscription.name)
            self._end_leaving(subscription)
            return
        if subscription.is_awaited:
            self._want(subscription)  # for callers that came after it was overdue
        else:
            self._retry_later(subscription, self._explain(subscription.name, error))

    # --- changes of state --------------------------------------------------------------------------------------

    def _unsubscribe(self, name: str) -> None:
        self.commands.append(Unsubscribe(name))
        self._left[name] = None
        if name in self._unanswered:
            self._unanswered[name].void = self._unanswered[name].open

    def _unsubscribe_again(self) -> None:
        """Unsubscribe again where the rate limit may have refused it, except for channels that are subscribed."""
        doubtful, self._doubtful = self._doubtful, {}
        for name in doubtful:
            found = self._wanted.get(name)
            if found is not None and found.state is State.REQUESTED:
                self._doubtful[name] = None
            elif found is None or not found.is_subscribed:
                self._unsubscribe(name)

    def _want(self, subscription: Subscription[T]) -> None:
        subscription.state = State.WANTED
        self._enqueue(subscription)

    def _enqueue(self, subscription: Subscription[T]) -> None:
        self._queue[subscription] = None

    def _refuse(self, subscription: Subscription[T], error: ReverbError, *, may_last: bool = True) -> None:
        subscription.state = State.REFUSED
        self._resolve_all(subscription, error)
        if not subscription.is_wanted:
            self._drop(subscription)
            return
        if may_last and is_lasting(error):
            subscription.state = State.REJECTED
            self._report(subscription, error, State.REJECTED)
            if subscription.name in self._unanswered:
                self._unsubscribe(subscription.name)
        else:
            self._report(subscription, error, State.REFUSED)
            self._retry_later(subscription, error)
        self._mark_restored(subscription)

    def _retry_later(self, subscription: Subscription[T], error: ReverbError) -> None:
        subscription.state = State.REFUSED
        subscription.attempts += 1
        self.commands.append(Retry(subscription, error))

    def _report(self, subscription: Subscription[T], error: ReverbError, state: State) -> None:
        """Tell the program of a refusal, unless it knows: of the first passing one, and of a lasting one."""
        if subscription.reported not in (state, State.REJECTED):
            subscription.reported = state
            self.commands.append(Refused(subscription, error, state is State.REJECTED))

    def _drop(self, subscription: Subscription[T]) -> None:
        """Forget a subscription that nobody wants."""
        if self._wanted.get(subscription.name) is not subscription:
            return
        del self._wanted[subscription.name]
        self._queue.pop(subscription, None)
        state, subscription.state = subscription.state, State.GONE
        if state is State.AUTHORIZING:
            self.commands.append(Withdrawn(subscription))
        if state is State.REQUESTED:
            subscription.state = State.LEAVING
            self._leaving[subscription.name] = subscription
        elif state is State.SUBSCRIBED or subscription.name in self._unanswered:
            self._unsubscribe(subscription.name)
        self.commands.append(Forgotten(subscription))
        self._mark_restored(subscription)

    def _end_leaving(self, subscription: Subscription[T]) -> None:
        subscription.state = State.GONE
        self._leaving.pop(subscription.name, None)
        successor = self._wanted.get(subscription.name)
        if successor is not None:
            self._enqueue(successor)

    def _resolve(self, waiter: Waiter[T], error: ReverbError | None) -> None:
        if not waiter.is_resolved:
            waiter.is_resolved = True
            waiter.resolve(error)

    def _resolve_all(
        self, subscription: Subscription[T], error: ReverbError | None, but: Sequence[Waiter[T]] = ()
    ) -> None:
        for waiter in list(subscription.waiters):
            if not waiter.is_resolved and waiter not in but:
                if error is not None:
                    subscription.waiters.remove(waiter)
                self._resolve(waiter, error)

    def _mark_restored(self, subscription: Subscription[T]) -> None:
        if subscription in self._unrestored:
            self._unrestored.remove(subscription)
            if not self._unrestored:
                self.commands.append(Restored())


def is_lasting(error: ReverbError) -> bool:
    """Return whether a channel that is refused so will be refused again until somebody changes something.

    That is so if an authorizer or the server decided about a signature: nobody is logged in, the channel's rule
    says no, the secret is wrong. All other reasons may pass: an application that fails or can't be reached, a rate
    limit, a quota, an exception in the server, a missing answer.
    """
    if isinstance(error, AuthenticationError):
        return not error.is_temporary
    return isinstance(error, ConfigurationError)


# --- which answer belongs to which request ---------------------------------------------------------------------


class Request:
    """A message that the server answers: a subscribe, a sign-in, or a ping (``channel`` is None)."""

    __slots__ = ("after_silent", "channel", "is_overdue", "number", "subject")

    def __init__(self, number: int, channel: str | None, after_silent: bool) -> None:
        self.number = number
        self.channel = channel
        self.after_silent = after_silent
        self.is_overdue = False
        """Whether nobody relies on an answer any more, if the server answers a later request first."""
        self.subject: Subscription[Any] | None = None
        """The subscription that it is about. None for pings and sign-ins."""


class Refusal(NamedTuple):
    """A request that was refused."""

    request: Request
    error: ServerError
    is_sure: bool
    """Whether the error can belong to no other request."""


class PendingRequests:
    """The requests of one connection that have no answer yet; finds the request that an answer belongs to.

    Reverb's errors name no channel. They can be attributed all the same, because the server handles the messages
    of a connection strictly in order. It answers a subscribe with one success or one error, and a ping with one
    pong or one error. It answers everything else (*silent* messages: client events, unsubscribes, pongs) with
    nothing or one error. So an error belongs to the oldest open request, or to a silent message sent before it. If
    the text of the error excludes one of them, the error is attributed at once. If not, it is kept until a later
    request is answered: then every request that was passed over has been refused. :attr:`needs_ping` asks for a
    ping to force such an answer.

    Only one subscribe to the same channel may be open at a time (:meth:`is_open`); otherwise a success could
    belong to either. soketi names the channel in its refusals and may confirm out of order. Both do no harm here:
    to be passed over means nothing unless an error waits to be attributed.

    The rest is guessed: which of several errors was for a silent message, including a ping that was refused (pongs
    have no number); and whether an overdue request was refused, or has no answer, so that the error is a later
    one's. A wrong guess may shift those that follow. So no refusal is sure after a guess, until no request is
    open.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Request, None] = OrderedDict()  # in the order sent
        self.count = 0
        """Number of requests that were sent."""
        self._subscribes: dict[str, Request] = {}
        self._pings: deque[Request] = deque()
        self._waiting: list[ServerError] = []
        self._silent_sent = False
        self._is_limited = False
        """Whether the server has a rate limit. It counts pings, so it may have refused a ping that is open."""
        self._is_guessing = False
        """Whether an error may have been attributed to the wrong request, among those that are open or before."""
        self.is_ping_last = False
        """Whether a ping is open that was sent after all other requests, and after the last error came."""

    def is_open(self, channel: str) -> bool:
        """Return whether a subscribe to ``channel`` has no answer yet."""
        return channel in self._subscribes

    def sent_subscribe(self, channel: str) -> Request:
        request = self._subscribes[channel] = self._ask(channel)
        self.is_ping_last = False
        return request

    def sent_ping(self) -> Request:
        request = self._ask(None)
        self._pings.append(request)
        self.is_ping_last = True
        return request

    def sent_silent(self) -> None:
        self._silent_sent = True

    @property
    def open_pings(self) -> int:
        """Number of pings that have no answer yet."""
        return len(self._pings)

    @property
    def needs_ping(self) -> bool:
        """Whether an error waits to be attributed, and no ping is open whose answer will tell."""
        return bool(self._waiting) and next(reversed(self._open)).channel is not None

    def answered(self, channel: str | None) -> tuple[Request | None, list[Refusal], list[Request]]:
        """Take a success or a refusal that names ``channel``, or a pong (None).

        Returns the request that it answers (None if there is none), the refusals that are now known, and the
        requests that will have no answer. After a pong these are the overdue ones; after another answer these are
        the pings before it, if they may be refused. (Where the refusal of a ping was taken for another's, one ping
        too many is open.)
        """
        if channel is not None:
            request = self._subscribes.get(channel)
        else:  # the oldest ping that is not overdue, or else the oldest
            request = min(self._pings, key=lambda ping: ping.is_overdue, default=None)
        if request is None:
            return None, [], []
        refusals: list[Refusal] = []
        if self._waiting:
            refusals = self._attribute(self._before(request))
            self._waiting.clear()
            for refusal in refusals:
                self._close(refusal.request)
        unanswered: list[Request] = []
        if channel is None:
            unanswered = [each for each in self._before(request) if each.is_overdue]
        elif self._is_limited:
            unanswered = list(takewhile(lambda ping: ping.number < request.number, self._pings))
        for each in unanswered:
            self._close(each)
        self._close(request)
        return request, refusals, unanswered

    def refused(self, error: ServerError) -> Refusal | None:
        """Take an error without a channel; return the refusal that it surely is, or None.

        None means that it belongs to a silent message, or that it is not known yet (:attr:`needs_ping`).
        """
        self.is_ping_last = False
        self._is_limited |= is_rate_limit(*error)
        if not _may_refuse_channels(error) and SIGNIN not in self._subscribes:
            return None  # quickly: there may be thousands of open requests
        if not any(_may_refuse(error, request) for request in self._open):
            return None
        if self._waiting:
            self._waiting.append(error)
            return None
        # The oldest request may be one that can't be refused so: the server answers out of order, or it is a ping
        # that will have no answer.
        for request in self._open:
            is_possible = _may_refuse(error, request)
            if request.after_silent and _may_be_silent(error):
                if is_possible:
                    self._waiting.append(error)
                break
            if is_possible:
                self._is_guessing |= request.is_overdue
                refusal = Refusal(request, error, not self._is_guessing)
                self._close(request)
                return refusal
        return None

    def _attribute(self, passed: Sequence[Request]) -> list[Refusal]:
        """Distribute the errors that wait, in order, among requests that were passed over.

        Errors that are left over were for silent messages.
        """
        kinds = set(self._waiting)
        passed = [each for each in passed if any(_may_refuse(error, each) for error in kinds)]
        surplus = len(self._waiting) - len(passed)
        kept: list[ServerError] = []
        for error in self._waiting:
            if surplus > 0 and _may_be_silent(error):
                surplus -= 1
            else:
                kept.append(error)
        is_sure = not (self._is_guessing or any(each.is_overdue for each in passed))
        if len(passed) != len(self._waiting):
            self._is_guessing = True
            is_sure &= len(passed) < len(self._waiting) and len(kinds) == 1
        return [Refusal(request, error, is_sure) for request, error in zip(passed, kept, strict=False)]

    def _before(self, request: Request) -> list[Request]:
        return list(takewhile(lambda each: each is not request, self._open))

    def _ask(self, channel: str | None) -> Request:
        self.count += 1
        request = Request(self.count, channel, self._silent_sent)
        self._silent_sent = False
        self._open[request] = None
        return request

    def _close(self, request: Request) -> None:
        del self._open[request]
        if request.channel is None:
            self._pings.remove(request)
            self.is_ping_last = False
        elif self._subscribes.get(request.channel) is request:
            del self._subscribes[request.channel]
        if not self._open:
            self._is_guessing = False


def _may_refuse(error: ServerError, request: Request) -> bool:
    if error.code == 4301:
        return is_rate_limit(*error)
    if request.channel is None:
        return False
    if request.channel == SIGNIN:
        return error.code in (UNAUTHORIZED, INVALID_MESSAGE)
    if error.code == UNAUTHORIZED:
        return is_auth_refusal(error) and needs_auth(request.channel)
    return True


def _may_refuse_channels(error: ServerError) -> bool:
    """Return whether a channel can be refused so. Other errors are about client events and sign-ins only."""
    if error.code == 4301:
        return is_rate_limit(*error)
    return error.code != UNAUTHORIZED or is_auth_refusal(error)


def _may_be_silent(error: ServerError) -> bool:
    return not is_auth_refusal(error)
