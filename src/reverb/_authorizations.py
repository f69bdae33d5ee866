"""Call an authorizer: a limited number of calls at a time, each with a timeout, and always with errors of this
package."""

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
"""Authorises a connection, by its socket id, to sign in as a user."""


class Authorizations:
    """Calls ``authorizer`` for ``concurrency`` channels at a time, with ``timeout`` seconds for each call.

    A call that is no longer needed is cancelled. It counts as running until it has ended, so that there are never
    more than ``concurrency`` calls at a time.
    """

    def __init__(self, authorizer: Authorizer | None, concurrency: int, timeout: float) -> None:
        self.authorizer = authorizer
        self._timeout = timeout
        self._turns = asyncio.Semaphore(concurrency)
        self._calls: set[asyncio.Task[Any]] = set()

    async def ask_for_channel(
        self, socket_id: str, channel: str, on_turn: Callable[[], None] | None = None
    ) -> ChannelAuth:
        """Call the authorizer for a channel. ``on_turn`` is called when the wait for other calls is over.

        Raises :class:`TimeoutError`, or what the authorizer raises, as a :class:`ReverbError`.
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
            f"the authorizer did not answer for {channel!r}",
            self._turns.release,
        )

    async def ask_for_user(self, authenticate: Authenticate, socket_id: str) -> UserAuth:
        """Call ``authenticate`` for the user of a connection. Raises the same as :meth:`ask_for_channel`."""
        return await self._ask(
            lambda: authenticate(socket_id), UserAuth, "for the user", "the authorizer did not answer for the user"
        )

    async def wait_ended(self, timeout: float) -> None:
        """Wait until the cancelled calls have ended, for ``timeout`` seconds at most."""
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
                task.exception()  # read it, or asyncio logs it when nobody else does

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
    """Call; raise a ReverbError, whatever is raised or returned."""
    try:
        answer: Any = await call()
    except ReverbError:
        raise
    except Exception as error:
        # The cause is not known, so it may be temporary.
        raise AuthenticationError(
            f"the authorizer failed {subject}: {type(error).__name__}", is_temporary=True
        ) from error
    if not isinstance(answer, kind):
        returned = type(answer).__name__
        del answer  # error reporters send local variables
        raise AuthenticationError(f"the authorizer failed {subject}: it returned {returned}, not {kind.__name__}")
    return answer


def authenticator(authorizer: Authorizer | None, user_data: dict[str, Any] | None) -> Authenticate:
    """Return a function that authorises the user described by ``user_data``.

    Raises :class:`ConfigurationError` if nothing can authorise users, or ``user_data`` has no use, and
    :class:`ProtocolError` if ``user_data`` has no id.
    """
    if isinstance(authorizer, SecretAuthorizer):
        text = _protocol.encode_user_data(user_data)

        async def authenticate(socket_id: str) -> UserAuth:
            return authorizer.authenticate(socket_id, text)

        return authenticate
    found: Authenticate | None = getattr(authorizer, "authenticate_user", None)
    if found is None:
        raise ConfigurationError(
            "signing in needs REVERB_APP_SECRET, REVERB_AUTH_ENDPOINT, or an authorizer that has the method "
            "authenticate_user"
        )
    if user_data is not None:
        raise ConfigurationError("the authorizer decides who the user is: leave out user_data")
    return found
