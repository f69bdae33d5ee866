"""The life of each channel: who wants it, how far it has come, and which answer of the server belongs to it.

Pure: no I/O, no clock, no task, no logging. What happens is told to :class:`Subscriptions` by a method; what is to
be done about it is appended to its ``commands``, for :class:`reverb._channels.Channels` to carry out in that
order. Nothing in here calls out, so a state is never seen half changed, whoever is called by the commands.

A subscription goes through these states on each connection::

    WANTED ── take_next() ──► AUTHORIZING ── asked() ──► ASKED ── succeeded() ──► SUBSCRIBED
       ▲                           │                       │
       │                           └────── refused() ──────┤
       ├── retry() ──  REFUSED, for a passing reason  ◄────┤
       └── next connection ──  REJECTED, for a lasting one ◄┘

The rules:

1. *Wanted.* A subscription is kept for as long as somebody wants it: callers who wait (their claims), or the
   program that was given the channel. A connection that ends takes it back to WANTED.
2. *Left.* When nobody wants it any more it is GONE at once, and unsubscribed if it was SUBSCRIBED. But in ASKED
   it is LEAVING until the server's answer is there, because only then it is known what the server has to undo;
   and its name is not asked for again before that.
3. *Refused.* Who waits gets the error. What the program has is tried again: after a delay, or on the next
   connection if the reason lasts (:func:`is_lasting`). In both cases a new caller has it tried at once. "Invalid
   message" may leave us a member all the same, so that is unsubscribed as well.
4. *Which question.* Reverb's errors name no channel: :class:`Answers` finds out which question one belongs to,
   and says whether that is sure. A ping, the ``Fence``, brings about what it needs to know.
5. *Overdue.* When the server does not answer in time, who waits gets an error, and a ping is sent. The question
   is given up if the pong comes first: a server that answers in order, as Reverb does, will never answer it.
   What is wanted still is asked for again.
6. *Unanswered.* But soketi, which answers out of order, may answer what was given up. So a name with such a
   question is unsubscribed also where we know of no success: when it is left, or refused for good.
7. *Guesses.* Where it is not sure what was answered, that is done which is right in any case. What was refused
   is unsubscribed as well, and tried again. A success that may be older than our last unsubscribe means nothing:
   the channel is asked for again. A refusal that may be an older question's does not last.
8. *Doubtful.* A rate limit refuses unsubscribes, too. What it may have refused is unsubscribed again at the next
   pong, unless it is subscribed again by then.
9. *Restored.* When all that was wanted at the start of a connection has come to something, that is said once.
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
    WANTED = "wanted"
    """To be asked for when there is a connection, and it is its turn."""
    AUTHORIZING = "authorizing"
    """Somebody signs for it, or it waits in line for that."""
    ASKED = "asked"
    """The server's answer is to come."""
    SUBSCRIBED = "subscribed"
    REFUSED = "refused"
    """Refused for a passing reason, and tried again on this connection."""
    REJECTED = "rejected"
    """Refused for a lasting reason, and tried again on the next connection."""
    LEAVING = "leaving"
    """Nobody wants it any more, but the server's answer is still to come."""
    GONE = "gone"


class Subscription(Generic[T]):
    """A channel that is wanted; ``item`` is what the one who wants it keeps about it."""

    __slots__ = ("attempts", "claims", "is_given", "item", "name", "question", "reported", "state")

    def __init__(self, name: str, item: T) -> None:
        self.name = name
        self.item = item
        self.state = State.WANTED
        self.is_given = False
        """Whether the program was given the channel, and has not left it."""
        self.reported: State | None = None
        """What the program was told of since it was last subscribed: REFUSED, REJECTED, or nothing."""
        self.attempts = 0
        """Refusals for a passing reason since it was last subscribed, or connected."""
        self.question: Question | None = None
        """What the server was asked, while the answer is to come."""
        self.claims: list[Claim[T]] = []

    @property
    def is_subscribed(self) -> bool:
        return self.state is State.SUBSCRIBED

    @property
    def is_awaited(self) -> bool:
        """Whether callers wait for it, or are about to be given it."""
        return bool(self.claims)

    @property
    def is_wanted(self) -> bool:
        return self.is_given or self.is_awaited

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r} {self.state.value}>"


