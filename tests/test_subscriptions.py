"""The life of each channel: what callers, authorizers, connections and answers do to it, and what is commanded.

``test_subscriptions_machine.py`` does all of that in any order.
"""

from __future__ import annotations

import random
from collections import deque
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverb import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ReverbError,
    SubscriptionError,
    TimeoutError,
)
from reverb._protocol import SIGNIN, ServerError, is_auth_refusal
from reverb._subscriptions import (
    Answered,
    Command,
    Confirmed,
    Forgotten,
    PendingRequests,
    Ping,
    Refused,
    Request,
    Restored,
    Retry,
    State,
    Subscription,
    Subscriptions,
    Unsubscribe,
    Waiter,
    Withdrawn,
    is_lasting,
)

UNAUTHORIZED = ServerError(4009, "Connection is unauthorized")
NOT_A_MEMBER = ServerError(4009, "The client is not a member of the specified channel.")
INVALID = ServerError(4200, "Invalid message format")
RATE_LIMIT = ServerError(4301, "Rate limit exceeded")
NO_CLIENT_EVENTS = ServerError(4301, "The app does not have client messaging enabled.")

NO_ANSWER = ServerError(None, "it did not answer")
LATE = TimeoutError("no answer in time")
LEFT = SubscriptionError("left before the server had confirmed it")


class Life:
    """Subscriptions, and what a shell does for them."""

    def __init__(self, *, is_connected: bool = True) -> None:
        self.subscriptions: Subscriptions[str] = Subscriptions(self.explain)
        self.requests = PendingRequests()
        if is_connected:
            self.connect()
            assert self.commands() == [Restored()]

    def explain(self, name: str, error: ServerError) -> ReverbError:
        if is_auth_refusal(error):
            return AuthenticationError(name, code=error.code)
        return SubscriptionError(name, code=error.code)

    def connect(self) -> None:
        self.requests = PendingRequests()
        self.subscriptions.connected(self.requests)

    def commands(self) -> list[Command]:
        taken = list(self.subscriptions.commands)
        self.subscriptions.commands.clear()
        return taken

    def kinds(self) -> list[type]:
        return [type(each) for each in self.commands()]

    def add_waiter(self, name: str = "a") -> Caller:
        return Caller(self.subscriptions, name)

    def sign(self, name: str = "a") -> Subscription[str]:
        """Let somebody sign for what is next."""
        taken = self.subscriptions.take_next()
        assert taken is not None
        assert (taken.name, taken.state) == (name, State.AUTHORIZING)
        return taken

    def attempt(self, name: str = "a") -> Subscription[str]:
        """Ask the server for what is next."""
        taken = self.sign(name)
        self.send(taken)
        assert taken.state is State.REQUESTED
        return taken

    def send(self, subscription: Subscription[str]) -> None:
        self.subscriptions.requested(subscription, self.requests.sent_subscribe(subscription.name))

    def subscribe(self, name: str = "a") -> Subscription[str]:
        """Give the program a channel."""
        caller = self.add_waiter(name)
        taken = self.attempt(name)
        self.subscriptions.succeeded(name, "yes")
        caller.give()
        self.commands()
        return taken

    def ping_as_commanded(self) -> None:
        """Do as is commanded, and let the server answer: what it has not answered by now it never will."""
        assert Ping() in self.commands()
        self.ping()

    def ping(self) -> None:
        self.requests.sent_ping()
        self.subscriptions.ponged()


class Caller:
    """Somebody who waits for a channel."""

    def __init__(self, subscriptions: Subscriptions[str], name: str) -> None:
        self.results: list[ReverbError | None] = []
        self.subscriptions = subscriptions
        self.waiter: Waiter[str] = subscriptions.add_waiter(name, f"item of {name}", self.results.append)

    def give(self) -> None:
        assert self.results == [None]
        assert self.subscriptions.give(self.waiter)

    def withdraw(self) -> None:
        self.subscriptions.withdraw(self.waiter)


# --- from wanted to subscribed ---------------------------------------------------------------------------------


def test_a_waiter_is_resolved_when_the_server_has_confirmed_and_then_given() -> None:
    life = Life()
    caller = life.add_waiter()
    subscription = life.attempt()
    assert not caller.results
    life.subscriptions.succeeded("a", "its answer")
    assert subscription.is_subscribed
    assert life.commands()[1:] == [Confirmed(subscription, "its answer")]
    caller.give()
    assert not life.subscriptions.give(caller.waiter)  # as it is given already
    caller.withdraw()  # which it may do in any case, when it has no more need to wait
    assert subscription.is_given
    assert life.subscriptions.get("a") is subscription
    assert subscription.item == "item of a"
    assert life.commands() == []


def test_the_answer_to_a_request_is_told() -> None:
    life = Life()
    life.add_waiter()
    request = life.attempt().request
    life.subscriptions.succeeded("a", None)
    assert request is not None
    assert life.commands()[0] == Answered(request, None)


def test_what_is_wanted_waits_for_a_connection() -> None:
    life = Life(is_connected=False)
    life.add_waiter("a")
    life.add_waiter("b")
    assert life.subscriptions.take_next() is None
    life.connect()
    life.sign("a")
    life.sign("b")
    assert life.subscriptions.take_next() is None


def test_what_is_subscribed_resolves_a_waiter_at_once() -> None:
    life = Life()
    subscription = life.subscribe()
    caller = life.add_waiter()
    assert caller.results == [None]
    assert caller.waiter.subscription is subscription
    assert life.subscriptions.take_next() is None


def test_callers_for_one_name_share_a_subscription() -> None:
    life = Life()
    callers = [life.add_waiter(), life.add_waiter()]
    life.attempt()
    callers.append(life.add_waiter())
    assert life.subscriptions.take_next() is None
    life.subscriptions.succeeded("a", None)
    assert [each.results for each in callers] == [[None]] * 3
    assert len(list(life.subscriptions)) == 1


def test_what_is_wanted_without_waiting_is_the_programs_from_the_start() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    assert subscription.is_given
    assert life.attempt() is subscription
    life.subscriptions.succeeded("a", None)
    assert subscription.is_subscribed
    assert life.subscriptions.want("a", "another item") is subscription
    assert subscription.item == "item"


# --- callers who go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["wanted", "authorizing", "requested", "subscribed", "given"])
def test_who_withdraws_takes_nothing_from_others(when: str) -> None:
    life = Life()
    a, b = life.add_waiter(), life.add_waiter()
    if when == "authorizing":
        life.sign()
    if when in ("requested", "subscribed", "given"):
        life.attempt()
    if when in ("subscribed", "given"):
        life.subscriptions.succeeded("a", None)
    if when == "given":
        b.give()
    life.commands()
    a.withdraw()
    assert life.commands() == []
    assert life.subscriptions.get("a") is b.waiter.subscription
    if when == "wanted":
        life.attempt()
    elif when == "authorizing":
        life.send(b.waiter.subscription)
    life.subscriptions.succeeded("a", None)
    assert b.results == [None]


@pytest.mark.parametrize("is_connected", [True, False])
def test_what_nobody_wants_before_it_was_asked_for_is_forgotten(is_connected: bool) -> None:
    life = Life(is_connected=is_connected)
    caller = life.add_waiter()
    caller.withdraw()
    assert life.commands() == [Forgotten(caller.waiter.subscription)]
    assert life.subscriptions.take_next() is None
    assert life.subscriptions.get("a") is None


def test_what_nobody_wants_is_signed_for_no_longer() -> None:
    life = Life()
    caller = life.add_waiter("private-a")
    subscription = life.sign("private-a")
    caller.withdraw()
    assert life.commands() == [Withdrawn(subscription), Forgotten(subscription)]
    life.subscriptions.refused(subscription, AuthenticationError("too late"))
    assert life.commands() == []


def test_what_its_own_authorizer_leaves_and_signs_for_is_undone_when_the_server_answers() -> None:
    life = Life()
    caller = life.add_waiter("private-a")
    subscription = life.sign("private-a")
    caller.withdraw()
    life.send(subscription)
    life.commands()
    life.add_waiter("private-a")
    assert life.subscriptions.take_next() is None
    life.subscriptions.succeeded("private-a", None)
    assert life.commands()[1:] == [Unsubscribe("private-a")]
    life.attempt("private-a")


