"""The Pusher protocol as Laravel Reverb speaks it: encodes and decodes messages, and has the rules.

Pure: no I/O, no clock, no logging. Each rule names its reason. Where Reverb and the Pusher documentation differ,
this follows Reverb (as seen on 1.10), and soketi where that differs again.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, NamedTuple, TypeGuard

import msgspec

from ._visible import visible
from .exceptions import ProtocolError, SubscriptionError

PROTOCOL_VERSION = 7
MAX_INCOMING_SIZE = 16 * 1024 * 1024
"""Largest message that is accepted from a server, in bytes."""

CLIENT_EVENT_PREFIX = "client-"
PROTOCOL_PREFIXES = ("pusher:", "pusher_internal:", "reverb:")
"""Events with these prefixes are about the connection and its channels. No application sends them."""


class Message(msgspec.Struct, gc=False):
    """One message from the server.

    ``data`` is the value in the JSON. Usually it is a string that contains JSON again (everything that is
    published over the HTTP API). It can be a value (client events), or None, also if it is absent (pings, cache
    misses). ``user_id`` is the sender of a client event on a presence channel, with the JSON type that the sender
    used.
    """

    event: str
    channel: str | None = None
    data: Any = None
    user_id: str | int | None = None


decode_unchecked = msgspec.json.Decoder(Message).decode
"""Like :func:`decode`, but raises DECODE_ERRORS."""
DECODE_ERRORS = (ValueError, RecursionError)
"""The errors of a decoder. A UnicodeDecodeError is a ValueError, and so are msgspec's own errors; deep nesting
is a RecursionError."""
decode_json = msgspec.json.Decoder().decode
check_json = msgspec.json.Decoder(msgspec.Raw).decode
"""Raises one of DECODE_ERRORS if a text is not JSON. It makes no objects, and so takes a quarter of the time."""
_encode_json = msgspec.json.Encoder().encode
_JSON_START = re.compile(r'[{\["]|-?[0-9]')
"""The beginnings of JSON that msgspec may refuse and ``_lenient_json`` reads."""


def decode(payload: bytes | bytearray) -> Message:
    """Decode one complete message; raise :class:`ProtocolError` if it is not one."""
    try:
        return decode_unchecked(payload)
    except DECODE_ERRORS as error:
        from ._lenient_json import decode_lenient

        try:
            return msgspec.convert(decode_lenient(payload.decode()), Message)
        except DECODE_ERRORS:
            raise ProtocolError(f"the server sent something that is not a message: {error}") from None


def parse_data(data: Any) -> Any:
    """Return the meaning of a message's ``data``: parsed if it is a JSON string, else unchanged."""
    if type(data) is str:
        try:
            return decode_json(data)
        except DECODE_ERRORS:
            return _parse_lenient(data)
    return data


def _parse_lenient(text: str) -> Any:
    if not _JSON_START.match(text.lstrip()):
        return text
    from ._lenient_json import decode_lenient

    try:
        return decode_lenient(text)
    except DECODE_ERRORS:
        return text


def encode(event: str, data: Any = msgspec.UNSET) -> bytes:
    """Encode a message of the protocol, such as ``pusher:ping``."""
    return _encode_json({"event": event} if data is msgspec.UNSET else {"event": event, "data": data})


PING = encode("pusher:ping")
PONG = encode("pusher:pong")


def encode_subscribe(channel: str, auth: str | None = None, channel_data: str | None = None) -> bytes:
    data = {"channel": channel}
    if auth is not None:
        data["auth"] = auth
    if channel_data is not None:
        data["channel_data"] = channel_data
    return encode("pusher:subscribe", data)


def encode_unsubscribe(channel: str) -> bytes:
    return encode("pusher:unsubscribe", {"channel": channel})


class _ClientEvent(msgspec.Struct, gc=False):
    event: str
    channel: str
    data: Any


def encode_client_event(event: str, channel: str, data: Any) -> bytes:
    """Encode a client event. Adds the prefix ``client-`` if it is missing.

    Raises :class:`ProtocolError` for data that Reverb refuses with 4200: anything but an object, a list, or null.
    """
    if not event:
        raise ProtocolError(f"a client event on {channel!r} needs a name")
    if not event.startswith(CLIENT_EVENT_PREFIX):
        event = CLIENT_EVENT_PREFIX + event
    try:
        payload = _encode_json(_ClientEvent(event, channel, data))
        # Only the JSON shows whether other types, such as a dataclass, become an object or a list.
        is_single_value = type(data) is not dict and _encode_json(data)[0] not in b"{[n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"the data of {event!r} on {channel!r} cannot be sent as JSON: {error}") from None
    if is_single_value:
        raise ProtocolError(
            f"the data of {event!r} on {channel!r} must be an object, a list, or None, "
            f"not {type(data).__name__}: servers refuse single values in client events"
        )
    return payload


