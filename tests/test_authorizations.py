"""Asking authorizers: how many at once, for how long, and what becomes of what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reverb import (
    AuthenticationError,
    ChannelAuth,
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbError,
    SecretAuthorizer,
    TimeoutError,
)
from reverb._authorizations import Authorizations, authenticator
from reverb._subscriptions import is_lasting
from reverb.auth import UserAuth

from .watching import client_tasks, turns, until, wait_turns

AUTH = ChannelAuth("key:signature")


class Calls:
    """An authorizer that does ``work`` and counts."""

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        self.running = 0
        self.most = 0
        self.made = 0
        self._work = work

    async def __call__(self, socket_id: str, channel: str) -> Any:
        self.made += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self._work()
        finally:
            self.running -= 1
        return AUTH


async def a_turn() -> None:
    await asyncio.sleep(0)


async def hang() -> None:
    await asyncio.Event().wait()


class Deaf:
    """Work that ignores each cancellation, until it is let go."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.cancelled = 0

    async def __call__(self) -> None:
        while not self.go_on.is_set():
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        await asyncio.sleep(0)


async def give_up(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def is_usable(authorizations: Authorizations, calls: Calls, concurrency: int) -> None:
    """Check that no turn was lost, and that there are no more than there were."""
    calls.most = 0
    asks = [authorizations.ask_for_channel("1.1", f"private-{number}") for number in range(3 * concurrency)]
    assert await asyncio.wait_for(asyncio.gather(*asks), 5) == [AUTH] * 3 * concurrency
    assert calls.most == concurrency
    assert client_tasks() == set()


async def test_no_more_are_asked_at_once_than_allowed() -> None:
    calls = Calls(a_turn)
    await is_usable(Authorizations(calls, 3, 5), calls, 3)


async def test_the_turn_is_told() -> None:
    gate = asyncio.Event()
    calls = Calls(lambda: gate.wait())
    authorizations = Authorizations(calls, 1, 5)
    told: list[str] = []
    first, second = (
        asyncio.ensure_future(authorizations.ask_for_channel("1.1", name, lambda name=name: told.append(name)))  # type: ignore[misc]
        for name in ("a", "b")
    )
    await until(lambda: calls.running)
    assert told == ["a"]
    gate.set()
    await asyncio.gather(first, second)
    assert told == ["a", "b"]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_callers_who_are_cancelled_at_each_turn_lose_no_turn_and_leave_nothing(concurrency: int) -> None:
    calls = Calls(a_turn)
    authorizations = Authorizations(calls, concurrency, 5)
    for number in turns():
        asks = [asyncio.ensure_future(authorizations.ask_for_channel("1.1", str(each))) for each in range(6)]
        await wait_turns(number)
        was_done = all(each.done() for each in asks)
        await give_up(*asks[::2])
        assert await asyncio.wait_for(asyncio.gather(*asks[1::2]), 5) == [AUTH] * 3
        await authorizations.wait_ended(5)
        assert client_tasks() == set()
        assert calls.most <= concurrency
        await is_usable(authorizations, calls, concurrency)
        if was_done:
            break


async def test_callers_who_are_cancelled_in_the_turn_in_which_it_is_theirs() -> None:
    """Each distance between the end of one call and the cancelling of the next caller, and of the one behind."""
    for number in range(12):
        gate = asyncio.Event()
        calls = Calls(lambda: gate.wait())  # noqa: B023 - is called in this iteration
        authorizations = Authorizations(calls, 1, 5)
        asks = [asyncio.ensure_future(authorizations.ask_for_channel("1.1", str(each))) for each in range(4)]
        await until(lambda: calls.running)  # noqa: B023
        gate.set()
        await wait_turns(number)
        await give_up(*asks[1:3])
        assert await asyncio.wait_for(asyncio.gather(*asks[::3]), 5) == [AUTH] * 2
        await is_usable(authorizations, calls, 1)


async def test_authorizers_that_ignore_cancellation_keep_their_turn_until_they_have_ended() -> None:
    deaf = Deaf()
    calls = Calls(deaf)
    authorizations = Authorizations(calls, 2, 5)
    for number in range(20):
        asks = [asyncio.ensure_future(authorizations.ask_for_channel("1.1", str(each))) for each in range(6)]
        await wait_turns(number)
        await give_up(*asks)
    assert calls.made == calls.running == 2
    asked = asyncio.ensure_future(authorizations.ask_for_channel("1.1", "private-x"))
    await wait_turns(20)
    assert calls.made == 2
    deaf.go_on.set()
    assert await asyncio.wait_for(asked, 5) == AUTH
    await is_usable(authorizations, calls, 2)


async def test_authorizers_that_hang_time_out_and_are_cancelled() -> None:
    calls = Calls(hang)
    authorizations = Authorizations(calls, 2, 0.05)
    results = await asyncio.gather(
        *(authorizations.ask_for_channel("1.1", f"private-{each}") for each in range(6)), return_exceptions=True
    )
    for number, error in enumerate(results):
        assert isinstance(error, TimeoutError)
        assert f"'private-{number}' within 0.05 seconds (REVERB_SUBSCRIBE_TIMEOUT)" in str(error)
        assert not is_lasting(error)
    assert calls.made == 6
    assert calls.most == 2
    await authorizations.wait_ended(5)
    assert calls.running == 0
    assert client_tasks() == set()


async def test_waiting_for_the_end_of_calls_takes_no_longer_than_told() -> None:
    deaf = Deaf()
    calls = Calls(deaf)
    authorizations = Authorizations(calls, 1, 0.01)
    with pytest.raises(TimeoutError):
        await authorizations.ask_for_channel("1.1", "private-x")
    await asyncio.wait_for(authorizations.wait_ended(0.05), 5)
    assert calls.running == 1
    deaf.go_on.set()
    await authorizations.wait_ended(5)
    assert calls.running == 0
    await authorizations.wait_ended(5)  # nothing to wait for


def failing(error: BaseException) -> Callable[[], Awaitable[Any]]:
    async def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "text", "lasting"),
    [
        (ValueError("SECRET"), "the authorizer failed for 'private-x': ValueError", False),
        (OSError("SECRET"), "the authorizer failed for 'private-x': OSError", False),
        (asyncio.TimeoutError(), "the authorizer failed for 'private-x': TimeoutError", False),
        (asyncio.CancelledError(), "the authorizer failed for 'private-x': it was cancelled", False),
        (AuthenticationError("refused", code=403), "refused", True),
        (AuthenticationError("down", is_temporary=True), "down", False),
        (ConfigurationError("no master key"), "no master key", True),
        (ConnectionError("unreachable"), "unreachable", False),
        (ProtocolError("nonsense"), "nonsense", False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("turns_before", [0, 1])
async def test_what_an_authorizer_raises_is_an_error_of_ours(
    error: BaseException, text: str, lasting: bool, turns_before: int
) -> None:
    async def fail() -> None:
        await wait_turns(turns_before)
        raise error

    authorizations = Authorizations(Calls(fail), 1, 5)
    for _ in range(2):  # and the turn is free again
        with pytest.raises(ReverbError) as caught:
            await authorizations.ask_for_channel("1.1", "private-x")
        assert str(caught.value) == text
        assert is_lasting(caught.value) is lasting
        if not isinstance(error, ReverbError | asyncio.CancelledError):
            assert caught.value.__cause__ is error
    assert client_tasks() == set()


@pytest.mark.parametrize("answer", [None, "key:signature", {"auth": "key:signature"}, UserAuth("a", "b")])
async def test_what_an_authorizer_returns_is_checked(answer: Any) -> None:
    async def authorize(socket_id: str, channel: str) -> Any:
        return answer

    authorizations = Authorizations(authorize, 1, 5)
    for _ in range(2):
        with pytest.raises(AuthenticationError, match=r"private-x.* not ChannelAuth") as caught:
            await authorizations.ask_for_channel("1.1", "private-x")
        assert is_lasting(caught.value)
        assert "signature" not in str(caught.value)


async def test_an_authorizer_that_is_no_coroutine_function_is_an_error_of_ours() -> None:
    def authorize(socket_id: str, channel: str) -> Any:
        return AUTH

    authorizations = Authorizations(authorize, 1, 5)
    for _ in range(2):
        with pytest.raises(AuthenticationError, match="TypeError"):
            await authorizations.ask_for_channel("1.1", "private-x")


async def test_a_caller_who_is_cancelled_sees_that_and_not_the_authorizers_error() -> None:
    """What the authorizer raises behind it is nobody's, and no "exception was never retrieved" either."""
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))

    async def fail_late() -> None:
        try:
            await hang()
        finally:
            raise ValueError("while cleaning up")

    authorizations = Authorizations(Calls(fail_late), 1, 5)
    asked = asyncio.ensure_future(authorizations.ask_for_channel("1.1", "private-x"))
    await wait_turns(5)
    await give_up(asked)
    assert asked.cancelled()
    await authorizations.wait_ended(5)
    assert client_tasks() == set()
    assert problems == []