def test_what_its_own_authorizer_leaves_is_not_waited_for() -> None:
    life = Life()
    caller = life.add_waiter("private-a")
    subscription = life.sign("private-a")
    caller.withdraw()
    life.send(subscription)
    successor = life.add_waiter("private-a").waiter.subscription
    assert life.subscriptions.is_stuck(successor)
    life.ping()
    assert not life.subscriptions.is_stuck(successor)
    life.attempt("private-a")


def test_what_its_own_authorizer_leaves_may_be_asked_for_twice_and_left_twice() -> None:
    life = Life()
    first = life.add_waiter("private-a")
    left = life.sign("private-a")
    first.withdraw()
    second = life.add_waiter("private-a")
    successor = life.sign("private-a")
    life.send(left)
    life.send(successor)
    second.withdraw()
    life.subscriptions.succeeded("private-a", None)
    assert Unsubscribe("private-a") in life.commands()
    life.ping()
    assert Unsubscribe("private-a") in life.commands()
    assert left.state is successor.state is State.GONE
    life.add_waiter("private-a")
    life.attempt("private-a")


def test_a_waiter_that_was_resolved_and_is_withdrawn_before_it_is_given_leaves() -> None:
    life = Life()
    caller = life.add_waiter()
    subscription = life.attempt()
    life.subscriptions.succeeded("a", None)
    life.commands()
    caller.withdraw()
    assert life.commands() == [Unsubscribe("a"), Forgotten(subscription)]
    assert not life.subscriptions.give(caller.waiter)
    assert not list(life.subscriptions)


def test_what_is_given_up_while_it_is_asked_for_is_unsubscribed_when_it_succeeds() -> None:
    life = Life()
    caller = life.add_waiter()
    subscription = life.attempt()
    caller.withdraw()
    assert life.commands() == [Forgotten(subscription)]
    assert life.subscriptions.get("a") is None
    life.subscriptions.succeeded("a", None)
    assert life.commands()[1:] == [Unsubscribe("a")]
    assert subscription.state is State.GONE
    assert caller.results == []


def test_what_is_given_up_while_it_is_asked_for_may_be_refused() -> None:
    life = Life()
    caller = life.add_waiter("private-a")
    life.attempt("private-a")
    caller.withdraw()
    life.commands()
    assert life.subscriptions.errored(UNAUTHORIZED)
    assert life.kinds() == [Answered]


def test_what_is_given_up_while_it_is_asked_for_may_never_be_answered() -> None:
    life = Life()
    caller = life.add_waiter()
    subscription = life.attempt()
    caller.withdraw()
    life.commands()
    life.subscriptions.overdue(subscription, LATE)
    life.ping_as_commanded()
    assert life.kinds() == [Answered, Unsubscribe, Answered]
    life.subscriptions.succeeded("a", None)
    assert life.commands() == [Unsubscribe("a")]


@pytest.mark.parametrize("outcome", ["success", "refusal", "never"])
def test_what_is_wanted_again_is_asked_for_when_the_first_answer_is_there(outcome: str) -> None:
    life = Life()
    first = life.add_waiter()
    left = life.attempt()
    first.withdraw()
    second = life.add_waiter()
    assert second.waiter.subscription is not left
    assert life.subscriptions.take_next() is None
    if outcome == "success":
        life.subscriptions.succeeded("a", None)
        assert Unsubscribe("a") in life.commands()
    elif outcome == "refusal":
        life.subscriptions.errored(RATE_LIMIT)
    else:
        life.subscriptions.overdue(left, LATE)
        life.ping_as_commanded()
        assert Unsubscribe("a") in life.commands()
        life.attempt()
        life.subscriptions.succeeded("a", "which may be the first answer, from before the unsubscribe")
    assert second.results == []
    assert second.waiter.subscription.request is None
    assert life.attempt() is second.waiter.subscription
    life.subscriptions.succeeded("a", None)
    assert second.results == [None]
    assert first.results == []


# --- leaving ---------------------------------------------------------------------------------------------------


def test_leaving_what_is_not_there_does_nothing() -> None:
    life = Life()
    life.subscriptions.leave("a", LEFT)
    assert life.commands() == []


def test_leaving_what_is_wanted_forgets_it() -> None:
    life = Life()
    caller = life.add_waiter()
    life.subscriptions.leave("a", LEFT)
    assert caller.results == [LEFT]
    assert life.commands() == [Forgotten(caller.waiter.subscription)]
    assert life.subscriptions.take_next() is None


def test_leaving_what_is_signed_for_stops_that() -> None:
    life = Life()
    caller = life.add_waiter("private-a")
    subscription = life.sign("private-a")
    life.subscriptions.leave("private-a", LEFT)
    assert caller.results == [LEFT]
    assert life.commands() == [Withdrawn(subscription), Forgotten(subscription)]


def test_leaving_what_is_asked_for_is_told_to_the_server_when_it_has_answered() -> None:
    life = Life()
    caller = life.add_waiter()
    subscription = life.attempt()
    life.subscriptions.leave("a", LEFT)
    assert caller.results == [LEFT]
    assert life.commands() == [Forgotten(subscription)]
    life.subscriptions.succeeded("a", None)
    assert Unsubscribe("a") in life.commands()
    assert caller.results == [LEFT]


def test_leaving_what_is_subscribed_is_told_to_the_server() -> None:
    life = Life()
    subscription = life.subscribe()
    life.subscriptions.leave("a", LEFT)
    assert life.commands() == [Unsubscribe("a"), Forgotten(subscription)]
    assert not subscription.is_wanted
    life.subscriptions.leave("a", LEFT)
    assert life.commands() == []


@pytest.mark.parametrize("is_temporary", [True, False])
def test_leaving_what_is_refused_forgets_it(is_temporary: bool) -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    life.sign("private-a")
    life.subscriptions.refused(subscription, AuthenticationError("no", is_temporary=is_temporary))
    life.commands()
    life.subscriptions.leave("private-a", LEFT)
    assert life.commands() == [Forgotten(subscription)]
    life.subscriptions.retry(subscription)
    assert life.subscriptions.take_next() is None


def test_leaving_takes_the_channel_from_those_who_are_about_to_have_it() -> None:
    life = Life()
    caller = life.add_waiter()
    life.attempt()
    life.subscriptions.succeeded("a", None)
    life.subscriptions.leave("a", LEFT)
    assert caller.results == [None]
    assert not life.subscriptions.give(caller.waiter)


def test_a_caller_for_a_name_that_was_left_has_nothing_to_do_with_the_waiters_before() -> None:
    life = Life()
    first = life.add_waiter()
    life.attempt()
    life.subscriptions.succeeded("a", None)
    life.subscriptions.leave("a", LEFT)
    second = life.add_waiter()
    life.commands()
    assert not life.subscriptions.give(first.waiter)
    first.withdraw()
    assert life.commands() == []
    assert life.attempt() is second.waiter.subscription


# --- refused for a passing reason ------------------------------------------------------------------------------


def refuse_for_now(life: Life, name: str = "a") -> None:
    life.attempt(name)
    life.subscriptions.errored(RATE_LIMIT)


def test_who_waits_for_what_is_refused_gets_the_error_and_wants_it_no_longer() -> None:
    life = Life()
    caller = life.add_waiter()
    refuse_for_now(life)
    (error,) = caller.results
    assert isinstance(error, SubscriptionError)
    assert error.code == 4301
    assert life.kinds() == [Answered, Forgotten]
    assert not list(life.subscriptions)
    assert not life.subscriptions.give(caller.waiter)


def test_a_channel_of_the_program_that_is_refused_for_now_is_reported_once_and_tried_again() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    for attempt in range(1, 4):
        refuse_for_now(life)
        refused = [each for each in life.commands() if not isinstance(each, Answered)]
        assert [type(each) for each in refused] == ([Refused, Retry] if attempt == 1 else [Retry])
        assert subscription.attempts == attempt
        assert life.subscriptions.take_next() is None
        life.subscriptions.retry(subscription)
    life.attempt()
    life.subscriptions.succeeded("a", None)
    assert subscription.attempts == 0
    life.subscriptions.lost()
    life.connect()
    life.commands()
    refuse_for_now(life)
    assert Refused in life.kinds()


