"""The user that a connection belongs to: signing in, and the events that come for the user alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import _protocol
from ._connection import Connection
from ._dispatch import Lane
from ._protocol import Message, ServerError
from .auth import UserAuth
from .bindable import Bindable
from .events import Events
from .exceptions import AuthenticationError, ConnectionError, ProtocolError, ReverbError, TimeoutError

if TYPE_CHECKING:
    from .client import ReverbClient
    from .stream import Buffer

__all__ = ["User"]

Authenticate = Callable[[str], Awaitable[UserAuth]]
"""Signs for the user of a connection, by its socket id."""


class User(Bindable):
    """The user of a :class:`ReverbClient`, its attribute ``user``; nobody until :meth:`ReverbClient.signin`.

    Its handlers get the events that are sent to this user; their ``channel`` is ``#server-to-user-`` and the id.
    ``Events.WATCHLIST_ONLINE`` and ``Events.WATCHLIST_OFFLINE`` tell of the users in the ``watchlist`` of
    ``user_data``.
    """

    def __init__(self, client: ReverbClient) -> None:
        self._client = client
        self._lane = Lane(None, client._dispatcher, client._lane)
        self._id: str | None = None
        self._is_signed_in = False
        self._answer: asyncio.Future[None] | None = None
        self._authenticate: Authenticate | None = None
        """How we signed in, to do it again on the next connection."""

    @property
    def id(self) -> str | None:
        """The user's id, as the signed ``user_data`` has it; None before the first sign-in."""
        return self._id

    @property
    def is_signed_in(self) -> bool:
        """Whether the server has confirmed it, on the present connection."""
        return self._is_signed_in and self._client.is_connected

    def _new_buffer(self, size: int) -> Buffer:
        return self._client._new_buffer(size)

    def __repr__(self) -> str:
        return f"<User {self._id!r} {'signed in' if self.is_signed_in else 'not signed in'}>"

    # --- called by the client ----------------------------------------------------------------------------------

    async def _sign_in(self, connection: Connection, authenticate: Authenticate, timeout: float) -> None:
        """Sign in on a connection; ``timeout`` seconds are for the signature, and again for the server."""
        address = self._client._config.address
        auth = await _sign(authenticate, connection.socket_id, timeout)
        if not connection.is_open:
            raise ConnectionError(f"lost the connection to {address} while signing in")
        if connection.answers.is_open(_protocol.SIGNIN):
            raise ProtocolError("signing in is under way already, or was never answered on this connection")
        answer = self._answer = asyncio.get_running_loop().create_future()
        connection.send_signin(auth.auth, auth.user_data)
        try:
            await asyncio.wait_for(answer, timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(
                f"{address} did not answer to signing in within {timeout:g} seconds (REVERB_SUBSCRIBE_TIMEOUT): "
                "is user authentication enabled for the application?"
            ) from None
        self._authenticate = authenticate

    def _on_signed_in(self, connection: Connection, message: Message) -> None:
        data = _protocol.parse_data(message.data)
        text = data.get("user_data") if isinstance(data, dict) else None
        user = _protocol.parse_data(text)
        self._id = str(user.get("id")) if isinstance(user, dict) else None
        self._is_signed_in = True
        lanes = self._client._dispatcher.lanes
        lanes.pop(self._lane.name, None)
        name = self._lane.name = f"#server-to-user-{self._id}"
        lanes[name] = self._lane
        if not connection.answers.is_open(name):
            connection.send_subscribe(name, None, None)
        self._client._lane.put(Events.SIGNIN_SUCCESS.value, {"user_data": user})
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _on_refused(self, error: ServerError) -> None:
        address = self._client._config.address
        if error.code == _protocol.INVALID_MESSAGE:
            self._fail(
                ProtocolError(
                    f"{address} does not support signing users in: {error}; Laravel Reverb doesn't",
                    code=error.code,
                )
            )
        else:
            self._fail(AuthenticationError(f"{address} refused to sign the user in: {error}", code=error.code))

    def _on_watchlist(self, message: Message) -> None:
        data = _protocol.parse_data(message.data)
        changes = data.get("events") if isinstance(data, dict) else None
        names = {"online": Events.WATCHLIST_ONLINE, "offline": Events.WATCHLIST_OFFLINE}
        for change in changes if isinstance(changes, list) else ():
            ids = change.get("user_ids") if isinstance(change, dict) else None
            if isinstance(ids, list) and change.get("name") in names:
                self._lane.put(names[change["name"]].value, {"user_ids": [str(user_id) for user_id in ids]})

    def _on_lost(self) -> None:
        self._is_signed_in = False
        self._fail(ConnectionError(f"lost the connection to {self._client._config.address} while signing in"))

    def _fail(self, error: ReverbError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # whoever waited may have been cancelled


async def _sign(authenticate: Authenticate, socket_id: str, timeout: float) -> UserAuth:
    try:
        auth: Any = await asyncio.wait_for(authenticate(socket_id), timeout)
        if not isinstance(auth, UserAuth):
            raise TypeError(f"it returned {type(auth).__name__}, not UserAuth")
    except ReverbError:
        raise
    except asyncio.TimeoutError:
        raise TimeoutError(
            f"no answer of the authorizer for the user within {timeout:g} seconds (REVERB_SUBSCRIBE_TIMEOUT)"
        ) from None
    except Exception as error:
        raise AuthenticationError(f"the authorizer failed for the user: {type(error).__name__}") from error
    return auth
