"""Verify and read the webhooks that Pusher and soketi send. Reverb sends none.

::

    webhook = Webhook.parse(await request.read(), request.headers, key=app_key, secret=app_secret)
    for event in webhook.events:
        match event:
            case ChannelOccupied(channel=channel):
                ...
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from ._signatures import hmac_hex, problem_of
from .exceptions import AuthenticationError, ConfigurationError, ProtocolError, ReverbError

__all__ = [
    "CacheMiss",
    "ChannelOccupied",
    "ChannelVacated",
    "ClientEvent",
    "MemberAdded",
    "MemberRemoved",
    "SubscriptionCount",
    "UnknownEvent",
    "Webhook",
    "WebhookEvent",
]


class ChannelOccupied(msgspec.Struct, frozen=True):
    """A channel got its first subscriber."""

    channel: str
    """The channel's name."""


class ChannelVacated(msgspec.Struct, frozen=True):
    """A channel lost its last subscriber."""

    channel: str
    """The channel's name."""


class MemberAdded(msgspec.Struct, frozen=True):
    """A user joined a presence channel."""

    channel: str
    """The channel's name."""
    user_id: str
    """The user's id."""


class MemberRemoved(msgspec.Struct, frozen=True):
    """A user left a presence channel."""

    channel: str
    """The channel's name."""
    user_id: str
    """The user's id."""


class ClientEvent(msgspec.Struct, frozen=True):
    """A client triggered a client event."""

    channel: str
    """The channel's name."""
    event: str
    """The event's name, such as ``client-typing``."""
    data: Any = None
    """The data, as the server sends them. Pusher sends a string with JSON in it, soketi sends the JSON value."""
    socket_id: str | None = None
    """The connection that triggered the event."""
    user_id: str | None = None
    """The id of the user who triggered the event; None unless it is a presence channel."""


class CacheMiss(msgspec.Struct, frozen=True):
    """A client subscribed to a cache channel that has no cached event."""

    channel: str
    """The channel's name."""


class SubscriptionCount(msgspec.Struct, frozen=True):
    """The number of a channel's subscribers changed (Pusher)."""

    channel: str
    """The channel's name."""
    subscription_count: int
    """The present number of subscribers."""


class UnknownEvent(msgspec.Struct, frozen=True):
    """An event of a kind that this module does not know."""

    name: str
    """The event's kind: ``name`` in the JSON."""
    fields: dict[str, Any]
    """All fields of the event's JSON, ``name`` included."""


WebhookEvent = (
    ChannelOccupied
    | ChannelVacated
    | MemberAdded
    | MemberRemoved
    | ClientEvent
    | CacheMiss
    | SubscriptionCount
    | UnknownEvent
)
"""Any of the events that a webhook can hold."""

_TYPES: dict[str, type[Any]] = {
    "channel_occupied": ChannelOccupied,
    "channel_vacated": ChannelVacated,
    "member_added": MemberAdded,
    "member_removed": MemberRemoved,
    "client_event": ClientEvent,
    "cache_miss": CacheMiss,
    "subscription_count": SubscriptionCount,
}


_CLOCK_DIFFERENCE = 60.0
"""Seconds that the sender's clock may be ahead of ours."""


class _Body(msgspec.Struct):
    time_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    events: list[dict[str, Any]]


@dataclass(frozen=True)
class Webhook:
    """A webhook with a valid signature."""

    time: float
    """When the server created the webhook, in seconds since the epoch."""
    events: tuple[WebhookEvent, ...]
    """The events in the webhook, in order."""

    @classmethod
    def parse(
        cls,
        body: bytes | str,
        headers: Mapping[str, str],
        *,
        key: str,
        secret: str,
        max_age: float | None = 600.0,
    ) -> Webhook:
        """Verify a webhook's signature and age, and read its events.

        Args:
            body: The body of the request, unchanged and not parsed.
            headers: The headers of the request. Upper and lower case do not matter.
            key: The application's key.
            secret: The application's secret.
            max_age: Seconds after which a webhook is refused, so that nobody can record one and send it again. The
                default of 600 leaves time for Pusher, which retries for five minutes. A webhook from more than 60
                seconds in the future is refused, too. None accepts webhooks of any time.

        Returns:
            The webhook.

        Raises:
            AuthenticationError: ``X-Pusher-Key`` or ``X-Pusher-Signature`` is missing or not the application's, or
                the webhook is too old.
            ProtocolError: The body is not a webhook of the Pusher protocol.
            ConfigurationError: The key or the secret is empty.
        """
        content = _bytes_of(body)
        refusal = _refusal(content, headers, key, secret)
        del secret  # error reporters send local variables
        if refusal is not None:
            raise refusal
        assert content is not None
        try:
            decoded = _decode(content)
            events = tuple(map(_event, decoded.events))
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"the body is not a webhook of the Pusher protocol: {error}") from None
        seconds = decoded.time_ms / 1000
        age = time.time() - seconds
        if max_age is not None and age < -_CLOCK_DIFFERENCE:
            ahead = f"the webhook is from {-age:.0f} seconds in the future"
            raise AuthenticationError(f"{ahead}: check this machine's clock")
        if max_age is not None and not age <= max_age:
            raise AuthenticationError(f"the webhook is {age:.0f} seconds old; max_age is {max_age:g}")
        return cls(seconds, events)


def _decode(content: bytes) -> _Body:
    try:
        return msgspec.json.decode(content, type=_Body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        from ._lenient_json import decode_lenient  # a client event may hold anything, such as half an emoji

        return msgspec.convert(decode_lenient(content.decode()), _Body)


def _bytes_of(body: object) -> bytes | None:
    """Return a body as bytes; None if it cannot be a request's body."""
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError:  # the bytes were not UTF-8
            return None
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else None


def _refusal(content: bytes | None, headers: Mapping[str, str], key: str, secret: str) -> ReverbError | None:
    """Return why a webhook is refused. It is not raised here, because its traceback would hold the secret."""
    problem = problem_of(key, secret)
    if problem is not None:
        return ConfigurationError(problem)
    if content is None:
        return ProtocolError("pass the body of the request as bytes: not parsed, and not decoded to text")
    # Web frameworks decode bytes that are not UTF-8 to surrogates. Such a header is wrong in any case.
    given = {name.lower(): value.encode(errors="replace") for name, value in headers.items()}
    if not hmac.compare_digest(given.get("x-pusher-key", b""), key.encode()):
        return AuthenticationError("the webhook is not for this application: X-Pusher-Key is not its key")
    if not hmac.compare_digest(given.get("x-pusher-signature", b""), hmac_hex(secret, content).encode()):
        return AuthenticationError(
            "the webhook's X-Pusher-Signature is wrong: the secret is another one, or the body was changed"
        )
    return None


def _event(fields: dict[str, Any]) -> WebhookEvent:
    name = fields.get("name")
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        return UnknownEvent(str(name), fields)
    if isinstance(user_id := fields.get("user_id"), int):
        fields = {**fields, "user_id": str(user_id)}  # the server passes on what the client sent, even a number
    event: WebhookEvent = msgspec.convert(fields, kind)
    return event