def test_a_report_says_whether_the_refusal_is_lasting() -> None:
    life = Life()
    life.subscriptions.want("a", "item")
    refuse_for_now(life)
    (report,) = [each for each in life.commands() if isinstance(each, Refused)]
    assert (report.subscription.name, report.is_lasting) == ("a", False)
    life.subscriptions.want("private-a", "item")
    life.attempt("private-a")
    life.subscriptions.errored(UNAUTHORIZED)
    (report,) = [each for each in life.commands() if isinstance(each, Refused)]
    assert (report.subscription.name, report.is_lasting) == ("private-a", True)
    assert isinstance(report.error, AuthenticationError)


def test_an_authorizer_that_fails_for_a_moment_is_asked_again() -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    life.sign("private-a")
    error = AuthenticationError("unreachable", is_temporary=True)
    life.subscriptions.refused(subscription, error)
    assert life.commands() == [Refused(subscription, error, is_lasting=False), Retry(subscription, error)]
    life.subscriptions.retry(subscription)
    life.sign("private-a")


def test_a_caller_for_what_is_refused_for_now_need_not_wait_for_the_retry() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    refuse_for_now(life)
    caller = life.add_waiter()
    life.attempt()
    life.subscriptions.retry(subscription)  # which came too late
    assert life.subscriptions.take_next() is None
    life.subscriptions.succeeded("a", None)
    assert caller.results == [None]
    life.subscriptions.retry(subscription)
    assert subscription.is_subscribed


def test_who_is_refused_what_the_program_has_leaves_it_to_be_tried_again() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    refuse_for_now(life)
    caller = life.add_waiter()
    life.commands()
    refuse_for_now(life)
    assert len(caller.results) == 1
    assert life.kinds() == [Answered, Retry]
    assert subscription.attempts == 2


def test_a_retry_comes_to_nothing_when_the_connection_is_another() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    refuse_for_now(life)
    life.subscriptions.lost()
    life.subscriptions.retry(subscription)
    assert subscription.attempts == 0
    life.connect()
    life.attempt()
    assert life.subscriptions.take_next() is None


def test_what_is_refused_between_its_confirmation_and_its_use_is_reported() -> None:
    life = Life()
    caller = life.add_waiter("private-a")
    life.attempt("private-a")
    life.subscriptions.succeeded("private-a", None)
    life.subscriptions.lost()
    life.connect()
    life.commands()
    life.attempt("private-a")
    life.subscriptions.errored(UNAUTHORIZED)
    caller.give()
    assert Refused in life.kinds()


def test_a_subscribe_that_is_no_valid_message_is_unsubscribed_in_any_case() -> None:
    """Reverb says so, too, when another member lacks user_info, and counts us as a member all the same."""
    life = Life()
    life.subscriptions.want("presence-a", "item")
    life.attempt("presence-a")
    life.subscriptions.errored(INVALID)
    assert life.kinds() == [
        Answered,
        Unsubscribe,
        Refused,
        Retry,
    ]
    caller = life.add_waiter("presence-b")
    life.attempt("presence-b")
    caller.withdraw()
    life.commands()
    life.subscriptions.errored(INVALID)
    assert life.kinds() == [Answered, Unsubscribe]


@pytest.mark.parametrize("is_left", [False, True])
def test_what_may_have_been_no_valid_message_is_unsubscribed(is_left: bool) -> None:
    """The ping is refused, too: the next pong is taken for its own, and an error for a client event's."""
    life = Life()
    caller = life.add_waiter("presence-a")
    life.requests.sent_silent()
    subscription = life.attempt("presence-a")
    life.subscriptions.errored(INVALID)
    assert Ping() in life.commands()
    life.requests.sent_ping()
    life.subscriptions.errored(RATE_LIMIT)
    if is_left:
        caller.withdraw()
    life.requests.sent_ping()
    life.commands()
    life.subscriptions.ponged()
    assert life.commands()[1] == Unsubscribe("presence-a")
    assert subscription.request is None


def test_a_refusal_of_what_is_overdue_does_not_last() -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    life.attempt("private-a")
    life.subscriptions.overdue(subscription, LATE)
    life.commands()
    life.subscriptions.errored(UNAUTHORIZED)
    assert life.kinds() == [Answered, Unsubscribe, Retry]


def test_a_guess_does_not_last() -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    life.requests.sent_silent()
    life.attempt("private-a")
    for error in (INVALID, UNAUTHORIZED):
        life.subscriptions.errored(error)
    life.ping()
    (report,) = [each for each in life.commands() if isinstance(each, Refused)]
    assert not report.is_lasting
    life.subscriptions.retry(subscription)
    life.attempt("private-a")
    life.subscriptions.errored(UNAUTHORIZED)
    (report,) = [each for each in life.commands() if isinstance(each, Refused)]
    assert report.is_lasting


def test_a_refusal_that_a_ping_makes_sure_may_last() -> None:
    life = Life()
    life.requests.sent_silent()
    first, second = (life.subscriptions.want(name, "item") for name in ("private-a", "private-b"))
    life.attempt("private-a")
    life.attempt("private-b")
    for error in (INVALID, UNAUTHORIZED):
        assert not life.subscriptions.errored(error)
    life.ping_as_commanded()
    assert (first.state, second.state) == (State.REFUSED, State.REJECTED)


def test_a_refusal_may_name_the_channel() -> None:
    life = Life()
    a, b = life.add_waiter("private-a"), life.add_waiter("private-b")
    life.attempt("private-a")
    life.attempt("private-b")
    assert life.subscriptions.rejected("private-b", ServerError(403, "no"))
    assert a.results == []
    assert isinstance(b.results[0], AuthenticationError)
    assert "private-b" in str(b.results[0])
    assert not life.subscriptions.rejected("private-b", ServerError(403, "no"))


@pytest.mark.parametrize(
    ("error", "state"), [(ServerError(403, "no"), State.REJECTED), (ServerError(500, "oh"), State.REFUSED)]
)
def test_a_refusal_that_names_the_channel_lasts_if_its_reason_does(error: ServerError, state: State) -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    life.attempt("private-a")
    assert life.subscriptions.rejected("private-a", error)
    assert subscription.state is state
    (report,) = [each for each in life.commands() if isinstance(each, Refused)]
    assert report.is_lasting is (state is State.REJECTED)


# --- refused for a lasting reason ------------------------------------------------------------------------------


def test_a_lasting_refusal_is_told_at_each_connection_and_not_asked_again_on_this_one() -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    for _ in range(3):
        life.attempt("private-a")
        life.subscriptions.errored(UNAUTHORIZED)
        assert subscription.state is State.REJECTED
        kinds = life.kinds()
        assert Refused in kinds
        assert Retry not in kinds
        life.subscriptions.retry(subscription)
        assert life.subscriptions.take_next() is None
        life.subscriptions.lost()
        life.connect()


def test_of_what_was_refused_for_good_a_passing_refusal_on_the_next_connection_is_not_told() -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    life.attempt("private-a")
    life.subscriptions.errored(UNAUTHORIZED)
    life.subscriptions.lost()
    life.connect()
    life.commands()
    refuse_for_now(life, "private-a")
    assert life.kinds() == [Answered, Retry, Restored]
    life.subscriptions.retry(subscription)
    life.attempt("private-a")
    life.subscriptions.errored(UNAUTHORIZED)
    assert life.kinds() == [Answered, Refused]


def test_a_lasting_refusal_is_told_although_a_passing_one_was() -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    refuse_for_now(life, "private-a")
    life.subscriptions.retry(subscription)
    life.commands()
    life.attempt("private-a")
    life.subscriptions.errored(UNAUTHORIZED)
    assert Refused in life.kinds()


def test_of_what_was_refused_for_good_no_other_refusal_on_this_connection_is_told() -> None:
    life = Life()
    life.subscriptions.want("private-a", "item")
    life.attempt("private-a")
    life.subscriptions.errored(UNAUTHORIZED)
    caller = life.add_waiter("private-a")
    life.commands()
    refuse_for_now(life, "private-a")
    assert len(caller.results) == 1
    assert life.kinds() == [Answered, Retry]


def test_a_caller_of_what_was_refused_for_good_has_it_asked_for_again() -> None:
    life = Life()
    life.subscriptions.want("private-a", "item")
    life.attempt("private-a")
    life.subscriptions.errored(UNAUTHORIZED)
    caller = life.add_waiter("private-a")
    life.attempt("private-a")
    life.subscriptions.succeeded("private-a", None)
    assert caller.results == [None]


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (AuthenticationError("401"), True),
        (AuthenticationError("503", is_temporary=True), False),
        (ConfigurationError("no secret"), True),
        (SubscriptionError("4301", code=4301), False),
        (TimeoutError("no answer"), False),
        (ConnectionError("unreachable"), False),
    ],
)
def test_which_refusals_last(error: ReverbError, lasts: bool) -> None:
    assert is_lasting(error) is lasts