class Claim(Generic[T]):
    """A caller who waits for a channel. ``resolve`` is called once, with None when it is subscribed, or with the
    error that it can't be; it must not call back. Then the claim has to be given, or withdrawn."""

    __slots__ = ("is_resolved", "question", "resolve", "subscription")

    def __init__(self, subscription: Subscription[T], resolve: Callable[[ReverbError | None], None]) -> None:
        self.subscription = subscription
        self.resolve = resolve
        self.is_resolved = False
        self.question: Question | None = None
        """The one whose time is the caller's, too; None for who came after it was asked."""


class _Unanswered:
    """What is to be known of a name that the server left without an answer."""

    __slots__ = ("open", "refusals", "void")

    def __init__(self) -> None:
        self.open = 0
        """How many questions were given up whose answers may come yet."""
        self.void = 0
        """How many successes may come that say nothing, since we have unsubscribed after their questions."""
        self.refusals = 0
        """How many refusals have come that name it and would last."""


# --- what is to be done ----------------------------------------------------------------------------------------


class Confirmed(msgspec.Struct, frozen=True):
    """The server has subscribed us; ``answer`` is what it said, as it was handed in."""

    subscription: Subscription[Any]
    answer: Any


class Refused(msgspec.Struct, frozen=True):
    """A channel that the program was given, or is about to be, is refused, and it does not know yet."""

    subscription: Subscription[Any]
    error: ReverbError
    is_lasting: bool


class Retry(msgspec.Struct, frozen=True):
    """Call :meth:`Subscriptions.retry` after a delay, which grows with the ``attempts``."""

    subscription: Subscription[Any]
    error: ReverbError


class Withdrawn(msgspec.Struct, frozen=True):
    """Nobody wants it any more: stop signing for it."""

    subscription: Subscription[Any]


class Forgotten(msgspec.Struct, frozen=True):
    """Nobody wants it any more: let go of what was kept for it."""

    subscription: Subscription[Any]


class Unsubscribe(msgspec.Struct, frozen=True):
    """Tell the server that we leave a channel."""

    name: str


class Fence(msgspec.Struct, frozen=True):
    """Send a ping: its answer restores what the server has left open."""


class Answered(msgspec.Struct, frozen=True):
    """A question has its answer, or will never have one; ``error`` is None for a good one."""

    question: Question
    error: ServerError | None


class Restored(msgspec.Struct, frozen=True):
    """All that was wanted when the connection was made is subscribed, refused, or overdue."""


Command = Confirmed | Refused | Retry | Withdrawn | Forgotten | Unsubscribe | Fence | Answered | Restored


