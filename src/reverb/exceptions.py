"""Everything that python-reverb raises.

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

The builtins' names are meant: ``except TimeoutError`` without an import catches ours and Python's own, and
``except reverb.TimeoutError`` catches ours alone. ``from reverb import TimeoutError`` works, but hides Python's
own in that module, ``asyncio.timeout()``'s included.

Messages name the host, the channel, the server's code, or the ``REVERB_…`` variable to look at; they never hold a
secret, a token, or a signature. Characters that are not printable stand as escapes in them, as what a
server says may be part of a message.
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
"""Characters of a message."""


class ReverbError(Exception):
    """Base of all errors raised by this package.

    ``code`` is the server's error code (a Pusher protocol code such as 4001, a WebSocket close code, or an HTTP
    status), or None where the error does not stem from a code.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(visible(str(message), _MOST))
        self.code = code


class ConfigurationError(ReverbError, ValueError):
    """Settings are missing or invalid; the message lists each ``REVERB_…`` variable and what it lacks."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message, code=code)
        self.args = ("\n".join(visible(line, None) for line in message.split("\n")),)


class ConnectionError(ReverbError, builtins.ConnectionError):
    """The connection could not be made, was refused, was lost for good, or is not there when it is needed."""


class AuthenticationError(ReverbError):
    """A private or presence channel was refused or could not be signed for; or a webhook is not who it claims.

    ``is_temporary`` tells that it may go better in a moment: whoever signs could not be asked, or failed. A
    channel that was subscribed before is then tried again; else not before the next reconnect.
    """

    def __init__(self, message: str, *, code: int | None = None, is_temporary: bool = False) -> None:
        super().__init__(message, code=code)
        self.is_temporary = is_temporary


class SubscriptionError(ReverbError):
    """A subscription failed for another reason than its signature, or the channel does not allow the operation."""


class ProtocolError(ReverbError):
    """A message that the protocol does not allow: ours before sending it, or the server's in the handshake."""


class PayloadError(ReverbError):
    """The data of an event does not fit the type that a handler wants; it was not called.

    Reported to the handlers of ``"error"``. ``path`` says where in the data, such as ``$.items[0].quantity``.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), path=self.path), (str(self),)


class TimeoutError(ReverbError, builtins.TimeoutError):
    """The server did not answer in the time set by ``REVERB_CONNECT_TIMEOUT``, ``REVERB_SUBSCRIBE_TIMEOUT``, or
    ``REVERB_REQUEST_TIMEOUT`` for the HTTP API."""


class APIError(ReverbError):
    """The HTTP API answered with an error. ``status``, which is also the ``code``, is its HTTP status.

    ``retry_after`` is the number of seconds after which the server wants to be asked again, if it says so.
    """

    def __init__(self, status: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, code=status)
        self.status = status
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), retry_after=self.retry_after), (self.status, str(self))


class BatchError(ReverbError):
    """A list of events could not be published to its end.

    ``accepted`` is the number of events that the server has accepted until then, counted from the first;
    ``__cause__`` is the error of the request that failed, which held the next 10 at most. Where that is a
    :class:`TimeoutError` or a :class:`ConnectionError`, those may have been published all the same.
    """

    def __init__(self, message: str, *, accepted: int, code: int | None = None) -> None:
        super().__init__(message, code=code)
        self.accepted = accepted

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), accepted=self.accepted, code=self.code), (str(self),)


def plural(number: float, what: str) -> str:
    """Say how many, in a message: ``1 second``, ``0.5 seconds``."""
    return f"{number:g} {what}{'s' * (number != 1)}"


def again(error: ReverbError) -> ReverbError:
    """Return a new exception that says the same, with the same cause.

    What is kept, to be raised to each one who asks, would otherwise gather the traceback of all of them.
    """
    kind = type(error)
    try:
        same = kind.__new__(kind, *error.args)  # without __init__(), which may want other arguments
    except Exception:  # as may its own __new__()
        return error.with_traceback(None)
    same.args = error.args
    same.__dict__.update(error.__dict__)
    if "__notes__" in same.__dict__:
        same.__dict__["__notes__"] = list(same.__dict__["__notes__"])  # what is added to it is for one of them
    same.__cause__ = error.__cause__
    same.__suppress_context__ = error.__suppress_context__
    return same
