"""Whatever callers, authorizers, servers and connections do, in any order: what is wanted is subscribed.

Hypothesis makes up what they do. There are two models of servers: one like Reverb, which handles the messages of a
connection strictly in order, and whose errors name no channel; and one like soketi, which answers subscribes in
any order, and whose refusals name the channel. ``REVERB_EXAMPLES=10000`` runs that many examples of each.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from reverb import AuthenticationError, ConnectionError, ReverbError, SubscriptionError, TimeoutError
from reverb._protocol import INVALID_MESSAGE, SIGNIN, ServerError, is_auth_refusal, needs_auth
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
)

EXAMPLES = int(os.environ.get("REVERB_EXAMPLES", "150"))

SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    report_multiple_bugs=False,
    derandomize="REVERB_EXAMPLES" not in os.environ,  # what fails in the suite fails each time
    database=None,
)

NAMES = ("news", "private-x", "presence-y")
UNAUTHORIZED = ServerError(4009, "Connection is unauthorized")
NOT_A_MEMBER = ServerError(4009, "The client is not a member of the specified channel.")
INVALID = ServerError(INVALID_MESSAGE, "Invalid message format")
RATE_LIMIT = ServerError(4301, "Rate limit exceeded")
NO_CLIENT_EVENTS = ServerError(4301, "The app does not have client messaging enabled.")
FORBIDDEN = ServerError(403, "The connection is unauthorized.")
OVERLOADED = ServerError(500, "something went wrong")

OK = "ok"
NEVER = "never"

Truth = ServerError | str
"""What the server made of a request: ``OK``, an error, or ``NEVER`` for no answer."""


class Sent(NamedTuple):
    kind: str
    name: str
    request: Request | None


class Received(NamedTuple):
    kind: str
    name: str = ""
    error: ServerError | None = None


class Wire:
    """A connection: what is on its way, and what the server knows."""

    def __init__(self) -> None:
        self.requests = PendingRequests()
        self.to_server: deque[Sent] = deque()
        self.to_client: deque[Received] = deque()
        self.subscribed: set[str] = set()
        self.truth: dict[Request, Truth] = {}
        self.given_up: set[Request] = set()
        self.unrestored: set[Subscription[str]] = set()
        """What was wanted when the connection was made, and has not come to anything yet."""
        self.times_restored = 0
        self.told: set[Subscription[str]] = set()
        """What the program knows to be refused for good."""
        self.refusals = 0
        """How many pings and unsubscribes the rate limit refused."""
        self.ghosts: set[str] = set()
        """What may be subscribed without our knowledge."""
        self.is_shifted = False
        """Whether an error was taken for that of an earlier request, which the server never answered."""

    def send(self, kind: str, name: str = "") -> Request | None:
        request = None
        if kind in ("subscribe", "sign-in"):
            request = self.requests.sent_subscribe(name)
        elif kind == "ping":
            request = self.requests.sent_ping()
        else:
            self.requests.sent_silent()
        self.to_server.append(Sent(kind, name, request))
        return request


class NotSignedError(AuthenticationError):
    """An authorizer's, not the server's."""


class Caller:
    """Somebody who waits for a channel."""

    def __init__(self) -> None:
        self.waiter: Waiter[str] | None = None
        self.results: list[ReverbError | None] = []

    @property
    def is_waiting(self) -> bool:
        return not self.results

    def resolve(self, error: ReverbError | None) -> None:
        self.results.append(error)


class Game(RuleBasedStateMachine):
    """The rules that hold for every server, and a shell that carries out the commands as the real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions: Subscriptions[str] = Subscriptions(explain)
        self.wire: Wire | None = None
        self.callers: list[Caller] = []
        self.held: dict[str, Subscription[str]] = {}
        """What the program was given, and has not left."""
        self.authorizing: list[Subscription[str]] = []
        self.deadlines: dict[Subscription[str], None] = {}
        self.retries: dict[Subscription[str], None] = {}
        self.sign_in: Request | None = None
        self.is_held_up = False
        self.interruptions: deque[Callable[[], None]] = deque()
        """What handlers do, who are called by commands."""
        self.quick_authorizers: deque[Callable[[], None]] = deque()
        """What authorizers do, who sign before anybody else has a turn."""
        self.told: set[Subscription[str]] = set()
        self.forgotten: set[Subscription[str]] = set()
        self.is_draining = False

    # --- the shell ---------------------------------------------------------------------------------------------

    def drain(self) -> None:
        if self.is_draining:
            return
        self.is_draining = True
        commands = self.subscriptions.commands
        while True:
            while commands:
                self.carry_out(commands.popleft())
                if self.interruptions:
                    self.interruptions.popleft()()
            if not self.ask_next() and not commands:
                break
        self.is_draining = False

    def ask_next(self) -> bool:
        if self.wire is None:
            return False
        if self.is_held_up:
            self.subscriptions.held_up()
            return False
        subscription = self.subscriptions.take_next()
        if subscription is None:
            return False
        assert subscription.state is State.AUTHORIZING
        if not needs_auth(subscription.name):
            self.subscribe(subscription)
            return True
        self.authorizing.append(subscription)
        if self.quick_authorizers:
            self.quick_authorizers.popleft()()
            self.authorized(subscription)
        return True

    def authorized(self, subscription: Subscription[str]) -> None:
        if subscription in self.authorizing:
            self.authorizing.remove(subscription)
            self.subscribe(subscription)

    def subscribe(self, subscription: Subscription[str]) -> None:
        assert self.wire is not None
        assert not self.wire.requests.is_open(subscription.name), f"{subscription} is asked for twice"
        request = self.wire.send("subscribe", subscription.name)
        assert request is not None
        self.subscriptions.requested(subscription, request)
        self.deadlines[subscription] = None

    def carry_out(self, command: Command) -> None:
        wire = self.wire
        if isinstance(command, Confirmed):
            self.told.discard(command.subscription)
        elif isinstance(command, Refused):
            assert command.is_lasting or command.subscription not in self.told, "reported twice"
            self.told.add(command.subscription)
            if command.is_lasting and wire is not None:
                wire.told.add(command.subscription)
                if not isinstance(command.error, NotSignedError):
                    assert self.has_refused_for_good(wire, command.subscription.name), "rejected on a guess"
        elif isinstance(command, Forgotten):
            assert command.subscription not in self.forgotten
            self.forgotten.add(command.subscription)
        elif wire is None:
            return
        elif isinstance(command, Answered):
            if command.request.subject is not None:
                self.deadlines.pop(command.request.subject, None)
            if command.error is not None and command.error.code is None:
                wire.given_up.add(command.request)
            self.check_answer(wire, command.request, command.error)
        elif isinstance(command, Retry):
            self.retries[command.subscription] = None
        elif isinstance(command, Withdrawn):
            if command.subscription in self.authorizing:
                self.authorizing.remove(command.subscription)
        elif isinstance(command, Unsubscribe):
            found = self.subscriptions.get(command.name)
            assert found is None or found.state not in (State.REQUESTED, State.SUBSCRIBED), (
                f"{found} is unsubscribed"
            )
            wire.send("unsubscribe", command.name)
        elif isinstance(command, Ping):
            wire.send("ping")
        elif isinstance(command, Restored):
            wire.times_restored += 1
            assert wire.times_restored == 1

    def check_answer(self, wire: Wire, request: Request, error: ServerError | None) -> None:
        """The server did say this about this request."""

    def has_refused_for_good(self, wire: Wire, name: str) -> bool:
        """Whether the server has refused a signature for this channel, to a request that was not given up."""
        return wire.is_shifted or any(
            request.channel == name and truth in (UNAUTHORIZED, FORBIDDEN) and request not in wire.given_up
            for request, truth in wire.truth.items()
        )

    # --- callers -----------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES))
    def add_waiter(self, name: str) -> None:
        self._wait_for(name)
        self.drain()

    def _wait_for(self, name: str) -> None:
        caller = Caller()
        caller.waiter = self.subscriptions.add_waiter(name, name, caller.resolve)
        self.callers.append(caller)

    @rule(name=st.sampled_from(NAMES))
    def want(self, name: str) -> None:
        self.held[name] = self.subscriptions.want(name, name)
        self.drain()

    @precondition(lambda self: self.callers)
    @rule(index=st.integers(0, 100))
    def give(self, index: int) -> None:
        caller = self.callers[index % len(self.callers)]
        if caller.results == [None]:
            self._give(caller)
            self.drain()

    def _give(self, caller: Caller) -> None:
        assert caller.waiter is not None
        self.callers.remove(caller)
        if self.subscriptions.give(caller.waiter):
            subscription = caller.waiter.subscription
            assert self.held.get(subscription.name, subscription) is subscription
            self.held[subscription.name] = subscription
        self.subscriptions.withdraw(caller.waiter)

    @precondition(lambda self: self.callers)
    @rule(index=st.integers(0, 100))
    def withdraw(self, index: int) -> None:
        self._withdraw(self.callers[index % len(self.callers)])
        self.drain()

    def _withdraw(self, caller: Caller) -> None:
        assert caller.waiter is not None
        self.callers.remove(caller)
        self.subscriptions.withdraw(caller.waiter)

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        self._leave(name)
        self.drain()

    def _leave(self, name: str) -> None:
        self.held.pop(name, None)
        self.subscriptions.leave(name, SubscriptionError("left"))
        assert self.subscriptions.get(name) is None

    @rule(name=st.sampled_from(NAMES), action=st.sampled_from(["waiter", "leave", "withdraw", "lose"]))
    def a_handler_will(self, name: str, action: str) -> None:
        """Do something in the middle of the commands to come."""
        self.interruptions.append(lambda: self._act(name, action))

    @rule(name=st.sampled_from(NAMES), action=st.sampled_from(["nothing", "waiter", "leave", "withdraw"]))
    def a_quick_authorizer_will(self, name: str, action: str) -> None:
        self.quick_authorizers.append(lambda: self._act(name, action))

    def _act(self, name: str, action: str) -> None:
        if action == "waiter":
            self._wait_for(name)
        elif action == "leave":
            self._leave(name)
        elif action == "withdraw" and self.callers:
            self._withdraw(self.callers[0])
        elif action == "lose":
            self._lose()

    # --- authorizers and timers --------------------------------------------------------------------------------

    @precondition(lambda self: self.authorizing)
    @rule(index=st.integers(0, 100))
    def authorize(self, index: int) -> None:
        self.authorized(self.authorizing[index % len(self.authorizing)])
        self.drain()

    @precondition(lambda self: self.authorizing)
    @rule(index=st.integers(0, 100), is_temporary=st.booleans())
    def fail_to_authorize(self, index: int, is_temporary: bool) -> None:
        subscription = self.authorizing.pop(index % len(self.authorizing))
        self.subscriptions.refused(subscription, NotSignedError("no", is_temporary=is_temporary))
        self.drain()

    @precondition(lambda self: self.deadlines)
    @rule(index=st.integers(0, 100))
    def pass_deadline(self, index: int) -> None:
        self._pass_deadline(list(self.deadlines)[index % len(self.deadlines)])

    @precondition(lambda self: self.deadlines)
    @rule(index=st.integers(0, 100))
    def run_out_of_time(self, index: int) -> None:
        """Let the server answer pings, and nothing else, after a deadline has passed."""
        self.pass_deadline(index)
        self.serve_pings()
        while self.wire is not None and self.wire.to_client:
            self.receive()

    def _pass_deadline(self, subscription: Subscription[str]) -> None:
        del self.deadlines[subscription]
        self.subscriptions.overdue(subscription, TimeoutError("no answer"))
        self.drain()

    @precondition(lambda self: self.retries)
    @rule(index=st.integers(0, 100))
    def retry(self, index: int) -> None:
        self._retry(list(self.retries)[index % len(self.retries)])

    def _retry(self, subscription: Subscription[str]) -> None:
        del self.retries[subscription]
        self.subscriptions.retry(subscription)
        self.drain()

    @rule()
    def hold_up_or_go_on(self) -> None:
        self.is_held_up = not self.is_held_up
        self.drain()

    # --- the connection ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.wire is None)
    @rule()
    def connect(self) -> None:
        self.wire = Wire()
        self.wire.unrestored.update(self.subscriptions)
        self.subscriptions.connected(self.wire.requests)
        self.drain()

    @precondition(lambda self: self.wire is not None)
    @rule()
    def lose(self) -> None:
        self._lose()
        self.drain()

    def _lose(self) -> None:
        if self.wire is not None:
            self.wire = None
            self.authorizing.clear()
            self.deadlines.clear()
            self.retries.clear()
            self.subscriptions.lost()

    @precondition(lambda self: self.wire is None)
    @rule()
    def give_up(self) -> None:
        self.subscriptions.give_up(ConnectionError("no connection"))
        assert not any(caller.is_waiting for caller in self.callers)
        self.drain()

    @precondition(lambda self: self.wire is not None)
    @rule(kind=st.sampled_from(["client event", "ping", "sign-in"]))
    def send(self, kind: str) -> None:
        assert self.wire is not None
        if kind != "sign-in":
            self.wire.send(kind)
        elif not self.wire.requests.is_open(SIGNIN):
            self.sign_in = self.wire.send(kind, SIGNIN)

    @precondition(lambda self: self.wire is not None and self.wire.to_client)
    @rule()
    def receive(self) -> None:
        assert self.wire is not None
        kind, name, error = self.wire.to_client.popleft()
        if kind == "pong":
            self.subscriptions.ponged()
        elif error is None:
            self.subscriptions.succeeded(name, "answer")
        elif name:
            self.subscriptions.rejected(name, error)
        else:
            self.subscriptions.errored(error)
        self.drain()

    def serve_well(self) -> bool:
        """Let the server answer all that it has with a yes; return whether there was something."""
        raise NotImplementedError

    def serve_pings(self) -> None:
        """Let the server take all that it has, and answer no subscribe."""
        raise NotImplementedError

    # --- what holds always -------------------------------------------------------------------------------------

    @invariant()
    def each_has_something_to_wait_for(self) -> None:
        assert not self.subscriptions.commands
        for each in self.subscriptions:
            if self.wire is None:
                assert each.state is State.WANTED
                assert each.attempts == 0
            elif each.state is State.REFUSED:
                assert each in self.retries, f"{each} is not tried again"
                assert each.attempts
            elif each.state is State.AUTHORIZING:
                assert each in self.authorizing
            elif each.state is State.WANTED:
                assert self.is_held_up or self.wire.requests.is_open(each.name), f"{each} is not asked for"
            elif each.state is State.REQUESTED:
                assert self.wire.requests.is_open(each.name), f"{each} has no request"
            elif each.state is State.REJECTED:
                assert each in self.wire.told
            else:
                assert each.is_subscribed
                assert (each.attempts, each.reported) == (0, None)

    @invariant()
    def a_connection_is_restored_when_all_is_answered_or_overdue(self) -> None:
        if self.wire is not None:
            self.wire.unrestored = {each for each in self.wire.unrestored if not self.is_answered_or_overdue(each)}
            assert self.wire.unrestored or self.wire.times_restored == 1

    def is_answered_or_overdue(self, subscription: Subscription[str]) -> bool:
        if subscription.state is State.WANTED:
            return self.is_held_up
        if subscription.state is State.REQUESTED:
            return subscription.request is not None and subscription.request.is_overdue
        return subscription.state is not State.AUTHORIZING

    @invariant()
    def each_who_holds_or_waits_for_a_channel_has_it_wanted(self) -> None:
        for name, subscription in self.held.items():
            assert subscription.is_given
            assert self.subscriptions.get(name) is subscription
        for caller in self.callers:
            assert caller.waiter is not None
            assert len(caller.results) <= 1
            if caller.is_waiting:
                subscription = caller.waiter.subscription
                assert self.subscriptions.get(subscription.name) is subscription
                assert subscription.state not in (State.SUBSCRIBED, State.REFUSED, State.REJECTED)

    @invariant()
    def what_is_kept_is_wanted(self) -> None:
        for each in self.subscriptions:
            claimed = [caller for caller in self.callers if caller.waiter and caller.waiter.subscription is each]
            assert each.is_wanted
            assert claimed or each.name in self.held, f"{each} is wanted by nobody"

    # --- how it ends -------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if self.is_draining:
            return  # something went wrong before
        self.interruptions.clear()
        self.quick_authorizers.clear()
        self.answer_everything()
        for each in self.subscriptions:
            assert each.state in (State.SUBSCRIBED, State.REJECTED)
        for name in NAMES:
            self.add_waiter(name)
        self.answer_everything()
        assert all(each.is_subscribed for each in self.subscriptions)
        for caller in list(self.callers):
            self._give(caller) if caller.results == [None] else self._withdraw(caller)
        self.drain()
        assert set(self.held) == set(NAMES)
        for name in NAMES:
            self.leave(name)
        self.answer_everything()
        assert not list(self.subscriptions)
        assert self.wire is not None
        self.send("sign-in")
        self.answer_everything()
        assert self.wire.requests.refused(RATE_LIMIT) is None, "a request is open that nobody answers"

    def answer_everything(self) -> None:
        """Go on until nothing is under way, on a server and with authorizers that say yes to everything."""
        self.is_held_up = False
        if self.wire is None:
            self.connect()
        assert self.wire is not None
        self.drain()
        keepalives = self.wire.refusals + 1 if self.wire.refusals else 0
        for _ in range(100):
            while self.serve_well() or self.wire.to_client:
                while self.wire.to_client:
                    self.receive()
            if self.authorizing:
                self.authorize(0)
            elif self.retries:
                self._retry(next(iter(self.retries)))
            elif self.deadlines:
                self._pass_deadline(next(iter(self.deadlines)))
            elif self.sign_in is not None and self.wire.requests.is_open(SIGNIN) and not self.sign_in.is_overdue:
                self.sign_in.is_overdue = True
                self.send("ping")
            elif keepalives:
                keepalives -= 1
                self.send("ping")
            else:
                break
        else:
            pytest.fail(f"no end: {list(self.subscriptions)}")
        self.each_has_something_to_wait_for()
        self.each_who_holds_or_waits_for_a_channel_has_it_wanted()
        assert not any(caller.is_waiting for caller in self.callers)
        assert self.wire.times_restored == 1
        present = {each.name for each in self.subscriptions if each.is_subscribed}
        assert self.wire.subscribed - (self.wire.ghosts - present) == present