# --- answers that do not come ----------------------------------------------------------------------------------


def test_who_waits_for_an_answer_that_is_overdue_gets_the_error() -> None:
    life = Life()
    caller = life.add_waiter()
    subscription = life.attempt()
    life.subscriptions.overdue(subscription, LATE)
    assert caller.results == [LATE]
    assert life.commands() == [Ping(), Forgotten(subscription)]
    life.subscriptions.succeeded("a", None)
    assert life.commands()[1:] == [Unsubscribe("a")]


@pytest.mark.parametrize("is_left", [False, True])
def test_what_waits_for_an_answer_that_is_overdue_is_stuck(is_left: bool) -> None:
    life = Life()
    life.add_waiter()
    subscription = life.attempt()
    if is_left:
        life.subscriptions.leave("a", LEFT)
    waiting = life.add_waiter().waiter.subscription
    assert (waiting is not subscription) is is_left
    assert not life.subscriptions.is_stuck(waiting)
    life.subscriptions.overdue(subscription, LATE)
    assert life.subscriptions.is_stuck(waiting)
    life.ping_as_commanded()
    assert not life.subscriptions.is_stuck(waiting)


def test_an_answer_that_is_overdue_is_reported_and_may_come_yet() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    life.attempt()
    life.subscriptions.overdue(subscription, LATE)
    assert life.commands() == [Ping(), Refused(subscription, LATE, is_lasting=False)]
    life.subscriptions.succeeded("a", None)
    assert subscription.is_subscribed
    life.ping()
    assert life.kinds() == [Answered, Confirmed, Answered]


def test_what_is_overdue_between_its_confirmation_and_its_use_is_reported() -> None:
    life = Life()
    caller = life.add_waiter()
    life.attempt()
    life.subscriptions.succeeded("a", None)
    life.subscriptions.lost()
    life.connect()
    subscription = life.attempt()
    life.commands()
    life.subscriptions.overdue(subscription, LATE)
    assert Refused(subscription, LATE, is_lasting=False) in life.commands()
    caller.give()


def test_what_is_overdue_is_not_reported_where_only_callers_wait_for_it() -> None:
    life = Life()
    callers = [life.add_waiter()]
    subscription = life.attempt()
    callers.append(life.add_waiter())
    life.subscriptions.overdue(subscription, LATE)
    assert [each.results for each in callers] == [[LATE], []]
    assert life.kinds() == [Ping]


def test_what_is_not_answered_before_a_ping_is_asked_for_again() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    life.attempt()
    request = subscription.request
    assert request is not None
    life.subscriptions.overdue(subscription, LATE)
    life.ping_as_commanded()
    unanswered, retry, _ = life.commands()
    assert unanswered == Answered(request, NO_ANSWER)
    assert isinstance(retry, Retry)
    assert str(retry.error) == "a"
    life.subscriptions.retry(subscription)
    life.attempt()


def test_a_ping_says_nothing_of_what_is_not_overdue() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    life.attempt()
    life.ping()
    assert subscription.state is State.REQUESTED
    life.commands()
    life.requests.sent_ping()
    life.subscriptions.want("b", "item")
    b = life.attempt("b")
    life.subscriptions.overdue(b, LATE)
    life.subscriptions.ponged()
    assert b.state is State.REQUESTED


def test_one_ping_is_enough_for_all_that_is_overdue() -> None:
    life = Life()
    wanted = [life.subscriptions.want(name, "item") for name in "abc"]
    for name in "abc":
        life.attempt(name)
    life.subscriptions.overdue(wanted[0], LATE)
    assert life.commands()[0] == Ping()
    life.requests.sent_ping()
    for each in wanted[1:]:
        life.subscriptions.overdue(each, LATE)
    assert Ping() not in life.commands()
    life.subscriptions.ponged()
    assert [each.state for each in wanted] == [State.REFUSED] * 3


@pytest.mark.parametrize("since", ["another subscribe", "a pong"])
def test_a_ping_says_nothing_of_what_is_overdue_later(since: str) -> None:
    life = Life()
    a, b = (life.subscriptions.want(name, "item") for name in "ab")
    life.attempt("a")
    if since == "a pong":
        life.attempt("b")
    life.subscriptions.overdue(a, LATE)
    life.requests.sent_ping()
    if since == "a pong":
        life.subscriptions.ponged()
    else:
        life.attempt("b")
    life.commands()
    life.subscriptions.overdue(b, LATE)
    assert Ping() in life.commands()


def test_a_ping_that_may_be_refused_is_not_relied_on() -> None:
    life = Life()
    a, b = (life.subscriptions.want(name, "item") for name in "ab")
    life.requests.sent_silent()
    life.attempt("a")
    life.attempt("b")
    life.subscriptions.overdue(a, LATE)
    life.requests.sent_ping()
    life.subscriptions.errored(RATE_LIMIT)
    life.commands()
    life.subscriptions.overdue(b, LATE)
    assert Ping() in life.commands()


def test_a_caller_for_what_is_overdue_has_it_asked_for_again_at_once() -> None:
    life = Life()
    subscription = life.subscriptions.want("a", "item")
    life.attempt()
    life.subscriptions.overdue(subscription, LATE)
    caller = life.add_waiter()
    assert life.subscriptions.take_next() is None
    life.ping_as_commanded()
    assert Retry not in life.kinds()
    life.attempt()
    life.subscriptions.succeeded("a", None)
    assert caller.results == [None]


def unanswered(life: Life, name: str = "a") -> Subscription[str]:
    subscription = life.subscriptions.want(name, "item")
    life.attempt(name)
    life.subscriptions.overdue(subscription, LATE)
    life.ping_as_commanded()
    life.commands()
    return subscription


def test_a_success_that_comes_after_all_is_taken() -> None:
    life = Life()
    subscription = unanswered(life)
    life.subscriptions.succeeded("a", "late")
    assert life.commands() == [Confirmed(subscription, "late")]
    life.subscriptions.retry(subscription)
    assert life.subscriptions.take_next() is None


def test_a_success_that_comes_after_all_is_not_relied_on_when_it_may_be_older_than_an_unsubscribe() -> None:
    life = Life()
    unanswered(life)
    life.subscriptions.leave("a", LEFT)
    subscription = life.subscriptions.want("a", "item")
    refuse_for_now(life)
    life.subscriptions.succeeded("a", "late")
    assert subscription.state is State.REFUSED


def test_of_successes_as_many_as_may_be_older_than_an_unsubscribe_are_not_relied_on() -> None:
    life = Life()
    subscription = unanswered(life)
    life.subscriptions.retry(subscription)
    life.attempt()
    life.subscriptions.overdue(subscription, LATE)
    life.ping_as_commanded()
    life.subscriptions.leave("a", LEFT)
    caller = life.add_waiter()
    for _ in range(2):
        life.attempt()
        life.commands()
        life.subscriptions.succeeded("a", "late, for all we know")
        assert life.kinds() == [Answered]
    subscription = life.attempt()
    life.subscriptions.succeeded("a", None)
    assert caller.results == [None]
    assert subscription.is_subscribed


def test_an_answer_that_came_late_is_not_expected_again() -> None:
    life = Life()
    unanswered(life)
    life.subscriptions.leave("a", LEFT)
    for _ in range(2):  # the second is nobody's
        life.subscriptions.succeeded("a", "late")
    caller = life.add_waiter()
    life.attempt()
    life.subscriptions.succeeded("a", None)
    assert caller.results == [None]


def test_of_two_answers_that_may_come_late_one_has_come() -> None:
    life = Life()
    subscription = unanswered(life)
    life.subscriptions.retry(subscription)
    unanswered(life)
    life.subscriptions.succeeded("a", "late")
    life.subscriptions.leave("a", LEFT)
    caller = life.add_waiter()
    for results in ([], [None]):
        life.attempt()
        life.subscriptions.succeeded("a", "which may be late the first time")
        assert caller.results == results


@pytest.mark.parametrize("state", [State.WANTED, State.AUTHORIZING, State.SUBSCRIBED])
def test_a_success_that_comes_late_is_taken_only_for_what_is_refused(state: State) -> None:
    life = Life()
    subscription = unanswered(life)
    life.subscriptions.retry(subscription)
    if state is State.AUTHORIZING:
        life.sign()
    elif state is State.SUBSCRIBED:
        life.attempt()
        life.subscriptions.succeeded("a", None)
    life.commands()
    life.subscriptions.succeeded("a", "late")
    assert subscription.state is state
    assert life.commands() == []


