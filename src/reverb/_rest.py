"""The HTTP API of the Pusher protocol, without I/O: make requests, and read answers.

Comments name the server that a rule comes from. Reverb means version 1.10, soketi means version 1.6.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, quote_plus, unquote, urlsplit

import msgspec

from ._protocol import DECODE_ERRORS
from ._signatures import sign_request
from .exceptions import APIError, ProtocolError

MAX_CHANNELS = 100
"""Channels that a server accepts in one request (Pusher, soketi)."""
MAX_BATCH = 10
"""Events that a server accepts in one batch (Pusher, soketi)."""
_NAME_CHARACTERS = "_-=@,.;"
"""Characters that Pusher allows in channel names, besides letters and digits. soketi does not decode paths."""
_MAX_ANSWER_SIZE = 16 * 1024 * 1024
"""Bytes that are read of a successful answer. This is enough for several hundred thousand channels."""
_MAX_ERROR_SIZE = 64 * 1024
"""Bytes that are read of an error's answer."""
_MAX_EXCERPT = 200
"""Characters of an answer that an error message quotes."""

_SIGNATURE = re.compile(r"\b[0-9a-f]{64}\b")
"""A signature. Pusher quotes a wrong one in its answer."""

T = TypeVar("T")

_decode_json = msgspec.json.Decoder().decode
_encode_json = msgspec.json.Encoder().encode


class ChannelInfo(msgspec.Struct, frozen=True):
    """Attributes of a channel, as the server reports them.

    An attribute is None if you did not ask for it, or if the server does not report it.
    """

    occupied: bool | None = None
    """Whether the channel has subscribers."""
    subscription_count: int | None = None
    """Number of connections that are subscribed. Reverb does not report it for presence channels."""
    user_count: int | None = None
    """Number of users on a presence channel. A user with several connections counts once."""


@dataclass(frozen=True)
class BatchEvent:
    """An event for :meth:`ReverbAPI.trigger_batch`."""

    channel: str
    """The channel's name."""
    event: str
    """The event's name."""
    data: Any
    """Any JSON value. A string is sent unchanged."""
    socket_id: str | None = None
    """The connection that does not get the event, if any."""
    info: str | None = None
    """Attributes of the channel to return, such as ``"subscription_count"``; see :meth:`ReverbAPI.trigger`."""


@dataclass(frozen=True)
class BatchResult:
    """The result of :meth:`ReverbAPI.trigger_batch`."""

    accepted: int
    """Number of events that the server accepted."""
    infos: list[ChannelInfo]
    """For each accepted event, in order, the attributes that its ``info`` asked for."""


class Request(msgspec.Struct, frozen=True):
    """A request without a signature. ``path`` has no path prefix of the server, and is sent as it is."""

    method: str
    path: str
    query: dict[str, str] = {}
    body: bytes = b""
    is_signed: bool = True

    @property
    def is_read(self) -> bool:
        """Whether the request changes nothing, so that it can be sent again."""
        return self.method == "GET"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Batch(NamedTuple):
    request: Request
    size: int
    """Number of events in the request."""