class InOrder(Game):
    """Against Reverb."""

    def check_answer(self, wire: Wire, request: Request, error: ServerError | None) -> None:
        if request.channel is None or request not in wire.truth:
            assert request.channel is None, f"{request.channel} is answered before the server has seen it"
            return
        truth = wire.truth[request]
        if error is None:
            assert truth == OK
        else:
            assert truth != OK, f"{request.channel} is taken for refused"
            if truth == NEVER and error.code is not None and not request.is_overdue:
                # No client can see that it was a later one that was refused, nor that it is subscribed.
                wire.ghosts.add(request.channel)
                wire.is_shifted = True
            elif wire.is_shifted and truth == INVALID != error:
                wire.ghosts.add(request.channel)  # nor, behind that, which of them made us a member all the same

    @precondition(lambda self: self.wire is not None and self.wire.to_server)
    @rule(outcome=st.integers(0, 11))
    def serve(self, outcome: int) -> None:
        assert self.wire is not None
        self._serve(self.wire, outcome)

    @precondition(lambda self: self.wire is not None and self.wire.to_server)
    @rule(subscribes=st.integers(0, 11), others=st.integers(0, 11))
    def serve_all(self, subscribes: int, others: int) -> None:
        assert self.wire is not None
        while self.wire.to_server:
            self._serve(self.wire, subscribes if self.wire.to_server[0].kind == "subscribe" else others)

    @precondition(lambda self: self.wire is not None and self.wire.to_client)
    @rule()
    def receive_all(self) -> None:
        while self.wire is not None and self.wire.to_client:
            self.receive()

    def _serve(self, wire: Wire, outcome: int) -> None:
        kind, name, request = wire.to_server.popleft()
        error: ServerError | None = None
        if kind == "subscribe" and outcome < 9:
            error = [None, None, None, INVALID, INVALID, RATE_LIMIT, UNAUTHORIZED, None, None][outcome]
            if error is UNAUTHORIZED and not needs_auth(name):
                error = None
            assert request is not None
            wire.truth[request] = error or (NEVER if outcome > 6 else OK)
            if (error is None and outcome != 7) or outcome == 3:
                wire.subscribed.add(name)
                wire.ghosts.discard(name)
            if error is None and outcome <= 6:
                wire.to_client.append(Received("success", name))
        elif kind == "sign-in":
            assert request is not None
            error = [None, RATE_LIMIT, UNAUTHORIZED, INVALID][outcome % 4]
            wire.truth[request] = error or OK
            if error is None:
                wire.to_client.append(Received("success", SIGNIN))
        elif outcome >= 9:
            error = RATE_LIMIT
            wire.refusals += 1
            if kind == "subscribe":
                assert request is not None
                wire.truth[request] = error
        elif kind == "ping":
            wire.to_client.append(Received("pong"))
        elif kind == "unsubscribe":
            wire.subscribed.discard(name)
            wire.ghosts.discard(name)
        elif kind == "client event":
            error = [None, None, None, INVALID, NOT_A_MEMBER, NO_CLIENT_EVENTS, None, None, None][outcome]
        if error is not None:
            wire.to_client.append(Received("error", "", error))

    def serve_well(self) -> bool:
        assert self.wire is not None
        if not self.wire.to_server:
            return False
        while self.wire.to_server:
            self._serve(self.wire, 0)
        return True

    def serve_pings(self) -> None:
        while self.wire is not None and self.wire.to_server:
            self._serve(self.wire, 8)