def test_an_answer_that_may_come_late_is_older_than_each_unsubscribe_since() -> None:
    life = Life()
    unanswered(life)
    life.subscriptions.leave("a", LEFT)
    subscription = life.subscriptions.want("a", "item")
    life.attempt()
    life.subscriptions.errored(INVALID)
    assert Unsubscribe("a") in life.commands()
    life.subscriptions.retry(subscription)
    for state in (State.WANTED, State.SUBSCRIBED):
        life.attempt()
        life.subscriptions.succeeded("a", "which may be late the first time")
        assert subscription.state is state


def test_what_is_left_before_a_success_that_may_be_older_is_unsubscribed() -> None:
    life = Life()
    unanswered(life)
    life.subscriptions.leave("a", LEFT)
    life.add_waiter()
    life.attempt()
    life.subscriptions.leave("a", LEFT)
    life.commands()
    life.subscriptions.succeeded("a", None)
    assert life.kinds() == [Answered, Unsubscribe]


def test_a_refusal_by_name_that_may_be_an_older_requests_does_not_last() -> None:
    life = Life()
    subscription = unanswered(life, "private-a")
    forbidden, overloaded = ServerError(403, "no"), ServerError(500, "oh")
    for error, state in (
        (overloaded, State.REFUSED),
        (forbidden, State.REFUSED),
        (overloaded, State.REFUSED),
        (forbidden, State.REJECTED),
    ):
        life.subscriptions.retry(subscription)
        life.attempt("private-a")
        life.subscriptions.rejected("private-a", error)
        assert subscription.state is state
        assert (Unsubscribe("private-a") in life.commands()) is (state is State.REJECTED)


def test_what_was_not_answered_may_be_subscribed_and_is_unsubscribed_when_nobody_wants_it() -> None:
    life = Life()
    subscription = unanswered(life)
    life.subscriptions.leave("a", LEFT)
    assert life.commands() == [Unsubscribe("a"), Forgotten(subscription)]


def test_what_was_not_answered_may_be_subscribed_and_is_unsubscribed_when_it_is_refused_for_good() -> None:
    life = Life()
    subscription = unanswered(life, "private-a")
    life.subscriptions.retry(subscription)
    life.sign("private-a")
    life.subscriptions.refused(subscription, AuthenticationError("no"))
    assert Unsubscribe("private-a") in life.commands()
    life.subscriptions.succeeded("private-a", "late")
    assert life.commands() == [Unsubscribe("private-a")]


def test_what_was_not_answered_may_be_subscribed_and_is_unsubscribed_when_it_is_left_and_refused() -> None:
    life = Life()
    subscription = unanswered(life)
    life.subscriptions.retry(subscription)
    life.attempt()
    life.subscriptions.leave("a", LEFT)
    life.commands()
    life.subscriptions.errored(RATE_LIMIT)
    assert life.kinds() == [Answered, Unsubscribe]


def test_a_success_that_nobody_asked_for_is_ignored() -> None:
    life = Life()
    life.subscriptions.succeeded("a", None)
    subscription = life.subscribe("b")
    life.subscriptions.succeeded("b", None)
    assert life.commands() == []
    assert subscription.is_subscribed


@pytest.mark.parametrize("state", ["wanted", "authorizing", "subscribed"])
def test_only_what_is_asked_for_is_overdue(state: str) -> None:
    life = Life()
    caller = life.add_waiter()
    subscription = caller.waiter.subscription
    if state == "authorizing":
        life.sign()
    elif state == "subscribed":
        life.attempt()
        life.subscriptions.succeeded("a", None)
    life.commands()
    life.subscriptions.overdue(subscription, LATE)
    assert life.commands() == []
    assert caller.results in ([], [None])


# --- unsubscribes that a rate limit refuses --------------------------------------------------------------------


def leave(life: Life, name: str = "a") -> None:
    life.subscribe(name)
    life.subscriptions.leave(name, LEFT)
    assert Unsubscribe(name) in life.commands()
    life.requests.sent_silent()


def test_what_is_left_under_a_rate_limit_is_unsubscribed_again_after_a_pong() -> None:
    life = Life()
    leave(life)
    life.subscriptions.errored(RATE_LIMIT)
    assert life.commands() == []
    life.ping()
    assert life.kinds() == [Answered, Unsubscribe]
    life.requests.sent_silent()
    life.ping()
    life.ping()
    assert life.kinds() == [Answered, Answered]


def test_a_ping_that_has_no_pong_does_not_keep_what_is_left_from_being_unsubscribed_again() -> None:
    life = Life()
    life.requests.sent_ping()  # refused, which was taken for the refusal of something else
    leave(life)
    life.subscriptions.errored(RATE_LIMIT)
    life.requests.sent_ping()
    life.commands()
    for _ in range(2):
        life.ping()
    assert Unsubscribe("a") in life.commands()
    assert life.requests.open_pings


def test_the_error_may_come_behind_the_pong_to_a_ping_that_was_sent_before() -> None:
    life = Life()
    life.requests.sent_ping()
    leave(life)
    life.subscriptions.ponged()
    life.subscriptions.errored(RATE_LIMIT)
    life.commands()
    life.ping()
    assert life.kinds() == [Answered, Unsubscribe]


def test_the_error_may_come_behind_the_pongs_to_several_pings_that_were_sent_before() -> None:
    life = Life()
    for _ in range(3):
        life.requests.sent_ping()
    leave(life)
    for _ in range(3):
        life.subscriptions.ponged()
    life.subscriptions.errored(RATE_LIMIT)
    life.commands()
    life.ping()
    assert life.kinds() == [Answered, Unsubscribe]


def test_the_error_may_come_behind_the_pong_to_what_was_sent_last_before_the_unsubscribe() -> None:
    life = Life()
    life.subscribe()
    for _ in range(2):
        life.requests.sent_ping()
    life.subscriptions.leave("a", LEFT)
    life.requests.sent_silent()
    for _ in range(2):
        life.subscriptions.ponged()
    life.subscriptions.errored(RATE_LIMIT)
    life.commands()
    life.ping()
    assert life.kinds() == [Answered, Unsubscribe]


def test_only_a_rate_limit_refuses_unsubscribes() -> None:
    life = Life()
    leave(life)
    life.subscriptions.errored(INVALID)
    life.ping()
    assert Unsubscribe("a") not in life.commands()


def test_what_a_server_has_shown_to_have_taken_is_not_unsubscribed_again() -> None:
    life = Life()
    leave(life)
    life.ping()
    life.ping()
    life.subscriptions.errored(RATE_LIMIT)
    life.ping()
    assert Unsubscribe("a") not in life.commands()


def test_what_is_wanted_is_unsubscribed_again_as_long_as_it_is_not_asked_for() -> None:
    life = Life()
    life.subscriptions.want("presence-a", "item")
    life.attempt("presence-a")
    life.subscriptions.errored(INVALID)
    assert Unsubscribe("presence-a") in life.commands()
    life.requests.sent_silent()
    life.subscriptions.errored(RATE_LIMIT)
    life.ping()
    assert Unsubscribe("presence-a") in life.commands()


def test_what_may_not_be_unsubscribed_is_unsubscribed_again_when_it_is_asked_for_in_vain() -> None:
    life = Life()
    subscription = life.subscriptions.want("presence-a", "item")
    life.attempt("presence-a")
    life.subscriptions.errored(INVALID)
    life.requests.sent_silent()
    life.subscriptions.errored(RATE_LIMIT)
    life.subscriptions.retry(subscription)
    life.attempt("presence-a")
    life.ping()
    life.commands()
    life.subscriptions.errored(RATE_LIMIT)
    life.ping()
    assert Unsubscribe("presence-a") in life.commands()


@pytest.mark.parametrize("is_answered", [False, True])
def test_what_is_wanted_again_is_not_unsubscribed_again(is_answered: bool) -> None:
    life = Life()
    leave(life)
    life.subscriptions.errored(RATE_LIMIT)
    life.add_waiter()
    life.attempt()
    if is_answered:
        life.subscriptions.succeeded("a", None)
    life.ping()
    assert Unsubscribe("a") not in life.commands()


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_left_on_a_connection_that_is_lost_is_not_unsubscribed_again(when: str) -> None:
    life = Life()
    leave(life)
    if when == "before":
        life.subscriptions.errored(RATE_LIMIT)
    life.subscriptions.lost()
    life.connect()
    if when == "after":
        life.subscriptions.errored(RATE_LIMIT)
    life.ping()
    assert Unsubscribe("a") not in life.commands()