class Subscriptions(Generic[T]):
    """All channels that a client wants. ``explain(name, error)`` makes an exception of a server's refusal."""

    def __init__(self, explain: Callable[[str, ServerError], ReverbError]) -> None:
        self.commands: deque[Command] = deque()
        """What is to be done, in this order."""
        self._explain = explain
        self._wanted: dict[str, Subscription[T]] = {}
        self._leaving: dict[str, Subscription[T]] = {}
        self._queue: OrderedDict[Subscription[T], None] = OrderedDict()
        """Those to be asked for, in order. (A dict finds its first slower, the more were taken before it.)"""
        self._unrestored: set[Subscription[T]] = set()
        self._was_held_up = False
        self._answers: Answers | None = None
        """Those of the present connection."""
        self._unanswered: dict[str, _Unanswered] = {}
        """Names that the server left without an answer, on this connection, though it may have subscribed us."""
        self._left: dict[str, int | None] = {}
        """Names that were unsubscribed, though the server may have refused that; and how many questions had been
        asked at the first pong since."""
        self._doubtful: dict[str, None] = {}
        """Those of them that a rate limit, which counts unsubscribes, too, may have refused."""

    def __iter__(self) -> Iterator[Subscription[T]]:
        return iter(list(self._wanted.values()))

    def get(self, name: str) -> Subscription[T] | None:
        """The subscription that is wanted by this name."""
        return self._wanted.get(name)

    def is_stuck(self, subscription: Subscription[T]) -> bool:
        """Whether it waits for an answer that the server has left open for too long."""
        first = self._leaving.get(subscription.name, subscription)
        return first.question is not None and first.question.is_overdue

    # --- callers -----------------------------------------------------------------------------------------------

    def claim(self, name: str, item: T, resolve: Callable[[ReverbError | None], None]) -> Claim[T]:
        """Want a channel; ``item`` is for a subscription that there was none of.

        What is subscribed already is resolved at once, and what is refused is tried again at once.
        """
        found = self._find(name, item)
        claim = Claim(found, resolve)
        found.claims.append(claim)
        if found.is_subscribed:
            self._resolve(claim, None)
        return claim

    def want(self, name: str, item: T) -> Subscription[T]:
        """Want a channel without waiting for it: the program has it until :meth:`leave`.

        What is refused is tried again at once.
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

    def give(self, claim: Claim[T]) -> bool:
        """Give the channel to the program, which has it until :meth:`leave`; return whether it is there still."""
        subscription = claim.subscription
        if claim not in subscription.claims:
            return False
        subscription.claims.remove(claim)
        subscription.is_given = True
        return True

    def withdraw(self, claim: Claim[T]) -> None:
        """Want the channel no longer, unless others do."""
        subscription = claim.subscription
        if claim in subscription.claims:
            subscription.claims.remove(claim)
        if not subscription.is_wanted:
            self._drop(subscription)

    def leave(self, name: str, error: ReverbError) -> None:
        """Leave a channel, whoever wants it; those who wait get the ``error``."""
        found = self._wanted.get(name)
        if found is not None:
            self._resolve_all(found, error)
            found.claims.clear()
            found.is_given = False
            self._drop(found)

    def give_up(self, error: ReverbError) -> None:
        """There will be no connection: let all who wait have the ``error``. What was given stays wanted."""
        for each in self:
            self._resolve_all(each, error)
            if not each.is_wanted:
                self._drop(each)

    # --- the connection ----------------------------------------------------------------------------------------

    def connected(self, answers: Answers) -> None:
        """There is a connection, on which everything is to be asked for."""
        self._answers = answers
        self._unrestored = set(self._wanted.values())
        self._was_held_up = False
        if not self._unrestored:
            self.commands.append(Restored())

    def lost(self) -> None:
        """The connection is gone, and what was asked on it."""
        self._answers = None
        self._unrestored = set()
        self._unanswered.clear()
        self._left.clear()
        self._doubtful.clear()
        for leaving in self._leaving.values():
            leaving.state = State.GONE
        self._leaving.clear()
        self._queue.clear()
        for each in self._wanted.values():
            each.question = None
            each.attempts = 0
            if each.reported is State.REJECTED:
                each.reported = State.REFUSED  # a lasting refusal is told at each connection
            self._want(each)

    # --- asking ------------------------------------------------------------------------------------------------

    @property
    def has_next(self) -> bool:
        """Whether there may be a subscription for :meth:`take_next`."""
        return bool(self._queue) and self._answers is not None

    def take_next(self) -> Subscription[T] | None:
        """Return the next subscription to sign for, and then to ask for."""
        while self._answers is not None and self._queue:
            taken, _ = self._queue.popitem(last=False)
            if taken.name not in self._leaving:
                taken.state = State.AUTHORIZING
                return taken
        return None

    def asked(self, subscription: Subscription[T], question: Question) -> None:
        """The server has been asked for it."""
        question.subject = subscription
        subscription.question = question
        for claim in subscription.claims:
            claim.question = question
        if subscription.is_wanted:
            subscription.state = State.ASKED
        else:  # left by the very authorizer that has signed for it
            subscription.state = State.LEAVING
            self._leaving[subscription.name] = subscription
            question.is_overdue = True

    def refused(self, subscription: Subscription[T], error: ReverbError) -> None:
        """It could not be signed for."""
        if subscription.state is State.AUTHORIZING:
            self._refuse(subscription, error)

    def overdue(self, subscription: Subscription[T], error: ReverbError) -> None:
        """The server has had its time to answer: those who have waited for so long get the ``error``.

        The answer may come yet. If it is still not there when the server answers a ping, it never will.
        """
        if subscription.question is None:
            return
        subscription.question.is_overdue = True
        if self._answers is not None and not self._answers.is_fenced:
            self.commands.append(Fence())
        if subscription.state is State.LEAVING:
            return
        late = [each for each in subscription.claims if each.question is not subscription.question]
        self._resolve_all(subscription, error, but=late)
        if not subscription.is_wanted:
            self._drop(subscription)
            return
        if subscription.is_given or any(each.is_resolved for each in subscription.claims):
            self._report(subscription, error, State.REFUSED)
        self._mark_restored(subscription)

    def retry(self, subscription: Subscription[T]) -> None:
        """Ask again for what was refused for a passing reason."""
        if subscription.state is State.REFUSED:
            self._want(subscription)

    def held_up(self) -> None:
        """Nothing is asked for at present: who waits for all to be restored does not wait for that."""
        if not self._was_held_up:  # nothing that is not restored comes into the queue later
            self._was_held_up = True
            for each in self._queue:
                self._mark_restored(each)

    # --- the server --------------------------------------------------------------------------------------------

    def succeeded(self, name: str, answer: Any) -> None:
        """It has confirmed a subscription, or a sign-in."""
        question = self._take_answer(name)
        if question is None:
            self._succeeded_late(name, answer)
            return
        subscription = self._close(question, None)
        if subscription is None:
            return
        if subscription.state is State.ASKED and self._may_predate_unsubscribe(name):
            self._want(subscription)
        else:
            self._confirm(subscription, answer)

    def rejected(self, name: str, error: ServerError) -> bool:
        """It has refused a subscription by name; return whether one was asked for."""
        question = self._take_answer(name)
        if question is not None:
            may_last = self._may_last(name, error)
            self._take_refusal(Refusal(question, error, is_sure=True), may_last=may_last)
        return question is not None

    def errored(self, error: ServerError) -> bool:
        """It has sent an error that names nothing; return whether a question is known that it answers."""
        if self._answers is None:
            return False
        if is_rate_limit(*error):
            self._doubtful.update(dict.fromkeys(self._left))
            self._left.clear()
        refusal = self._answers.refused(error)
        if refusal is not None:
            self._take_refusal(refusal, may_last=refusal.is_sure)
        elif self._answers.wants_fence:
            self.commands.append(Fence())
        return refusal is not None

    def ponged(self) -> None:
        """It has answered a ping."""
        question = self._take_answer(None)
        if question is None or self._answers is None:
            return
        self._close(question, None)
        for name, asked in list(self._left.items()):
            if asked is None:  # the ping may be from before the unsubscribe
                self._left[name] = self._answers.asked
            elif question.number > asked:
                del self._left[name]
        self._unsubscribe_again()

    def _take_answer(self, name: str | None) -> Question | None:
        if self._answers is None:
            return None
        question, refusals, unanswered = self._answers.answered(name)
        for refusal in refusals:
            self._take_refusal(refusal, may_last=refusal.is_sure)
        for each in unanswered:
            self._give_up_question(each)
        return question

    def _close(self, question: Question, error: ServerError | None) -> Subscription[T] | None:
        """A question has its answer, or will never have one; return the subscription that it is about."""
        self.commands.append(Answered(question, error))
        if question.subject is not None:
            question.subject.question = None
        return question.subject

    def _take_refusal(self, refusal: Refusal, *, may_last: bool) -> None:
        question, error, is_sure = refusal
        subscription = self._close(question, error)
        if subscription is None:
            return
        is_leaving = subscription.state is State.LEAVING
        if error.code == INVALID_MESSAGE or not is_sure or (is_leaving and subscription.name in self._unanswered):
            # Reverb says so, too, when another member lacks user_info, and counts us as a member all the same.
            # What is not sure may have been that. Who is no member may unsubscribe, too.
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
        """Take the answer to a question that the server had left open for too long."""
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
        """Whether a success may answer a question from before the last unsubscribe, and so mean nothing.

        That can be on a server that answers out of order, when a question was given up. Of as many successes as
        there are such questions each may be one of theirs; the next one can't be.
        """
        unanswered = self._unanswered.get(name)
        if unanswered is None or not unanswered.void:
            return False
        unanswered.void -= 1
        return True

    def _may_last(self, name: str, error: ServerError) -> bool:
        """Whether a refusal that names the channel surely answers a question that was not given up."""
        unanswered = self._unanswered.get(name)
        if unanswered is None:
            return True
        unanswered.refusals += is_lasting(self._explain(name, error))
        return unanswered.refusals > unanswered.open

    def _give_up_question(self, question: Question) -> None:
        error = ServerError(None, "it did not answer")
        subscription = self._close(question, error)
        if subscription is None:
            return
        self._unanswered.setdefault(subscription.name, _Unanswered()).open += 1
        if subscription.state is State.LEAVING:
            self._unsubscribe(subscription.name)
            self._end_leaving(subscription)
            return
        if subscription.is_awaited:
            self._want(subscription)  # by callers who came when it was overdue already
        else:
            self._retry_later(subscription, self._explain(subscription.name, error))

    # --- what both sides lead to -------------------------------------------------------------------------------

    def _unsubscribe(self, name: str) -> None:
        self.commands.append(Unsubscribe(name))
        self._left[name] = None
        if name in self._unanswered:
            self._unanswered[name].void = self._unanswered[name].open

    def _unsubscribe_again(self) -> None:
        """Unsubscribe again what the rate limit may have refused, except what is subscribed."""
        doubtful, self._doubtful = self._doubtful, {}
        for name in doubtful:
            found = self._wanted.get(name)
            if found is not None and found.state is State.ASKED:
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

    def _report(self, subscription: Subscription[T], error: ReverbError, what: State) -> None:
        """Tell the program, unless it knows: of the first refusal that may pass, and of one that lasts."""
        if subscription.reported not in (what, State.REJECTED):
            subscription.reported = what
            self.commands.append(Refused(subscription, error, what is State.REJECTED))

    def _drop(self, subscription: Subscription[T]) -> None:
        """Forget what nobody wants."""
        if self._wanted.get(subscription.name) is not subscription:
            return
        del self._wanted[subscription.name]
        self._queue.pop(subscription, None)
        state, subscription.state = subscription.state, State.GONE
        if state is State.AUTHORIZING:
            self.commands.append(Withdrawn(subscription))
        if state is State.ASKED:
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

    def _resolve(self, claim: Claim[T], error: ReverbError | None) -> None:
        if not claim.is_resolved:
            claim.is_resolved = True
            claim.resolve(error)

    def _resolve_all(
        self, subscription: Subscription[T], error: ReverbError | None, but: Sequence[Claim[T]] = ()
    ) -> None:
        for claim in list(subscription.claims):
            if not claim.is_resolved and claim not in but:
                if error is not None:
                    subscription.claims.remove(claim)
                self._resolve(claim, error)

    def _mark_restored(self, subscription: Subscription[T]) -> None:
        if subscription in self._unrestored:
            self._unrestored.remove(subscription)
            if not self._unrestored:
                self.commands.append(Restored())


def is_lasting(error: ReverbError) -> bool:
    """Whether a channel that is refused so will be refused again, until something is changed.

    That is so for what an authorizer or the server decided about a signature: nobody is logged in, the channel's
    rule says no, the secret is wrong. Everything else may be over in a moment: an application that can't be
    reached or fails, a rate limit, a quota, an exception in the server, an answer that does not come.
    """
    if isinstance(error, AuthenticationError):
        return not error.is_temporary
    return isinstance(error, ConfigurationError)


# --- which answer belongs to which message ---------------------------------------------------------------------


class Question:
    """A message that the server answers: a subscribe, a sign-in, or a ping (``channel`` is None)."""

    __slots__ = ("after_silent", "channel", "is_overdue", "number", "subject")

    def __init__(self, number: int, channel: str | None, after_silent: bool) -> None:
        self.number = number
        self.channel = channel
        self.after_silent = after_silent
        self.is_overdue = False
        """Whether nobody counts on an answer, should a later question be answered first."""
        self.subject: Subscription[Any] | None = None
        """The subscription that it is about, if it is about one."""


class Refusal(NamedTuple):
    question: Question
    error: ServerError
    is_sure: bool
    """Whether the error can be no other question's."""


