"""All exceptions that python-reverb raises.

::

    ReverbError
    ├── ConfigurationError      also a ValueError
    ├── ConnectionError         also the builtin ConnectionError
    ├── AuthenticationError
    ├── SubscriptionError
    ├── ProtocolError
    ├── PayloadError
    ├── TimeoutError            also the builtin TimeoutError
    ├── APIError
    └── BatchError

Two of them have the names of builtins on purpose. ``except TimeoutError`` without an import catches both this
package's and Python's own. ``except reverb.TimeoutError`` catches only this package's. ``from reverb import
TimeoutError`` works, but it hides Python's own in that module, and ``asyncio.timeout()`` raises Python's own.

Messages name the host, the channel, the server's code, or the ``REVERB_…`` variable to check. They never contain a
secret, a token, or a signature. Characters that are not printable appear as escapes, because a message may quote
the server.
"""

from __future__ import annotations

import builtins
from functools import partial
from typing import Any

from ._visible import visible

__all__ = [
    "APIError",
    "AuthenticationError",
    "BatchError",
    "ConfigurationError",
    "ConnectionError",
    "PayloadError",
    "ProtocolError",
    "ReverbError",
    "SubscriptionError",
    "TimeoutError",
]


_MOST = 4_000
"""Maximum length of a message, in characters."""


class ReverbError(Exception):
    """Base class of all exceptions of this package."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(visible(str(message), _MOST))
        self.code = code
        """The server's code: of the Pusher protocol such as 4001, of a WebSocket close frame, or an HTTP status.
        None if the error has no code."""


class ConfigurationError(ReverbError, ValueError):
    """Settings are missing or invalid. The message lists each ``REVERB_…`` variable and its problem."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message, code=code)
        self.args = ("\n".join(visible(line, None) for line in message.split("\n")),)


class ConnectionError(ReverbError, builtins.ConnectionError):
    """There is no connection: the attempt failed, the server refused it, it was lost for good, or the client is
    not connected."""


class AuthenticationError(ReverbError):
    """The authorizer or the server refused a channel or a user, nobody could sign for it, or a webhook has a wrong
    signature.

    If ``is_temporary``, the client tries again by itself, for a channel that was subscribed before. If not, it
    tries again only after the next reconnect.
    """

    def __init__(self, message: str, *, code: int | None = None, is_temporary: bool = False) -> None:
        super().__init__(message, code=code)
        self.is_temporary = is_temporary
        """Whether a later attempt may succeed: the authorizer could not be reached, or it failed."""


class SubscriptionError(ReverbError):
    """A subscription failed for another reason than its signature, or the channel does not allow the operation."""


class ProtocolError(ReverbError):
    """A message breaks the rules of the protocol: one of yours, before the client sends it, or one of the server's
    while connecting."""


class PayloadError(ReverbError):
    """The data of an event does not fit the type that a handler wants. The client did not call that handler.

    It is not raised: handlers of ``"error"`` get it.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path
        """Where in the data the problem is, such as ``$.items[0].quantity``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), path=self.path), (str(self),)


class TimeoutError(ReverbError, builtins.TimeoutError):
    """The server did not answer in time.

    The limits are ``REVERB_CONNECT_TIMEOUT``, ``REVERB_SUBSCRIBE_TIMEOUT``, ``REVERB_PONG_TIMEOUT``,
    ``REVERB_REQUEST_TIMEOUT`` for the HTTP API, and the ``timeout`` of a method.
    """


class APIError(ReverbError):
    """The HTTP API answered with an error."""

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, code=status)
        self.status = status
        """The HTTP status; the same as ``code``."""
        self.retry_after = retry_after
        """Seconds after which the server allows another request. None if it does not say so."""

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), retry_after=self.retry_after), (self.status, str(self))


class BatchError(ReverbError):
    """A list of events could not be published completely.

    ``__cause__`` is the error of the request that failed; that request had the next 10 events at most. **If it is
    a** :class:`TimeoutError` **or a** :class:`ConnectionError`, **the server may have published them.**
    """

    def __init__(self, message: str, *, accepted: int, code: int | None = None) -> None:
        super().__init__(message, code=code)
        self.accepted = accepted
        """How many events the server accepted before the error, counted from the first."""

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), accepted=self.accepted, code=self.code), (str(self),)


def plural(number: float, what: str) -> str:
    """Return a number with its unit, for messages: ``1 second``, ``0.5 seconds``."""
    return f"{number:g} {what}{'s' * (number != 1)}"


def again(error: ReverbError) -> ReverbError:
    """Return a new exception that says the same, with the same cause.

    One object that is raised to several callers would collect the tracebacks of all of them.
    """
    kind = type(error)
    try:
        same = kind.__new__(kind, *error.args)  # without __init__(), which may want other arguments
    except Exception:  # as may its own __new__()
        return error.with_traceback(None)
    same.args = error.args
    same.__dict__.update(error.__dict__)
    if "__notes__" in same.__dict__:
        same.__dict__["__notes__"] = list(same.__dict__["__notes__"])  # a note is added to one of them only
    same.__cause__ = error.__cause__
    same.__suppress_context__ = error.__suppress_context__
    return same