# --- the connection --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [each for each in State if each not in (State.LEAVING, State.GONE)])
def test_a_lost_connection_takes_everything_back_to_wanted(state: State) -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    if state is not State.WANTED:
        life.sign("private-a")
    if state in (State.REQUESTED, State.SUBSCRIBED):
        life.send(subscription)
    if state is State.SUBSCRIBED:
        life.subscriptions.succeeded("private-a", None)
    elif state in (State.REFUSED, State.REJECTED):
        error = AuthenticationError("no", is_temporary=state is State.REFUSED)
        life.subscriptions.refused(subscription, error)
    assert subscription.state is state
    life.commands()
    life.subscriptions.lost()
    assert (subscription.state, subscription.request, subscription.attempts) == (State.WANTED, None, 0)
    assert life.commands() == []
    assert life.subscriptions.take_next() is None
    life.connect()
    assert life.attempt("private-a") is subscription


def test_a_lost_connection_keeps_the_order() -> None:
    life = Life()
    for name in "ab":
        life.subscribe(name)
    life.add_waiter("c")
    life.subscriptions.lost()
    life.connect()
    for name in "abc":
        life.attempt(name)


def test_who_waits_goes_on_waiting_when_the_connection_is_lost() -> None:
    life = Life()
    caller = life.add_waiter()
    life.attempt()
    life.subscriptions.lost()
    life.connect()
    life.attempt()
    life.subscriptions.succeeded("a", None)
    assert caller.results == [None]


def test_who_could_not_sign_for_a_connection_that_is_lost_is_not_listened_to() -> None:
    life = Life()
    subscription = life.subscriptions.want("private-a", "item")
    life.sign("private-a")
    life.subscriptions.lost()
    life.subscriptions.refused(subscription, AuthenticationError("no"))
    assert life.commands() == []
    life.connect()
    life.attempt("private-a")


def test_what_was_left_on_a_connection_that_is_lost_needs_no_answer() -> None:
    life = Life()
    caller = life.add_waiter()
    left = life.attempt()
    caller.withdraw()
    life.subscriptions.lost()
    assert left.state is State.GONE
    life.commands()
    life.subscriptions.overdue(left, LATE)
    assert life.commands() == []
    life.add_waiter()
    life.connect()
    life.attempt()


def test_what_was_not_answered_on_a_connection_that_is_lost_is_forgotten() -> None:
    life = Life()
    unanswered(life)
    life.subscriptions.lost()
    life.subscriptions.leave("a", LEFT)
    assert Unsubscribe("a") not in life.commands()


def test_without_a_connection_nothing_is_answered() -> None:
    life = Life(is_connected=False)
    life.add_waiter()
    life.subscriptions.succeeded("a", None)
    life.subscriptions.ponged()
    assert not life.subscriptions.errored(INVALID)
    assert not life.subscriptions.rejected("a", INVALID)
    assert life.commands() == []


def test_giving_up_tells_all_who_wait_and_keeps_what_was_given() -> None:
    life = Life()
    given = life.subscribe("a")
    about_to_be_given = life.add_waiter("a")
    life.subscriptions.lost()
    waiting = [life.add_waiter("a"), life.add_waiter("b")]
    life.commands()
    error = ConnectionError("no connection")
    life.subscriptions.give_up(error)
    assert [each.results for each in waiting] == [[error], [error]]
    assert about_to_be_given.results == [None]
    assert list(life.subscriptions) == [given]
    assert life.commands() == [Forgotten(waiting[1].waiter.subscription)]
    life.connect()
    assert life.attempt("a") is given


# --- restored ---------------------------------------------------------------------------------------------------


def test_a_connection_is_restored_when_all_is_subscribed_refused_overdue_or_left() -> None:
    life = Life(is_connected=False)
    names = ["a", "b", "private-c", "d", "e"]
    for name in names:
        life.subscriptions.want(name, "item")
    life.connect()
    asked = {name: life.attempt(name) for name in names}
    life.subscriptions.want("f", "not wanted when the connection was made")

    def is_restored() -> bool:
        return Restored() in life.commands()

    life.subscriptions.succeeded("a", None)
    assert not is_restored()
    life.subscriptions.errored(RATE_LIMIT)
    assert not is_restored()
    life.subscriptions.errored(UNAUTHORIZED)
    assert not is_restored()
    life.subscriptions.leave("d", LEFT)
    assert not is_restored()
    life.subscriptions.overdue(asked["e"], LATE)
    assert is_restored()
    life.subscriptions.succeeded("e", None)
    life.attempt("f")
    life.subscriptions.succeeded("f", None)
    assert not is_restored()


@pytest.mark.parametrize("how", ["subscribed", "refused for now", "refused for good", "overdue", "left"])
def test_a_connection_is_restored_by_the_last_one(how: str) -> None:
    life = Life(is_connected=False)
    life.subscriptions.want("private-a", "item")
    life.connect()
    subscription = life.attempt("private-a")
    assert Restored() not in life.commands()
    if how == "subscribed":
        life.subscriptions.succeeded("private-a", None)
    elif how == "refused for now":
        life.subscriptions.errored(RATE_LIMIT)
    elif how == "refused for good":
        life.subscriptions.errored(UNAUTHORIZED)
    elif how == "overdue":
        life.subscriptions.overdue(subscription, LATE)
    else:
        life.subscriptions.leave("private-a", LEFT)
    assert life.commands()[-1] == Restored()


def test_settling_does_not_wait_for_what_is_held_up() -> None:
    life = Life(is_connected=False)
    for name in "abc":
        life.subscriptions.want(name, "item")
    life.connect()
    life.attempt("a")
    life.subscriptions.held_up()
    assert life.commands() == []
    life.subscriptions.succeeded("a", None)
    assert Restored() in life.commands()
    life.subscriptions.held_up()
    life.attempt("b")
    life.subscriptions.succeeded("b", None)
    assert Restored() not in life.commands()


def test_a_connection_on_which_all_is_held_up_is_restored() -> None:
    life = Life(is_connected=False)
    life.subscriptions.want("a", "item")
    life.connect()
    life.subscriptions.held_up()
    life.subscriptions.held_up()
    assert life.commands() == [Restored()]


def test_a_lost_connection_is_not_restored() -> None:
    life = Life(is_connected=False)
    life.subscriptions.want("a", "item")
    life.connect()
    life.subscriptions.lost()
    life.subscriptions.leave("a", LEFT)
    assert Restored() not in life.commands()


# --- other requests -------------------------------------------------------------------------------------------


def test_who_asked_something_else_is_told_the_answer() -> None:
    life = Life()
    ping, sign_in = life.requests.sent_ping(), life.requests.sent_subscribe(SIGNIN)
    life.subscriptions.ponged()
    assert life.commands() == [Answered(ping, None)]
    assert life.subscriptions.errored(UNAUTHORIZED)
    assert life.commands() == [Answered(sign_in, UNAUTHORIZED)]
    life.subscriptions.ponged()
    assert life.commands() == []


def test_an_error_that_may_be_a_client_events_is_attributed_by_a_ping() -> None:
    life = Life()
    life.subscriptions.want("presence-a", "item")
    life.requests.sent_silent()
    life.attempt("presence-a")
    assert not life.subscriptions.errored(INVALID)
    life.ping_as_commanded()
    assert life.kinds() == [Answered, Unsubscribe, Refused, Retry, Answered]


def test_an_error_that_answers_no_request_commands_nothing() -> None:
    life = Life()
    life.requests.sent_silent()
    assert not life.subscriptions.errored(NOT_A_MEMBER)
    assert life.commands() == []


def test_a_sign_in_that_is_overdue_will_have_no_answer_after_a_ping() -> None:
    life = Life()
    request = life.requests.sent_subscribe(SIGNIN)
    request.is_overdue = True
    life.ping()
    assert life.commands()[0] == Answered(request, NO_ANSWER)
    assert not life.requests.is_open(SIGNIN)


# --- many channels ---------------------------------------------------------------------------------------------

