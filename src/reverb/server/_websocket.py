"""A client's WebSocket connection: the first message, and the effect of each message after it."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..exceptions import AuthenticationError
from ._app import RateLimiting
from ._channels import Channels
from ._faults import REFUSALS
from ._frames import CLOSE, PING, PONG, FrameReader, close_frame, error_frame, frame, text_frame
from ._journal import Event
from ._wire import decode, encode, is_blank, php_array, php_string, php_true


class Transport(Protocol):
    """Sends a connection's bytes to its client."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Close the TCP connection after the data that was written."""


class Connection:
    """A connection of a client to a known application. All methods return at once."""

    def __init__(self, channels: Channels, transport: Transport) -> None:
        self.socket_id = f"{1 + secrets.randbelow(10**9)}.{1 + secrets.randbelow(10**9)}"
        """The connection's id, which the server chose."""
        self._app = channels.app
        self._channels = channels
        self._journal = channels.journal
        self._strict = channels.strict
        self._transport = transport
        self._reader = FrameReader(self._app.max_message_size)
        self._limiter = _Limiter(self._app.rate_limiting)
        self._last_seen = time.monotonic()
        self._pinged = False
        self._uses_control_frames = False
        self._ended = False

    @property
    def channels(self) -> list[str]:
        """The names of the channels that the connection is subscribed to."""
        return self._channels.of(self)

    def send(self, encoded: bytes) -> None:
        if not self._ended:
            self._transport.write(encoded)

    def open(self, origin: str, refused: int | None = None) -> None:
        """Send the first message, or refuse the client.

        The reason is the error ``refused``, or the application's settings.

        ``origin`` is the header of that name, or empty.
        """
        limit = self._app.max_connections
        if refused is not None:
            self._refuse(refused)
        elif limit is not None and len(self._channels.subscribers()) >= limit:
            self._refuse(4004)
        elif not _is_allowed(origin, self._app.allowed_origins):
            self._refuse(4009)
        else:
            self._journal.note("connected", self.socket_id)
            self._establish()

    def receive_data(self, data: bytes) -> None:
        for opcode, payload in self._reader.feed(data):
            if self._ended:
                return
            if opcode == CLOSE:
                # The reader also reports a violation as a close frame, which the client gets.
                self.send(frame(CLOSE, payload))
                self.end()
            elif opcode == PING:
                self._touch_by_control_frame()
                self.send(frame(PONG, payload))
            elif opcode == PONG:
                self._touch_by_control_frame()
            else:
                self.receive(payload)

    def receive(self, message: bytes) -> None:
        self._touch()
        if not self._limiter.admits():
            if self._app.rate_limiting.terminate_on_limit:
                self._journal.note("closed: rate limit exceeded", self.socket_id, failed=True)
                self.end()
            else:
                self._error(4301, "Rate limit exceeded")
            return
        try:
            self._handle(decode(message), len(message))
        # Reverb answers so for every failure, and for nesting that is too deep for PHP.
        except (ValueError, RecursionError):
            self._error(4200, "Invalid message format")

    def check_alive(self) -> None:
        """Ping the client if it was silent. Close the connection if it stays silent after a ping."""
        if time.monotonic() - self._last_seen < self._app.ping_interval:
            return
        if self._pinged:
            self._error(4201, "Pong reply not received in time")
            self.close(4201)
            return
        self._pinged = True
        self.send(frame(PING, b"") if self._uses_control_frames else text_frame({"event": "pusher:ping"}))

    def terminate(self) -> None:
        """Close the connection on the application's request."""
        if self._strict:
            self._error(4009, "You got disconnected by the app.")
        self.close(4009)

    def close(self, code: int) -> None:
        """Close the connection. If strict, send a close frame first."""
        if self._strict:
            self.send(close_frame(code, ""))
        self.end()

    def end(self) -> None:
        """Leave all channels, send what is left to send, and close TCP without a close frame."""
        if not self._ended:
            self._ended = True
            self._channels.unsubscribe_from_all(self)
            self._journal.note("disconnected", self.socket_id)
            self._transport.close()

    def _touch(self) -> None:
        self._last_seen = time.monotonic()
        self._pinged = False

    def _touch_by_control_frame(self) -> None:
        self._touch()
        self._uses_control_frames = True

    def _establish(self) -> None:
        data = {"socket_id": self.socket_id, "activity_timeout": self._app.activity_timeout}
        self.send(text_frame({"event": "pusher:connection_established", "data": encode(data)}))

    def _refuse(self, code: int) -> None:
        self._journal.note("connected", self.socket_id)
        self._error(code, REFUSALS.get(code, "Connection refused"))
        # After other errors, Reverb leaves the connection open, and the client can use it.
        if code == 4001 or self._strict:
            self.close(code)

    def _error(self, code: int, message: str) -> None:
        self._journal.note(f"got error {code}: {message}", self.socket_id, failed=True)
        self.send(error_frame(code, message, strict=self._strict))

    def _handle(self, message: Any, size: int) -> None:
        if not isinstance(message, dict):
            raise ValueError("the message is not an object")
        if isinstance(message.get("data"), str):
            with contextlib.suppress(ValueError):
                message["data"] = decode(message["data"])
        event = _required_text(message, "event")
        data = message.get("data")
        if not event.startswith("pusher:"):
            self._handle_client_event(event, message, size)
        elif data and not isinstance(data, dict | list):
            raise ValueError("data is a single value")
        else:
            self._handle_protocol_event(event, data if isinstance(data, dict) else {})

    def _handle_protocol_event(self, event: str, data: Mapping[str, Any]) -> None:
        match event.removeprefix("pusher:"):
            case "connection_established":
                self._establish()
            case "subscribe":
                self._subscribe(_channel_name(data), data)
            case "unsubscribe":
                self._channels.unsubscribe(self, _channel_name(data))
            case "ping":
                pong = {"event": "pusher:pong"}
                self.send(text_frame({**pong, "data": {}} if self._strict else pong))
            case "pong":
                pass
            case _:
                raise ValueError("unknown event")

    def _subscribe(self, name: str, data: Mapping[str, Any]) -> None:
        auth, channel_data = php_string(data.get("auth")), php_string(data.get("channel_data"))
        try:
            self._channels.subscribe(self, name, auth, channel_data)
        except AuthenticationError:
            self._journal.note(f"was refused {name}", self.socket_id, failed=True)
            if self._strict:
                error = {"type": "AuthError", "error": "The connection is unauthorized.", "status": 401}
                self.send(text_frame({"event": "pusher:subscription_error", "channel": name, "data": error}))
            else:
                self.send(error_frame(4009, "Connection is unauthorized"))

    def _handle_client_event(self, event: str, message: dict[str, Any], size: int) -> None:
        name = _required_text(message, "channel")
        data = message.get("data")
        # Laravel's validation treats an empty text as missing.
        if data is not None and not isinstance(data, dict | list) and not is_blank(data):
            raise ValueError("data is a single value")
        if not event.startswith("client-"):
            return
        if self._app.accept_client_events_from == "none":
            self._error(4301, "The app does not have client messaging enabled.")
            return
        channel = self._channels.get(name)
        if self._app.accept_client_events_from == "members":
            if channel is None or self not in channel.members:
                self._error(4009, "The client is not a member of the specified channel.")
                return
            message = {"event": event, "channel": name, "data": data}
            user_id = channel.members[self].get("user_id")
            if php_true(user_id):
                message["user_id"] = user_id
        noted = Event(name, event, data, self.socket_id, message.get("user_id"))
        self._journal.note_event(noted, size)
        self._channels.broadcast(name, php_array(message), except_for=self)