# --- users -----------------------------------------------------------------------------------------------------


async def test_the_user_is_signed_for_without_waiting_for_channels() -> None:
    calls = Calls(hang)
    authorizations = Authorizations(calls, 1, 5)
    asked = asyncio.ensure_future(authorizations.ask_for_channel("1.1", "private-x"))
    await until(lambda: calls.running)

    async def authenticate(socket_id: str) -> UserAuth:
        return UserAuth(f"key:{socket_id}", "{}")

    assert await authorizations.ask_for_user(authenticate, "1.1") == UserAuth("key:1.1", "{}")
    await give_up(asked)
    await authorizations.wait_ended(5)


async def test_the_same_is_checked_for_users() -> None:
    async def nonsense(socket_id: str) -> Any:
        return AUTH

    async def wait_for_ever(socket_id: str) -> Any:
        await hang()

    authorizations = Authorizations(None, 1, 0.05)
    with pytest.raises(AuthenticationError, match="for the user: it returned ChannelAuth, not UserAuth"):
        await authorizations.ask_for_user(nonsense, "1.1")
    with pytest.raises(TimeoutError, match="for the user"):
        await authorizations.ask_for_user(wait_for_ever, "1.1")
    await authorizations.wait_ended(5)
    assert client_tasks() == set()


async def test_who_signs_for_a_user() -> None:
    class Both:
        async def __call__(self, socket_id: str, channel: str) -> ChannelAuth:
            return AUTH

        async def authenticate_user(self, socket_id: str) -> UserAuth:
            return UserAuth("key:signature", "{}")

    both, only_channels = Both(), Calls(a_turn)
    signed = await authenticator(SecretAuthorizer("key", "secret"), {"id": 7})("1.1")
    assert signed.auth.startswith("key:")
    assert signed.user_data == '{"id":"7"}'
    assert await authenticator(both, None)("1.1") == UserAuth("key:signature", "{}")
    with pytest.raises(ConfigurationError, match="leave out user_data"):
        authenticator(both, {"id": "7"})
    for nobody in (None, only_channels):
        with pytest.raises(ConfigurationError, match="REVERB_APP_SECRET"):
            authenticator(nobody, {"id": "7"})
    with pytest.raises(ProtocolError, match="id"):
        authenticator(SecretAuthorizer("key", "secret"), None)