MANY = 10_000
QUICK = 2.0
"""Seconds of the processor: ten times what it takes, and a quarter of it where each one looks at all others."""


def ask_for_many() -> Life:
    life = Life(is_connected=False)
    for number in range(MANY):
        life.subscriptions.want(f"channel-{number}", "item")
    life.connect()
    for _ in range(MANY):
        taken = life.subscriptions.take_next()
        assert taken is not None
        life.send(taken)
    return life


def test_being_held_up_costs_little_while_many_channels_are_asked_for() -> None:
    life = ask_for_many()
    for number in range(MANY):
        life.subscriptions.want(f"more-{number}", "item")
    started = process_time()
    for _ in range(MANY):
        life.subscriptions.errored(RATE_LIMIT)
        life.subscriptions.held_up()
    assert process_time() - started < QUICK
    assert life.commands().count(Restored()) == 1


def test_a_rate_limit_costs_little_while_many_channels_are_left() -> None:
    life = ask_for_many()
    for number in range(MANY):
        life.subscriptions.succeeded(f"channel-{number}", None)
        life.subscriptions.leave(f"channel-{number}", LEFT)
    life.commands()
    started = process_time()
    for _ in range(MANY):
        life.subscriptions.errored(RATE_LIMIT)
    life.ping()
    assert process_time() - started < QUICK
    assert len(life.commands()) == MANY + 1


@pytest.mark.parametrize("error", [NOT_A_MEMBER, NO_CLIENT_EVENTS])
def test_errors_of_client_events_cost_little_while_many_channels_are_asked_for(error: ServerError) -> None:
    life = ask_for_many()
    started = process_time()
    for _ in range(MANY):
        assert not life.subscriptions.errored(error)
    assert process_time() - started < QUICK


def test_each_connection_may_be_held_up() -> None:
    life = Life(is_connected=False)
    life.subscriptions.want("a", "item")
    for _ in range(2):
        life.connect()
        life.subscriptions.held_up()
        assert life.commands() == [Restored()]
        life.subscriptions.lost()


def test_a_sign_in_may_be_refused_in_other_words_than_a_channel() -> None:
    requests = PendingRequests()
    sign_in = requests.sent_subscribe(SIGNIN)
    refusal = requests.refused(ServerError(4009, "Connection not authorized."))
    assert refusal is not None
    assert refusal.request is sign_in


# --- which answer belongs to which message ---------------------------------------------------------------------


def test_a_success_answers_the_request_about_its_channel() -> None:
    requests = PendingRequests()
    a, b = requests.sent_subscribe("a"), requests.sent_subscribe("b")
    assert requests.is_open("a")
    assert requests.answered("a") == (a, [], [])
    assert not requests.is_open("a")
    assert requests.answered("a") == (None, [], [])
    assert requests.answered("b") == (b, [], [])
    assert requests.answered(None) == (None, [], [])


def test_a_refused_signature_is_the_oldest_open_one() -> None:
    requests = PendingRequests()
    requests.sent_subscribe("public")
    refused, other = requests.sent_subscribe("private-1"), requests.sent_subscribe("private-2")
    requests.answered("public")
    refusal = requests.refused(UNAUTHORIZED)
    assert refusal is not None
    assert refusal.request is refused
    assert requests.answered("private-2") == (other, [], [])


def test_an_error_that_only_a_client_event_can_cause_refuses_nothing() -> None:
    requests = PendingRequests()
    request = requests.sent_subscribe("private-1")
    for error in (NOT_A_MEMBER, NO_CLIENT_EVENTS):
        assert requests.refused(error) is None
    assert not requests.needs_ping
    assert requests.answered("private-1") == (request, [], [])


def test_an_error_without_an_open_request_refuses_nothing() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    assert requests.refused(INVALID) is None
    assert not requests.needs_ping


def test_an_ambiguous_error_waits_for_the_fence_and_hits_the_subscribe() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    request = requests.sent_subscribe("presence-1")
    assert requests.refused(INVALID) is None
    assert requests.needs_ping
    ping = requests.sent_ping()
    assert not requests.needs_ping
    assert requests.answered(None) == (ping, [(request, INVALID, True)], [])


def test_an_ambiguous_error_that_was_a_client_events_leaves_the_subscribe_alone() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    request = requests.sent_subscribe("presence-1")
    assert requests.refused(INVALID) is None
    ping = requests.sent_ping()
    assert requests.answered("presence-1") == (request, [], [])
    assert requests.answered(None) == (ping, [], [])


def test_a_channel_confirmed_out_of_order_refuses_nobody() -> None:
    """soketi answers subscribes as their authorisation completes."""
    requests = PendingRequests()
    slow, quick = requests.sent_subscribe("presence-slow"), requests.sent_subscribe("quick")
    assert requests.answered("quick") == (quick, [], [])
    assert requests.answered("presence-slow") == (slow, [], [])


def test_a_rate_limited_ping_is_no_refused_subscribe() -> None:
    requests = PendingRequests()
    ping, request = requests.sent_ping(), requests.sent_subscribe("a")
    refusal = requests.refused(RATE_LIMIT)
    assert refusal is not None
    assert refusal.request is ping
    assert requests.answered("a") == (request, [], [])


def test_errors_behind_one_that_waits_wait_as_well() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    first, second = requests.sent_subscribe("private-1"), requests.sent_subscribe("private-2")
    assert requests.refused(INVALID) is None
    assert requests.refused(UNAUTHORIZED) is None
    ping = requests.sent_ping()
    assert requests.answered(None) == (ping, [(first, INVALID, True), (second, UNAUTHORIZED, True)], [])


def test_an_error_that_is_nobodys_does_not_wait() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    request = requests.sent_subscribe("public")
    for error in (RATE_LIMIT, UNAUTHORIZED):
        assert requests.refused(error) is None
    ping = requests.sent_ping()
    assert requests.answered(None) == (ping, [(request, RATE_LIMIT, True)], [])


def test_of_more_errors_than_requests_the_first_are_for_what_is_silent() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    request = requests.sent_subscribe("a")
    assert requests.refused(INVALID) is None
    assert requests.refused(RATE_LIMIT) is None
    ping = requests.sent_ping()
    assert requests.answered(None) == (ping, [(request, RATE_LIMIT, False)], [])


@pytest.mark.parametrize(
    ("errors", "is_sure"),
    [
        ([RATE_LIMIT], True),
        ([RATE_LIMIT, RATE_LIMIT], True),
        ([INVALID, RATE_LIMIT], False),
        ([RATE_LIMIT, INVALID], False),
        ([RATE_LIMIT, RATE_LIMIT, INVALID], False),
    ],
)
def test_of_more_errors_than_requests_it_is_sure_what_they_agree_on(
    errors: list[ServerError], is_sure: bool
) -> None:
    requests = PendingRequests()
    requests.sent_silent()
    request = requests.sent_subscribe("a")
    for error in errors:
        assert requests.refused(error) is None
    requests.sent_ping()
    _, refusals, _ = requests.answered(None)
    assert refusals == [(request, errors[-1], is_sure)]


def test_nothing_that_errors_agree_on_is_sure_of_a_request_that_is_overdue() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    request = requests.sent_subscribe("a")
    request.is_overdue = True
    for _ in range(2):
        assert requests.refused(RATE_LIMIT) is None
    requests.sent_ping()
    _, refusals, _ = requests.answered(None)
    assert refusals == [(request, RATE_LIMIT, False)]


def test_a_refused_signature_is_never_that_of_something_silent() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    request = requests.sent_subscribe("private-a")
    assert requests.refused(UNAUTHORIZED) == (request, UNAUTHORIZED, True)
    requests.sent_silent()
    request = requests.sent_subscribe("private-a")
    for error in (RATE_LIMIT, UNAUTHORIZED, RATE_LIMIT):
        assert requests.refused(error) is None
    requests.sent_ping()
    _, refusals, _ = requests.answered(None)
    assert refusals == [(request, UNAUTHORIZED, False)]


def test_of_fewer_errors_than_requests_it_is_not_sure_whose_they_are() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    first, _ = requests.sent_subscribe("a"), requests.sent_subscribe("b")
    requests.refused(RATE_LIMIT)
    requests.sent_ping()
    _, refusals, _ = requests.answered(None)
    assert refusals == [(first, RATE_LIMIT, False)]


