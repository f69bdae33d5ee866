"""Webhooks that Pusher and soketi send: who signed them, and what they say. (Reverb sends none.)

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

from ._signatures import hmac_hex, lack_of
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
    """A channel has its first subscriber."""

    channel: str


class ChannelVacated(msgspec.Struct, frozen=True):
    """A channel has no subscriber any more."""

    channel: str


class MemberAdded(msgspec.Struct, frozen=True):
    """A user has come to a presence channel."""

    channel: str
    user_id: str


class MemberRemoved(msgspec.Struct, frozen=True):
    """A user has left a presence channel."""

    channel: str
    user_id: str


class ClientEvent(msgspec.Struct, frozen=True):
    """A client event was triggered. On presence channels ``user_id`` says by whom."""

    channel: str
    event: str
    data: Any = None
    """As the client sent it: Pusher gives a string that holds JSON, soketi the value."""
    socket_id: str | None = None
    user_id: str | None = None


class CacheMiss(msgspec.Struct, frozen=True):
    """Somebody has subscribed to a cache channel that has no event to show."""

    channel: str


class SubscriptionCount(msgspec.Struct, frozen=True):
    """The number of a channel's subscribers has changed. (Pusher)"""

    channel: str
    subscription_count: int


class UnknownEvent(msgspec.Struct, frozen=True):
    """Something that this module doesn't know; ``fields`` are those of the JSON."""

    name: str
    fields: dict[str, Any]


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
"""Seconds that the clock of who sent a webhook may be ahead of ours."""


class _Body(msgspec.Struct):
    time_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    events: list[dict[str, Any]]


@dataclass(frozen=True)
class Webhook:
    """A webhook whose signature is right."""

    time: float
    """When the server made it, in seconds since the epoch."""
    events: tuple[WebhookEvent, ...]

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
        """Verify a webhook and read it.

        ``body`` is the request's, untouched; ``headers`` are the request's, in whatever case; ``key`` and
        ``secret`` are the application's. ``max_age`` is in seconds: a webhook that is older is refused as one that
        somebody has recorded and sends again, and so is one from the future. The default leaves room for Pusher,
        which tries for five minutes to get rid of one. None takes webhooks of any time.

        Raises :class:`AuthenticationError` where ``X-Pusher-Key`` or ``X-Pusher-Signature`` are missing or not
        those of the application, or for age; :class:`ProtocolError` where the body means nothing; and
        :class:`ConfigurationError` for an empty key or secret.
        """
        content = _bytes_of(body)
        refusal = _refusal(content, headers, key, secret)
        del secret  # error reporters send the locals of frames
        if refusal is not None:
            raise refusal
        assert content is not None
        try:
            decoded = _decode(content)
            events = tuple(map(_event, decoded.events))
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"the webhook's body is not one of the Pusher protocol: {error}") from None
        seconds = decoded.time_ms / 1000
        age = time.time() - seconds
        if max_age is not None and age < -_CLOCK_DIFFERENCE:
            ahead = f"the webhook is from {-age:.0f} seconds in the future"
            raise AuthenticationError(f"{ahead}: is this machine's clock right?")
        if max_age is not None and not age <= max_age:
            raise AuthenticationError(f"the webhook is {age:.0f} seconds old, and {max_age:g} are allowed")
        return cls(seconds, events)


def _decode(content: bytes) -> _Body:
    try:
        return msgspec.json.decode(content, type=_Body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        from ._lenient_json import (
            decode_lenient,  # a client event may have anything in it, half an emoji for instance
        )

        return msgspec.convert(decode_lenient(content.decode()), _Body)


def _bytes_of(body: object) -> bytes | None:
    """Return a body as it was sent; None for what can't have been."""
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError:  # of bytes that are not UTF-8
            return None
    return bytes(body) if isinstance(body, bytes | bytearray | memoryview) else None


def _refusal(content: bytes | None, headers: Mapping[str, str], key: str, secret: str) -> ReverbError | None:
    """Why a webhook is not believed. Returned, not raised: the secret is not to be in the frames of an error."""
    lack = lack_of(key, secret)
    if lack is not None:
        return ConfigurationError(lack)
    if content is None:
        return ProtocolError("the webhook's body must be the request's own, as bytes: not parsed, and not as text")
    # Web frameworks make surrogates of bytes that are not UTF-8; those are wrong in any case.
    given = {name.lower(): value.encode(errors="replace") for name, value in headers.items()}
    if not hmac.compare_digest(given.get("x-pusher-key", b""), key.encode()):
        return AuthenticationError("the webhook is not for this application: X-Pusher-Key is another key")
    if not hmac.compare_digest(given.get("x-pusher-signature", b""), hmac_hex(secret, content).encode()):
        return AuthenticationError(
            "the webhook's X-Pusher-Signature is wrong: another secret, or a body that is not as it was sent"
        )
    return None


def _event(fields: dict[str, Any]) -> WebhookEvent:
    name = fields.get("name")
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        return UnknownEvent(str(name), fields)
    if isinstance(user_id := fields.get("user_id"), int):
        fields = {**fields, "user_id": str(user_id)}  # as the client has sent it
    event: WebhookEvent = msgspec.convert(fields, kind)
    return event
