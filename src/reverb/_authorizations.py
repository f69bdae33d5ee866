"""Asking an authorizer: a few at a time, for a bounded time, and with errors of ours whatever it raises."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from . import _protocol
from ._tasks import spawn
from .auth import Authorizer, ChannelAuth, SecretAuthorizer, UserAuth
from .exceptions import AuthenticationError, ConfigurationError, ReverbError, TimeoutError, plural

T = TypeVar("T", ChannelAuth, UserAuth)

Authenticate = Callable[[str], Awaitable[UserAuth]]
"""Signs for the user of a connection, by its socket id."""


class Authorizations:
    """Asks ``authorizer``, for ``concurrency`` channels at a time and ``timeout`` seconds each.

    A call that is no longer wanted is cancelled. It keeps its turn until it has really ended, so that an
    authorizer is never called more often at once than it was promised.
    """

    def __init__(self, authorizer: Authorizer | None, concurrency: int, timeout: float) -> None:
        self.authorizer = authorizer
        self._timeout = timeout
        self._turns = asyncio.Semaphore(concurrency)
        self._calls: set[asyncio.Task[Any]] = set()

    async def ask_for_channel(
        self, socket_id: str, channel: str, on_turn: Callable[[], None] | None = None
    ) -> ChannelAuth:
        """Have the authorizer sign for a channel; ``on_turn`` is called when the time in line is over.

        Raises :class:`TimeoutError`, and what the authorizer raised, as a :class:`ReverbError`.
        """
        authorizer = self.authorizer
        assert authorizer is not None
        await self._turns.acquire()
        if on_turn is not None:
            on_turn()
        return await self._ask(
            lambda: authorizer(socket_id, channel),
            ChannelAuth,
            f"for {channel!r}",
            f"no answer of the authorizer to the subscription to {channel!r}",
            self._turns.release,
        )

    async def ask_for_user(self, authenticate: Authenticate, socket_id: str) -> UserAuth:
        """Have the user of a connection signed for; raises as :meth:`ask_for_channel`."""
        return await self._ask(
            lambda: authenticate(socket_id), UserAuth, "for the user", "no answer of the authorizer for the user"
        )

    async def wait_ended(self, timeout: float) -> None:
        """Wait until the calls that were cancelled are over, for ``timeout`` seconds at most."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=timeout)

    async def _ask(
        self,
        call: Callable[[], Awaitable[T]],
        kind: type[T],
        subject: str,
        no_answer: str,
        on_ended: Callable[[], None] | None = None,
    ) -> T:
        def end(task: asyncio.Task[Any]) -> None:
            self._calls.discard(task)
            if on_ended is not None:
                on_ended()
            if not task.cancelled():
                task.exception()  # nobody may be left to see it

        asking = spawn(_call(call, kind, subject))
        self._calls.add(asking)
        asking.add_done_callback(end)
        try:
            await asyncio.wait({asking}, timeout=self._timeout)
            if not asking.done():
                raise TimeoutError(
                    f"{no_answer} within {plural(self._timeout, 'second')} (REVERB_SUBSCRIBE_TIMEOUT)"
                )
            if asking.cancelled():
                raise AuthenticationError(f"the authorizer failed {subject}: it was cancelled", is_temporary=True)
            return asking.result()
        finally:
            asking.cancel()


async def _call(call: Callable[[], Awaitable[T]], kind: type[T], subject: str) -> T:
    """Ask; raise a ReverbError, whatever is raised or returned."""
    try:
        answer: Any = await call()
    except ReverbError:
        raise
    except Exception as error:
        # What it is, only the authorizer knows: it may well be over in a moment.
        raise AuthenticationError(
            f"the authorizer failed {subject}: {type(error).__name__}", is_temporary=True
        ) from error
    if not isinstance(answer, kind):
        returned = type(answer).__name__
        del answer  # error reporters send the locals of frames
        raise AuthenticationError(f"the authorizer failed {subject}: it returned {returned}, not {kind.__name__}")
    return answer


def authenticator(authorizer: Authorizer | None, user_data: dict[str, Any] | None) -> Authenticate:
    """Return what signs for the user that ``user_data`` describes.

    Raises :class:`ConfigurationError` where nobody can, or ``user_data`` would be of no use, and
    :class:`ProtocolError` for ``user_data`` without an id.
    """
    if isinstance(authorizer, SecretAuthorizer):
        text = _protocol.encode_user_data(user_data)

        async def authenticate(socket_id: str) -> UserAuth:
            return authorizer.authenticate(socket_id, text)

        return authenticate
    found: Authenticate | None = getattr(authorizer, "authenticate_user", None)
    if found is None:
        raise ConfigurationError(
            "signing in needs REVERB_APP_SECRET, REVERB_AUTH_ENDPOINT, or an authorizer with a method "
            "authenticate_user"
        )
    if user_data is not None:
        raise ConfigurationError("the authorizer says who the user is: leave user_data out")
    return found