class _Limiter:
    """Counts messages from the first one on, and starts again when the time is over."""

    def __init__(self, limit: RateLimiting) -> None:
        self._limit = limit
        self._attempts = 0
        self._end = 0.0

    def admits(self) -> bool:
        """Count a message; return whether it is within the limit."""
        if not self._limit.enabled:
            return True
        now = time.monotonic()
        if now >= self._end:
            self._attempts, self._end = 0, now + self._limit.decay_seconds
        if self._attempts >= self._limit.max_attempts:
            return False
        self._attempts += 1
        return True


def _channel_name(data: Mapping[str, Any]) -> str:
    if data.get("channel") is None:
        raise ValueError("no channel")
    return php_string(data["channel"])


def _required_text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or is_blank(value):
        raise ValueError(f"{name} is missing")
    return value


def _is_allowed(origin: str, allowed: Sequence[str]) -> bool:
    return "*" in allowed or any(_matches(pattern, _host_of(origin)) for pattern in allowed)


def _host_of(url: str) -> str:
    """Return the host as PHP's ``parse_url`` finds it, or an empty string. A port makes up for a missing
    scheme."""
    begin = re.match(r"([A-Za-z0-9+.-]+:)?//|(?=[^:?#]+:[0-9]{1,5}(/|$))", url)
    if begin is None:
        return ""
    authority = re.split("[/?#]", url[begin.end() :], maxsplit=1)[0].rpartition("@")[2]
    if authority.startswith("[") and authority.endswith("]"):
        return authority
    host, *port = authority.rsplit(":", 1)
    number = "".join(port) or "0"
    return host if re.fullmatch("[0-9]{1,5}", number) and int(number) < 1 << 16 else ""


def _matches(pattern: str, host: str) -> bool:
    """Return whether ``host`` matches ``pattern``, in which ``*`` stands for any text.

    A regular expression with several stars would be very slow for some long hosts.
    """
    start, *parts = pattern.split("*")
    if not parts:
        return host == start
    end = parts.pop()
    if len(host) < len(start) + len(end) or not host.startswith(start) or not host.endswith(end):
        return False
    at, last = len(start), len(host) - len(end)
    for part in parts:
        found = host.find(part, at, last)
        if found < 0:
            return False
        at = found + len(part)
    return True