@pytest.mark.parametrize("is_attributed_by_ping", [False, True])
def test_the_error_of_what_is_overdue_may_be_that_of_a_later_request(is_attributed_by_ping: bool) -> None:
    requests = PendingRequests()
    if is_attributed_by_ping:
        requests.sent_silent()
    overdue = requests.sent_subscribe("a")
    overdue.is_overdue = True
    later = requests.sent_subscribe("private-b")
    refusal = requests.refused(RATE_LIMIT)
    if is_attributed_by_ping:
        requests.refused(UNAUTHORIZED)
        requests.sent_ping()
        _, refusals, _ = requests.answered(None)
        assert refusals == [(overdue, RATE_LIMIT, False), (later, UNAUTHORIZED, False)]
    else:
        assert refusal == (overdue, RATE_LIMIT, False)
        assert requests.refused(UNAUTHORIZED) == (later, UNAUTHORIZED, False)


def test_after_a_guess_no_refusal_is_sure_until_nothing_is_open() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    for name in ("private-a", "private-b", "private-c"):
        requests.sent_subscribe(name)
    requests.sent_silent()
    later = requests.sent_subscribe("private-d")
    for error in (INVALID, RATE_LIMIT):
        assert requests.refused(error) is None
    requests.answered("private-b")
    refusal = requests.refused(UNAUTHORIZED)
    assert refusal is not None
    assert not refusal.is_sure
    assert requests.refused(RATE_LIMIT) is None
    requests.sent_ping()
    assert requests.answered(None)[1] == [(later, RATE_LIMIT, False)]
    requests.sent_subscribe("private-a")
    refusal = requests.refused(UNAUTHORIZED)
    assert refusal is not None
    assert refusal.is_sure


def test_behind_a_ping_that_may_never_be_answered_an_error_may_be_a_client_events() -> None:
    requests = PendingRequests()
    ping = send_ping_that_stays_open(requests)
    requests.sent_silent()
    request = requests.sent_subscribe("a")
    assert requests.refused(INVALID) is None
    assert requests.needs_ping
    assert requests.answered("a") == (request, [], [ping])


def send_ping_that_stays_open(requests: PendingRequests) -> Request:
    """Take the refusal of a ping for that of a client event, so that the pong to the next is taken for its own."""
    requests.sent_silent()
    refused, ping = requests.sent_ping(), requests.sent_ping()
    assert requests.refused(RATE_LIMIT) is None
    assert requests.answered(None) == (refused, [], [])
    assert requests.open_pings
    return ping


def test_behind_a_ping_that_will_have_no_pong_no_refusal_is_sure() -> None:
    requests = PendingRequests()
    ping = send_ping_that_stays_open(requests)
    first, _ = requests.sent_subscribe("private-a"), requests.sent_subscribe("private-b")
    assert requests.refused(RATE_LIMIT) == (ping, RATE_LIMIT, False)  # which was that of the first
    assert requests.refused(UNAUTHORIZED) == (first, UNAUTHORIZED, False)  # and this that of the second


def test_a_pong_is_for_the_oldest_ping_that_is_not_overdue() -> None:
    requests = PendingRequests()
    late = send_ping_that_stays_open(requests)
    late.is_overdue = True
    ping, later = requests.sent_ping(), requests.sent_ping()
    assert requests.answered(None) == (ping, [], [late])
    later.is_overdue = True
    assert requests.answered(None) == (later, [], [])


@pytest.mark.parametrize("is_given_up_before", [False, True])
def test_a_refused_ping_that_was_taken_for_a_client_events_error_does_not_stay_open(
    is_given_up_before: bool,
) -> None:
    requests = PendingRequests()
    if is_given_up_before:
        requests.sent_subscribe("a").is_overdue = True
        requests.sent_ping()
        requests.answered(None)
    ping = send_ping_that_stays_open(requests)
    request = requests.sent_subscribe("a")
    assert requests.answered("a") == (request, [], [ping])
    assert requests.refused(RATE_LIMIT) is None, "nothing is open that it could be for"


def test_an_answer_that_may_be_late_says_nothing_of_the_pings_before() -> None:
    requests = PendingRequests()
    late = requests.sent_subscribe("a")
    late.is_overdue = True
    requests.sent_ping()
    requests.answered(None)
    ping, request = requests.sent_ping(), requests.sent_subscribe("a")
    assert requests.answered("a") == (request, [], [])
    assert requests.answered(None) == (ping, [], [])


def test_an_error_that_a_ping_cannot_have_is_that_of_the_request_behind_it() -> None:
    requests = PendingRequests()
    requests.sent_ping()
    request = requests.sent_subscribe("a")
    refusal = requests.refused(INVALID)
    assert refusal is not None
    assert refusal.request is request


def test_an_error_that_a_ping_cannot_have_may_be_that_of_a_client_event_before_it() -> None:
    requests = PendingRequests()
    requests.sent_silent()
    ping, request = requests.sent_ping(), requests.sent_subscribe("a")
    assert requests.refused(INVALID) is None
    assert not requests.needs_ping
    assert requests.answered(None) == (ping, [], [])
    assert requests.answered("a") == (request, [], [])


def test_a_pong_gives_up_what_is_overdue_and_was_asked_before_the_ping() -> None:
    requests = PendingRequests()
    overdue, other = requests.sent_subscribe("a"), requests.sent_subscribe("b")
    overdue.is_overdue = True
    ping = requests.sent_ping()
    later = requests.sent_subscribe("c")
    later.is_overdue = True
    assert requests.answered(None) == (ping, [], [overdue])
    assert requests.answered("b") == (other, [], [])
    assert not requests.is_open("a")
    assert requests.is_open("c")


def test_two_subscribes_to_one_name_do_no_harm() -> None:
    """A program may subscribe to the channel that is its user's."""
    requests = PendingRequests()
    requests.sent_subscribe("a")
    requests.sent_subscribe("a")
    for _ in range(2):
        requests.refused(RATE_LIMIT)
    assert requests.refused(RATE_LIMIT) is None, "nothing is open that it could be for"
    assert not requests.is_open("a")


class InOrderServer:
    """PendingRequests each message in the order sent, with one of the outcomes that Reverb has for it."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.inbox: deque[tuple[str, Request | None]] = deque()
        self.refused: set[Request] = set()

    def answer(self) -> tuple[str, str | None, ServerError | None] | None:
        kind, request = self.inbox.popleft()
        if kind == "ping":
            return ("success", None, None)
        if kind == "silent":
            error = self.choose.choice([None, None, INVALID, NOT_A_MEMBER, NO_CLIENT_EVENTS, RATE_LIMIT])
            return None if error is None else ("error", None, error)
        assert request is not None
        assert request.channel is not None
        errors = [INVALID, RATE_LIMIT] + [UNAUTHORIZED] * request.channel.startswith("p")
        if self.choose.random() < 0.5:
            self.refused.add(request)
            return ("error", None, self.choose.choice(errors))
        return ("success", request.channel, None)


@given(st.integers(min_value=0, max_value=2**32), st.integers(min_value=1, max_value=60))
def test_every_answer_is_matched_with_its_message_whatever_the_order(seed: int, messages: int) -> None:
    choose = random.Random(seed)
    server, requests = InOrderServer(choose), PendingRequests()
    subscribes: set[Request] = set()
    confirmed: set[Request] = set()
    refused: set[Request] = set()

    def send(kind: str) -> None:
        request = None
        if kind == "subscribe":
            names = [each for each in ("a", "b", "private-a", "presence-b", SIGNIN) if not requests.is_open(each)]
            if not names:
                return
            request = requests.sent_subscribe(choose.choice(names))
            subscribes.add(request)
        elif kind == "ping":
            request = requests.sent_ping()
        else:
            requests.sent_silent()
        server.inbox.append((kind, request))

    def receive() -> None:
        answer = server.answer()
        if answer is None:
            return
        kind, channel, error = answer
        if kind == "success":
            request, refusals, _ = requests.answered(channel)
            assert request is not None
            confirmed.add(request)
            refused.update(refusal.request for refusal in refusals)
        else:
            assert error is not None
            refusal = requests.refused(error)
            if refusal is not None:
                refused.add(refusal.request)
            elif requests.needs_ping:
                send("ping")

    for _ in range(messages):
        if server.inbox and choose.random() < 0.5:
            receive()
        else:
            send(choose.choice(["subscribe", "subscribe", "silent", "ping"]))
    while server.inbox:
        receive()

    assert refused & subscribes == server.refused
    assert confirmed & subscribes == subscribes - server.refused