class Proxy:
    """An HTTP proxy. The part with its password has no repr."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.is_tls else 80)
        self.lines = ""
        """Header lines that only the proxy gets."""
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self.lines = _lines({"Proxy-Authorization": f"Basic {b64encode(login.encode()).decode()}"})

    def tunnel(self, address: str) -> bytes:
        """Return the request for a connection to ``host:port``."""
        place = _ascii(address)
        return f"CONNECT {place} HTTP/1.1\r\n{_lines({'Host': place})}{self.lines}\r\n".encode("ascii")


class Server(msgspec.Struct, frozen=True, dict=True):
    """An application on a server: makes requests to it, and names it in errors."""

    scheme: str
    """``http`` or ``https``."""
    address: str
    """``host:port``"""
    prefix: str
    """The server's path prefix, which each request's path begins with. It is not signed."""
    app_id: str
    key: str
    secret: str
    max_request_size: int
    headers: dict[str, str]
    """Headers of each request, besides ``Host`` and ``Content-Length``."""

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.address}"

    def __repr__(self) -> str:
        return f"<Server {self.origin} {self.app_id!r}>"

    # --- requests ----------------------------------------------------------------------------------------------

    def get(self, path: str, **query: str | None) -> Request:
        """Make a request. Parameters that are None are left out of the query."""
        present = {name: value for name, value in query.items() if value is not None}
        for value in present.values():
            _check_text(value)
        return Request("GET", f"/apps/{self.app_id}{path}", present)

    def post(self, path: str, body: bytes) -> Request:
        return Request("POST", f"/apps/{self.app_id}{path}", body=body)

    def trigger(
        self, channels: Sequence[str], event: str, text: str, socket_id: str | None, info: str | None
    ) -> Request:
        """Make the request that publishes ``text``; raise :class:`ProtocolError` if the server would not accept
        it."""
        if not 0 < len(channels) <= MAX_CHANNELS:
            raise ProtocolError(
                f"{event!r} can be published on 1 to {MAX_CHANNELS} channels at once, not {len(channels)}"
            )
        fields: dict[str, Any] = {"name": event, "channels": channels, "data": text}
        request = self.post("/events", _encode_event(event, fields, socket_id, info))
        self._check_size(request, event, channels[0])
        return request

    def batches(self, events: Iterable[tuple[BatchEvent, str]]) -> Iterator[Batch]:
        """Divide events, each with the text of its data, into requests that the server accepts, in order.

        An event with a ``socket_id`` is sent alone, because Reverb 1.10 answers 500 to a batch with one. Raises
        :class:`ProtocolError` for an event that is too large for a request.
        """
        empty = self.post("/batch_events", b'{"batch":[]}')
        room = self.max_request_size - self.size(empty) - _LENGTH_GROWTH
        batch: list[bytes] = []
        used = 0
        for each, text in events:
            if each.socket_id is not None:
                if batch:
                    yield _batch(empty, batch)
                    batch, used = [], 0
                yield Batch(self.trigger([each.channel], each.event, text, each.socket_id, each.info), 1)
                continue
            fields = {"name": each.event, "channel": each.channel, "data": text}
            encoded = _encode_event(each.event, fields, None, each.info)
            if batch and (len(batch) == MAX_BATCH or used + len(encoded) + 1 > room):
                yield _batch(empty, batch)
                batch, used = [], 0
            if not batch:
                self._check_size(_batch(empty, [encoded]).request, each.event, each.channel)
            batch.append(encoded)
            used += len(encoded) + 1
        if batch:
            yield _batch(empty, batch)

    def target(self, request: Request, timestamp: int) -> str:
        """Return the path and query of a request, signed at ``timestamp`` (seconds since the epoch)."""
        if not request.is_signed:
            return f"{self.prefix}{request.path}"
        query = sign_request(
            self.key, self.secret, request.method, request.path, request.query, request.body, timestamp
        )
        return (
            f"{self.prefix}{request.path}?{'&'.join(f'{name}={_quote(value)}' for name, value in query.items())}"
        )

    def message(self, request: Request, timestamp: int, proxy: Proxy | None = None) -> bytes:
        """Return a whole HTTP/1.1 request, signed at ``timestamp``. With ``proxy``, it is one for that proxy to
        forward."""
        origin, more = ("", "") if proxy is None else (self.origin, proxy.lines)
        length = f"Content-Length: {len(request.body)}\r\n" if request.body else ""
        target = self.target(request, timestamp)
        head = f"{request.method} {origin}{target} HTTP/1.1\r\n{self._lines}{more}{length}\r\n"
        return head.encode("ascii") + request.body

    @cached_property
    def _lines(self) -> str:
        return _lines({"Host": _ascii(self.address), **self.headers})

    def size(self, request: Request) -> int:
        """Return the bytes of a signed request with its headers, as Reverb counts them."""
        return len(self.message(request, 10**9))

    def _check_size(self, request: Request, event: str, channel: str) -> None:
        size = self.size(request)
        if size > self.max_request_size:
            raise ProtocolError(
                f"{event!r} on {channel!r} is too large to publish: {size} bytes with the request's headers, and "
                f"the server accepts {self.max_request_size} (REVERB_MAX_REQUEST_SIZE)"
            )

    # --- answers -----------------------------------------------------------------------------------------------

    def read(
        self, request: Request, status: int, body: bytes, flaw: str | None = None, retry_after: str | None = None
    ) -> Any:
        """Return the JSON of a successful answer; raise :class:`APIError` for an error.

        ``flaw`` says why the body is missing or not complete. ``retry_after`` is the header ``Retry-After``.
        """
        if flaw is not None and 200 <= status < 300:
            what = (
                f"{flaw} (ask with a prefix to get fewer channels)" if request.path.endswith("/channels") else flaw
            )
            raise self._unexpected(request, status, what)
        answer = _parse(body)
        # soketi answers errors with 200, too.
        if isinstance(answer, dict) and "error" in answer and 200 <= status < 300:
            code = answer.get("code")
            status = code if isinstance(code, int) else status
        elif 200 <= status < 300:
            if isinstance(answer, dict):
                return answer
            raise self._unexpected(request, status, _excerpt(body))
        if answer == {} and status == 404 and request.path.endswith("/users"):
            return answer  # Reverb: the channel has no subscribers
        hint = self._hint(request, status)
        reason = flaw if flaw and not body else _reason(answer, body)
        text = f"{self.address} answered {request} with {status}: {reason}"
        raise APIError(status, f"{text}; {hint}" if hint else text, retry_after=_seconds(retry_after))

    def convert(self, request: Request, answer: Any, into: type[T]) -> T:
        """Return a successful answer as an object of the type ``into``."""
        try:
            return msgspec.convert(answer, into)
        except msgspec.ValidationError as error:
            raise self._unexpected(request, 200, f"other JSON than expected ({error})") from None

    def _unexpected(self, request: Request, status: int, what: str) -> APIError:
        return APIError(
            status,
            f"{self.address} answered {request} with {status} and {what}: this is not the answer of a "
            f"Pusher-protocol server; check REVERB_HOST, REVERB_PORT and REVERB_PATH",
        )

    def _hint(self, request: Request, status: int) -> str | None:
        if 300 <= status < 400:
            return "the server redirects; check REVERB_SCHEME, REVERB_HOST and REVERB_PATH"
        if status == 400 and request.path.endswith("/users"):
            return "only presence channels have users"
        if status == 401:
            path = " and REVERB_PATH (old versions of Reverb sign it, too)" if self.prefix else ""
            return f"check REVERB_APP_KEY, REVERB_APP_SECRET, this machine's clock{path}"
        if status == 404:
            return "check REVERB_APP_ID and REVERB_PATH; some servers do not support this request"
        if status == 413:
            return "set REVERB_MAX_REQUEST_SIZE to what the server, or the proxy in front of it, accepts"
        if status == 500 and request.path.endswith("/terminate_connections"):
            return "Reverb 1.10 stops at the first connection without a user, and does not close those after it"
        if status in (502, 503, 504):
            return "the server is starting or overloaded, or the proxy in front of it cannot reach it"
        return None


class Body:
    """The bytes of an answer's body that have arrived, ``most`` bytes at most.

    A compressed body is not unpacked, because a few KB can become GB. Requests do not ask for compression.
    """

    def __init__(self, most: int, encoding: str) -> None:
        is_plain = encoding.strip().lower() in ("", "identity")
        self.flaw = None if is_plain else "a compressed body, which the request did not ask for"
        """Why the body is missing or not complete; None if it is good. Then there is no need to read more of it.
        """
        self._most = most
        self._content = bytearray()

    def take(self, piece: bytes) -> None:
        self._content += piece
        if len(self._content) > self._most:
            del self._content[self._most :]
            self.flaw = f"more than {self._most} bytes"

    @property
    def content(self) -> bytes:
        return bytes(self._content)


def max_answer_size(status: int) -> int:
    """Return how many bytes are read of an answer with this status."""
    return _MAX_ANSWER_SIZE if 200 <= status < 300 else _MAX_ERROR_SIZE


_LENGTH_GROWTH = 10
"""Digits by which ``Content-Length`` may be longer than that of an empty batch."""


def encode_data(event: str, data: Any) -> str:
    """Return the text that an event carries: ``data`` as JSON, or a string unchanged."""
    try:
        if isinstance(data, str):
            data.encode()
            return data
        return _encode_json(data).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"the data of {event!r} cannot be sent as JSON: {error}") from None


def quote_name(name: str) -> str:
    """Encode a channel's name or a user's id for use in a path."""
    if not isinstance(name, str) or not name:
        raise ProtocolError(f"the name of a channel or the id of a user must be a non-empty string, not {name!r}")
    _check_text(name)
    return quote(name, safe=_NAME_CHARACTERS)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ProtocolError(f"text with half of a surrogate pair cannot be sent: {text!r}") from None


# --- successful answers ----------------------------------------------------------------------------------------

_Info = ChannelInfo | list[Any]
"""PHP encodes an empty object as a list."""


class Infos(msgspec.Struct):
    """The answer to a query for channels, to an event published with ``info``, or to a batch of such events."""

    channels: dict[str, _Info] | list[Any] = []
    batch: list[_Info] | dict[str, Any] = []

    def by_channel(self) -> dict[str, ChannelInfo]:
        channels = self.channels
        return {name: _info(each) for name, each in channels.items()} if isinstance(channels, dict) else {}

    def in_order(self, size: int) -> list[ChannelInfo]:
        """Return the attributes for a request of ``size`` events, in order. An event that was sent alone is one
        event."""
        found = [_info(each) for each in self.batch] if isinstance(self.batch, list) else []
        found = found or list(self.by_channel().values())
        return found + [ChannelInfo()] * (size - len(found))


class _User(msgspec.Struct):
    id: str | int


class Users(msgspec.Struct):
    users: list[_User] | dict[str, _User] = []
    """An object instead of a list where Reverb left out a user that is on several nodes: PHP keeps the numbers."""

    def ids(self) -> list[str]:
        users = self.users if isinstance(self.users, list) else self.users.values()
        # Versions of Reverb before 1.10 list a user once for each connection.
        return list(dict.fromkeys(str(user.id) for user in users))


class Connections(msgspec.Struct):
    connections: int


class Health(msgspec.Struct):
    health: str


def _info(info: _Info) -> ChannelInfo:
    return info if isinstance(info, ChannelInfo) else ChannelInfo()


# --- encoding and decoding -------------------------------------------------------------------------------------


def _lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _ascii(address: str) -> str:
    return address if address.isascii() else address.encode("idna").decode()


def _quote(value: str) -> str:
    """Encode a value for use in a query."""
    if value.isalnum() and value.isascii():  # most values are; quote_plus() is slow
        return value
    return quote_plus(value, safe=_NAME_CHARACTERS)


def _encode_event(event: str, fields: dict[str, Any], socket_id: str | None, info: str | None) -> bytes:
    options = {"socket_id": socket_id, "info": info}
    try:
        return _encode_json(fields | {name: value for name, value in options.items() if value is not None})
    except (TypeError, ValueError) as error:  # half a surrogate pair, for example
        raise ProtocolError(f"{event!r} cannot be sent as JSON: {error}") from None


def _batch(empty: Request, encoded: Sequence[bytes]) -> Batch:
    body = b'{"batch":[%b]}' % b",".join(encoded)
    return Batch(Request(empty.method, empty.path, body=body), len(encoded))


def _seconds(retry_after: str | None) -> float | None:
    """Read a header ``Retry-After`` in seconds; return None for a date."""
    if retry_after is None or not re.fullmatch("[0-9]{1,9}", retry_after.strip()):
        return None
    return float(retry_after)


def _parse(body: bytes) -> Any:
    try:
        return _decode_json(body)
    except DECODE_ERRORS:
        pass
    from ._lenient_json import decode_lenient

    try:
        return decode_lenient(body.decode())
    except DECODE_ERRORS:
        return None


def _reason(answer: Any, body: bytes) -> str:
    """Return the message of an error's body as one line."""
    if isinstance(answer, dict):
        reason = answer.get("error") or answer.get("message")
        if isinstance(reason, str):
            return _shorten(reason)
        # Laravel's validation errors: messages by field.
        fields = [f"{name}: {' '.join(map(str, why))}" for name, why in answer.items() if isinstance(why, list)]
        if fields:
            return _shorten("; ".join(fields))
    return _excerpt(body)


def _excerpt(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    if not text:
        return "an empty body"
    return "an HTML page" if text.startswith("<") else _shorten(text)


def _shorten(text: str) -> str:
    text = _SIGNATURE.sub("[signature]", " ".join(text.split()))
    return text if len(text) <= _MAX_EXCERPT else f"{text[:_MAX_EXCERPT]}…"