def encode_channel_data(channel: str, user_data: Any) -> str:
    """Return the JSON text that names the user on a presence channel: ``user_id`` is a string, ``user_info`` is
    present.

    Without ``user_info``, Reverb answers 4200 to this user and to everyone who joins later.
    """
    usage = f'{channel!r} is a presence channel: pass user_data={{"user_id": "…", "user_info": {{…}}}}'
    if not isinstance(user_data, dict):
        raise SubscriptionError(usage)
    unknown = user_data.keys() - {"user_id", "user_info"}
    if unknown:
        raise SubscriptionError(f"{usage}; unknown keys: {', '.join(sorted(map(repr, unknown)))}")
    user_id = user_data.get("user_id")
    if isinstance(user_id, bool) or not isinstance(user_id, str | int) or user_id == "":
        raise SubscriptionError(f"{usage}; user_id must be a string or an integer, not {user_id!r}")
    info = user_data.get("user_info")
    if not isinstance(info, dict | None):
        raise SubscriptionError(f"{usage}; user_info must be a dict, not {type(info).__name__}")
    try:
        return _encode_json({"user_id": str(user_id), "user_info": info or {}}).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SubscriptionError(f"the user_info for {channel!r} cannot be sent as JSON: {error}") from None


def encode_user_data(user_data: Any) -> str:
    """Return the JSON text that names the user of a connection: ``id`` is a string that is not empty."""
    user_id = user_data.get("id") if isinstance(user_data, dict) else None
    if isinstance(user_id, bool) or not isinstance(user_id, str | int) or user_id == "":
        raise ProtocolError('user_data must be {"id": "…"}, optionally with user_info and watchlist')
    try:
        return _encode_json({**user_data, "id": str(user_id)}).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"the user_data cannot be sent as JSON: {error}") from None


SIGNIN = "pusher:signin"
"""A sign-in is answered like a subscribe. It counts as a subscribe to a channel with this name."""


def encode_signin(auth: str, user_data: str) -> bytes:
    return encode(SIGNIN, {"auth": auth, "user_data": user_data})


def describe(payload: bytes) -> str:
    """Describe a message of ours by its event and channel, without its data."""
    message = decode_json(payload)
    channel = message.get("channel") or (message.get("data") or {}).get("channel")
    return f"{message['event']!r}" + (f" on {channel!r}" if channel else "")


# --- names -----------------------------------------------------------------------------------------------------

_SOCKET_ID = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}")
_UNSIGNABLE = re.compile("[:\x00-\x1f\x7f\ud800-\udfff]")


def is_socket_id(value: object) -> TypeGuard[str]:
    """Return whether this is the id of a connection: digits, a dot, digits.

    The text that is signed begins with it. If any text were accepted, a server could choose what is signed: a
    request to the HTTP API, for example, or a subscription to another channel.
    """
    return isinstance(value, str) and _SOCKET_ID.fullmatch(value) is not None


def is_signable(channel: object) -> bool:
    """Return whether a channel with this name can be signed for.

    Servers accept more names than the Pusher protocol allows. But the parts of a signed text are separated by
    colons: with a colon in the name, the signature could be valid for something else, a user for example.
    """
    return isinstance(channel, str) and channel != "" and _UNSIGNABLE.search(channel) is None


def is_presence(channel: str) -> bool:
    """Return whether this is a presence channel. Reverb compares without the dash, so ``presenceX`` is one,
    too."""
    return channel.startswith("presence")


def needs_auth(channel: str) -> bool:
    """Return whether a subscribe needs a signature. Reverb compares without the dash, so ``privateX`` does,
    too."""
    return channel.startswith(("private", "presence"))


def is_encrypted(channel: str) -> bool:
    return channel.startswith("private-encrypted-")


# --- presence --------------------------------------------------------------------------------------------------


