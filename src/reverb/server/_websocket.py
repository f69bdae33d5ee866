"""One client's WebSocket: what it is told at the beginning, and what each of its messages does."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import WSMsgType, web

from ..exceptions import AuthenticationError
from ._channels import Channels
from ._wire import (
    PING,
    PONG,
    close_frame,
    decode,
    encode,
    error_frame,
    frame,
    php_array,
    php_string,
    php_true,
    text_frame,
)


class Connection:
    """A client of a known application. All of its methods return at once; nothing is awaited between messages."""

    def __init__(self, channels: Channels, transport: asyncio.Transport) -> None:
        self.socket_id = f"{1 + secrets.randbelow(10**9)}.{1 + secrets.randbelow(10**9)}"
        self._app = channels.app
        self._channels = channels
        self._transport = transport
        self._last_seen = time.monotonic()
        self._pinged = False
        self._uses_control_frames = False

    def send(self, encoded: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(encoded)

    def open(self, origin: str | None) -> None:
        """Greet the client. One that is refused gets the error instead, and may go on all the same."""
        limit = self._app.max_connections
        if limit is not None and len(self._channels.subscribers()) >= limit:
            self.send(error_frame(4004, "Application is over connection quota"))
        elif not _is_allowed(origin, self._app.allowed_origins):
            self.send(error_frame(4009, "Origin not allowed"))
        else:
            self._establish()

    def end(self) -> None:
        """Leave all channels, send what is left to send, and end in TCP EOF, without a close frame."""
        self._channels.unsubscribe_from_all(self)
        self._transport.close()

    def close(self, code: int, reason: str) -> None:
        self.send(close_frame(code, reason))
        self.end()

    def receive(self, message: str | bytes) -> None:
        self._touch()
        try:
            self._handle(decode(message))
        except AuthenticationError:
            self.send(error_frame(4009, "Connection is unauthorized"))
        # Whatever fails inside Reverb is answered so, nesting too deep for PHP included.
        except (ValueError, RecursionError):
            self.send(error_frame(4200, "Invalid message format"))

    def receive_ping(self, payload: bytes) -> None:
        self.receive_pong()
        self.send(frame(PONG, payload))

    def receive_pong(self) -> None:
        self._touch()
        self._uses_control_frames = True

    def look(self) -> None:
        """Ping the client if it has been silent, end the connection if it stayed silent after a ping."""
        if time.monotonic() - self._last_seen < self._app.ping_interval:
            return
        if self._pinged:
            self.send(error_frame(4201, "Pong reply not received in time"))
            self.end()
            return
        self._pinged = True
        self.send(frame(PING, b"") if self._uses_control_frames else text_frame({"event": "pusher:ping"}))

    def _touch(self) -> None:
        self._last_seen = time.monotonic()
        self._pinged = False

    def _establish(self) -> None:
        data = {"socket_id": self.socket_id, "activity_timeout": self._app.activity_timeout}
        self.send(text_frame({"event": "pusher:connection_established", "data": encode(data)}))

    def _handle(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise ValueError("the message is not an object")
        if isinstance(message.get("data"), str):
            with contextlib.suppress(ValueError):
                message["data"] = decode(message["data"])
        event = _required_text(message, "event")
        data = message.get("data")
        if not event.startswith("pusher:"):
            self._handle_client_event(event, message)
        elif data and not isinstance(data, dict | list):
            raise ValueError("data is a single value")
        else:
            self._handle_protocol_event(event, data if isinstance(data, dict) else {})

    def _handle_protocol_event(self, event: str, data: Mapping[str, Any]) -> None:
        match event.removeprefix("pusher:"):
            case "connection_established":
                self._establish()
            case "subscribe":
                auth, channel_data = php_string(data.get("auth")), php_string(data.get("channel_data"))
                self._channels.subscribe(self, _channel_name(data), auth, channel_data)
            case "unsubscribe":
                self._channels.unsubscribe(self, _channel_name(data))
            case "ping":
                self.send(text_frame({"event": "pusher:pong"}))
            case "pong":
                pass
            case _:
                raise ValueError("unknown event")

    def _handle_client_event(self, event: str, message: dict[str, Any]) -> None:
        name = _required_text(message, "channel")
        data = message.get("data")
        if data is not None and not isinstance(data, dict | list):
            raise ValueError("data is a single value")
        if not event.startswith("client-"):
            return
        if self._app.accept_client_events_from == "none":
            self.send(error_frame(4301, "The app does not have client messaging enabled."))
            return
        channel = self._channels.get(name)
        if self._app.accept_client_events_from == "members":
            if channel is None or self not in channel.members:
                self.send(error_frame(4009, "The client is not a member of the specified channel."))
                return
            message = {"event": event, "channel": name, "data": data}
            user_id = channel.members[self].get("user_id")
            if php_true(user_id):
                message["user_id"] = user_id
        if channel is not None:
            channel.broadcast(php_array(message), except_for=self)


class _Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, without the close frames that it would send of its own accord."""

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        return False


async def serve(request: web.Request, channels: Channels | None) -> web.StreamResponse:
    """Answer the handshake and serve the client until one side ends the connection.

    ``channels`` are those of the application that the client asked for, None if there is no such application.
    """
    socket = _Socket(compress=False, autoping=False, autoclose=False, max_msg_size=0)
    try:
        await socket.prepare(request)
    except ConnectionResetError:
        return socket  # gone before it was answered
    transport = request.transport
    if transport is None:
        return socket
    if channels is None:
        transport.write(error_frame(4001, "Application does not exist"))
        transport.close()
        return socket
    connection = Connection(channels, transport)
    try:
        connection.open(request.headers.get("Origin"))
        while not transport.is_closing():
            await _receive(socket, connection, channels.app.max_message_size)
    finally:
        connection.end()
    return socket


async def _receive(socket: web.WebSocketResponse, connection: Connection, max_size: int) -> None:
    """Handle one message or control frame."""
    message = await socket.receive()
    match message.type:
        case WSMsgType.TEXT | WSMsgType.BINARY:
            content = message.data.encode() if isinstance(message.data, str) else message.data
            if len(content) > max_size:
                connection.close(1009, "Maximum message size exceeded")
            else:
                connection.receive(content)
        case WSMsgType.PING:
            connection.receive_ping(bytes(message.data))
        case WSMsgType.PONG:
            connection.receive_pong()
        case WSMsgType.CLOSE:
            connection.close(message.data or 1000, message.extra or "")
        case WSMsgType.ERROR:
            connection.close(getattr(message.data, "code", 1002), str(message.data))
        case _:
            connection.end()


def _channel_name(data: Mapping[str, Any]) -> str:
    if data.get("channel") is None:
        raise ValueError("no channel")
    return php_string(data["channel"])


def _required_text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is missing")
    return value


def _is_allowed(origin: str | None, allowed: Sequence[str]) -> bool:
    if "*" in allowed:
        return True
    url = re.match(r"[^:/]+://(\[.*?\]|[^:/?#]+)", origin or "")
    host = url[1] if url else ""
    return any(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), host, re.DOTALL) for pattern in allowed)