class OutOfOrder(Game):
    """Against soketi."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Wire, Request]] = []
        """Subscribes that the server is busy with."""

    @precondition(lambda self: self.wire is not None and self.wire.to_server)
    @rule()
    def serve(self) -> None:
        wire = self.wire
        assert wire is not None
        kind, name, request = wire.to_server.popleft()
        if kind == "subscribe":
            assert request is not None
            self.pending.append((wire, request))
        elif kind == "ping":
            wire.to_client.append(Received("pong"))
        elif kind == "unsubscribe":
            wire.subscribed.discard(name)
        elif kind == "sign-in":
            wire.to_client.append(Received("success", SIGNIN))

    @precondition(lambda self: self.pending)
    @rule(index=st.integers(0, 100), outcome=st.sampled_from([OK, OK, OK, NEVER, FORBIDDEN, OVERLOADED]))
    def complete(self, index: int, outcome: Truth) -> None:
        wire, request = self.pending.pop(index % len(self.pending))
        wire.truth[request] = outcome
        name = request.channel
        assert name is not None
        if outcome == OK:
            wire.subscribed.add(name)
            wire.to_client.append(Received("success", name))
        elif isinstance(outcome, ServerError):
            wire.to_client.append(Received("refusal", name, outcome))

    def serve_well(self) -> bool:
        assert self.wire is not None
        self.pending = [each for each in self.pending if each[0] is self.wire]
        if not self.wire.to_server and not self.pending:
            return False
        while self.wire.to_server:
            self.serve()
        while self.pending:
            self.complete(0, OK)
        return True

    def serve_pings(self) -> None:
        while self.wire is not None and self.wire.to_server:
            self.serve()


def explain(name: str, error: ServerError) -> ReverbError:
    return AuthenticationError(name) if is_auth_refusal(error) else SubscriptionError(name, code=error.code)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("game", [InOrder, OutOfOrder])
def test_what_is_wanted_is_subscribed_whatever_happens(game: type[Game]) -> None:
    run_state_machine_as_test(game, settings=SETTINGS)