def parse_user_info(info: Any) -> dict[str, Any]:
    """Return a member's ``user_info`` as a dict, whatever PHP has made of it.

    PHP sends an empty object as ``[]``, and an object with the keys 0, 1, 2… as a list. A member without info has
    ``{}``. A single value, which only other clients can send, becomes the value of the key ``"value"``.
    """
    if isinstance(info, dict):
        return info
    if info is None:
        return {}
    if isinstance(info, list):
        return {str(index): value for index, value in enumerate(info)}
    return {"value": info}


def parse_members(data: Any) -> dict[str, dict[str, Any]]:
    """Read the members from the data of a presence channel's ``subscription_succeeded``.

    ``ids`` has strings and integers, ``hash`` has their infos: an object, or a list if PHP saw the ids 0, 1, 2….
    soketi leaves members without info out of ``hash``.
    """
    presence = data.get("presence") if isinstance(data, dict) else None
    if not isinstance(presence, dict):
        return {}
    infos = presence.get("hash")
    if isinstance(infos, list):
        infos = {str(index): info for index, info in enumerate(infos)}
    elif not isinstance(infos, dict):
        infos = {}
    ids = presence.get("ids")
    names = [str(user_id) for user_id in ids if user_id is not None] if isinstance(ids, list) else list(infos)
    return {name: parse_user_info(infos.get(name)) for name in names}


# --- errors ----------------------------------------------------------------------------------------------------

UNAUTHORIZED = 4009
INVALID_MESSAGE = 4200


class ServerError(NamedTuple):
    """The content of a ``pusher:error`` or a ``pusher:subscription_error``."""

    code: int | None
    message: str

    def __str__(self) -> str:
        message = visible(self.message)
        return message if self.code is None else f"{message} ({self.code})"


def parse_error(data: Any) -> ServerError:
    """Read the parsed data of an error.

    Reverb's ``pusher:error`` has ``code`` and ``message``; soketi's ``pusher:subscription_error`` has ``status``
    and ``error``.
    """
    if not isinstance(data, dict):
        return ServerError(None, str(data))
    code = data.get("code", data.get("status"))
    message = data.get("message") or data.get("error") or "no reason given"
    return ServerError(code if isinstance(code, int) else None, str(message))


def is_rate_limit(code: int | None, message: str) -> bool:
    """Return whether too many messages were sent. Reverb has 4301 for that, and for client events that are not
    enabled."""
    return code == 4301 and "rate limit" in message.lower()


def is_auth_refusal(error: ServerError) -> bool:
    """Return whether a subscription was refused because of its signature.

    Reverb: 4009 with this text (4009 has two other meanings). soketi and Pusher: an HTTP status.
    """
    return error.code in (401, 403) or (error.code == UNAUTHORIZED and "unauthorized" in error.message.lower())


class Action(Enum):
    """What to do after a connection attempt failed or a connection was lost."""

    FAIL = "fail"
    BACK_OFF = "back off"
    RETRY_NOW = "retry now"


OVER_QUOTA = 4004


def action_after(
    error_code: int | None, close_code: int | None, *, established: bool, is_first: bool = False
) -> Action:
    """Decide what to do after a connection attempt failed (``established`` is false) or a connection was lost.

    ``error_code`` is the code of a ``pusher:error`` that came instead of ``pusher:connection_established``, or of
    the last error before the end, or the HTTP status of a handshake that was refused. ``close_code`` is the code
    of a close frame. Each is None if there was none. ``is_first`` says that there was no connection before.

    The Pusher protocol has classes of codes: 4000-4099 must not reconnect unchanged, 4100-4199 reconnect after
    backing off, 4200-4299 reconnect at once. Everything else backs off: codes of RFC 6455, an end without a close
    frame, timeouts, failures of DNS, TLS or TCP, HTTP statuses. So does 4004, over quota, unless it comes first:
    the server may not have noticed the end of our last connection yet, and still count it.

    Reverb never sends close codes of these classes, it sends errors. An error instead of
    ``pusher:connection_established`` counts like a close code. On an established connection, an error 40xx is
    about a message of ours (a refused subscribe); if the stream happens to end after it, that says nothing about
    the application. 41xx and 42xx are about the connection (4201 comes before a silent client is disconnected).
    """
    code = error_code if close_code is None else close_code
    if code is None or (code == OVER_QUOTA and not is_first):
        return Action.BACK_OFF
    if 4000 <= code < 4100:
        return Action.FAIL if close_code is not None or not established else Action.BACK_OFF
    return Action.RETRY_NOW if 4200 <= code < 4300 else Action.BACK_OFF