class Answers:
    """Finds out which of our messages an answer of the server belongs to, on one connection.

    Reverb's errors name no channel. What makes them attributable all the same: a connection's messages are handled
    strictly in the order sent, a subscribe is answered by one success or one error, a ping by one pong or one
    error, and everything else ("silent": client events, unsubscribes, pongs) by nothing or one error. So an error
    belongs to the oldest open question, or to something silent sent before it. Where the text of the error rules
    one of them out, it is attributed at once. Where not, it is kept until a later question is answered: then every
    question passed over has been refused. :attr:`wants_fence` asks for a ping to force such an answer.

    Only one subscribe to the same channel may be open at a time (:meth:`is_open`), or a success could belong to
    either. soketi names the channel in its refusals and may confirm out of order. Both are harmless here: being
    passed over means nothing unless an error waits to be attributed.

    What remains is guessed: which of several errors was for something silent, a ping that was refused included
    (pongs have no number); and whether a question that is overdue was refused, or has no answer, so that the error
    is a later one's. A wrong guess may shift those that follow: no refusal is sure from then on, until nothing is
    open.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Question, None] = OrderedDict()  # in the order sent
        self.asked = 0
        """How many questions were asked."""
        self._subscribes: dict[str, Question] = {}
        self._pings: deque[Question] = deque()
        self._waiting: list[ServerError] = []
        self._silent_sent = False
        self._is_limited = False
        """Whether the server has a rate limit, which counts pings: one that is open may have been refused."""
        self._is_guessing = False
        """Whether an error may have been attributed to the wrong question among those that are open, or before."""
        self.is_fenced = False
        """Whether a ping is on its way that was sent after all other questions, and after the last error came."""

    def is_open(self, channel: str) -> bool:
        """Whether the answer to a subscribe to ``channel`` is still to come."""
        return channel in self._subscribes

    def sent_subscribe(self, channel: str) -> Question:
        question = self._subscribes[channel] = self._ask(channel)
        self.is_fenced = False
        return question

    def sent_ping(self) -> Question:
        question = self._ask(None)
        self._pings.append(question)
        self.is_fenced = True
        return question

    def sent_silent(self) -> None:
        self._silent_sent = True

    @property
    def open_pings(self) -> int:
        """How many pings are not answered yet."""
        return len(self._pings)

    @property
    def wants_fence(self) -> bool:
        """Whether an error waits to be attributed and no ping is on its way that will tell."""
        return bool(self._waiting) and next(reversed(self._open)).channel is not None

    def answered(self, channel: str | None) -> tuple[Question | None, list[Refusal], list[Question]]:
        """Take a success or a refusal that names ``channel``, or a pong (None).

        Returns the question it answers, or None where nobody asked, the refusals that it brings to light, and the
        questions that it shows will have no answer: a pong those that are overdue, anything else the pings before
        it, if they may be refused. (Where the refusal of a ping was taken for another's, one too many is open.)
        """
        if channel is not None:
            question = self._subscribes.get(channel)
        else:  # the oldest ping, but one that is overdue only where all are
            question = min(self._pings, key=lambda ping: ping.is_overdue, default=None)
        if question is None:
            return None, [], []
        refusals: list[Refusal] = []
        if self._waiting:
            refusals = self._attribute(self._before(question))
            self._waiting.clear()
            for refusal in refusals:
                self._close(refusal.question)
        unanswered: list[Question] = []
        if channel is None:
            unanswered = [each for each in self._before(question) if each.is_overdue]
        elif self._is_limited:
            unanswered = list(takewhile(lambda ping: ping.number < question.number, self._pings))
        for each in unanswered:
            self._close(each)
        self._close(question)
        return question, refusals, unanswered

    def refused(self, error: ServerError) -> Refusal | None:
        """Take an error without a channel; return the refusal it surely is, or None.

        None means that it belongs to something silent, or that it is not known yet (:attr:`wants_fence`).
        """
        self.is_fenced = False
        self._is_limited |= is_rate_limit(*error)
        if not _may_refuse_channels(error) and SIGNIN not in self._subscribes:
            return None  # without a look at each open question: there may be thousands
        if not any(_may_refuse(error, question) for question in self._open):
            return None
        if self._waiting:
            self._waiting.append(error)
            return None
        # The oldest question may be one that can't be refused so: on a server that answers out of order, or a ping
        # that will have no answer.
        for question in self._open:
            is_possible = _may_refuse(error, question)
            if question.after_silent and _may_be_silent(error):
                if is_possible:
                    self._waiting.append(error)
                break
            if is_possible:
                self._is_guessing |= question.is_overdue
                refusal = Refusal(question, error, not self._is_guessing)
                self._close(question)
                return refusal
        return None

    def _attribute(self, passed: Sequence[Question]) -> list[Refusal]:
        """Share out the errors that wait, in order, among questions that were passed over.

        Errors left over were for silent ones.
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
        return [Refusal(question, error, is_sure) for question, error in zip(passed, kept, strict=False)]

    def _before(self, question: Question) -> list[Question]:
        return list(takewhile(lambda each: each is not question, self._open))

    def _ask(self, channel: str | None) -> Question:
        self.asked += 1
        question = Question(self.asked, channel, self._silent_sent)
        self._silent_sent = False
        self._open[question] = None
        return question

    def _close(self, question: Question) -> None:
        del self._open[question]
        if question.channel is None:
            self._pings.remove(question)
            self.is_fenced = False
        elif self._subscribes.get(question.channel) is question:
            del self._subscribes[question.channel]
        if not self._open:
            self._is_guessing = False


def _may_refuse(error: ServerError, question: Question) -> bool:
    if error.code == 4301:
        return is_rate_limit(*error)
    if question.channel is None:
        return False
    if question.channel == SIGNIN:
        return error.code in (UNAUTHORIZED, INVALID_MESSAGE)
    if error.code == UNAUTHORIZED:
        return is_auth_refusal(error) and needs_auth(question.channel)
    return True


def _may_refuse_channels(error: ServerError) -> bool:
    """Whether there are channels that may be refused so; what remains is said of client events and sign-ins."""
    if error.code == 4301:
        return is_rate_limit(*error)
    return error.code != UNAUTHORIZED or is_auth_refusal(error)


def _may_be_silent(error: ServerError) -> bool:
    return not is_auth_refusal(error)
