"""HTTP on the server: reads requests and writes answers as Reverb does, and has Reverb's HTTP API. Does no I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from itertools import takewhile
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

from .._signatures import hmac_hex
from ._channels import Channels
from ._wire import decode, is_blank, php_encode, php_key, php_list, php_string

_KEY_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""The constant of RFC 6455 that the answer to a handshake's key is made with."""
_UNSIGNED: Final = ("auth_signature", "body_md5", "appId", "appKey", "channelName")
"""Parameters that Reverb leaves out when it checks a signature."""


class RequestError(Exception):
    """An error to answer a request with. Without a text, it is a request that makes Reverb fail."""

    def __init__(self, status: int, text: str = "Internal server error.", **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers

    def answer(self) -> bytes:
        # Python has another name for this status.
        phrases = {413: "Request Entity Too Large"}
        phrase = phrases.get(self.status) or HTTPStatus(self.status).phrase
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, "", self.text]).encode()


@dataclass(frozen=True)
class Request:
    """A complete request. ``target`` is as the client sent it, ``version`` is that of HTTP.

    ``headers`` have lower-case names. Their values are in the order in which they came.
    """

    method: str
    target: str
    version: str
    headers: Mapping[str, Sequence[str]]
    body: bytes

    @property
    def raw_path(self) -> str:
        """The path as the client sent it. Reverb takes several slashes at its beginning for one."""
        return "/" + self._uri.partition("?")[0].lstrip("/")

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, str | list[str]]:
        return _parse_query(self._uri.partition("?")[2])

    @property
    def _uri(self) -> str:
        return self.target.partition("#")[0]


def _parse_query(text: str) -> dict[str, str | list[str]]:
    """Read a query as PHP's ``parse_str`` does: ``a[]=1&a[]=2`` is a list, and of several values the last one
    counts.

    Raises RequestError for lists in lists, with which Reverb fails.
    """
    query: dict[str, str | dict[str, str | None]] = {}
    for part in text.split("&"):
        name, value = (unquote_plus(each, errors="surrogateescape") for each in part.partition("=")[::2])
        match = re.match(r"([^\[]+)(?:\[([^\]]*)\])?(.*)", name.lstrip(" "), re.DOTALL)
        if match is None:
            continue
        base, key, rest = match.groups()
        base = re.sub(r"[ .]", "_", base)
        if key is None:
            query[base + re.sub(r"[ .\[]", "_", rest)] = value
            continue
        items = query.get(base)
        if not isinstance(items, dict):
            items = query[base] = {}
        items[key or str(len(items))] = None if re.match(r"\[.*\]", rest, re.DOTALL) else value
    read: dict[str, str | list[str]] = {}
    for name, found in query.items():
        values = found.values() if isinstance(found, dict) else (found,)
        texts = [each for each in values if each is not None]
        if len(texts) < len(values):
            raise RequestError(500)
        read[name] = texts if isinstance(found, dict) else texts[0]
    return read


class RequestReader:
    """Reads a request from the bytes that a client sends.

    ``max_size`` is the limit for its head and body together in bytes: Reverb's ``max_request_size``.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._received = bytearray()
        self._head: _Head | None = None
        self._body_at = 0

    @property
    def has_begun(self) -> bool:
        """Whether the client has sent anything."""
        return bool(self._received)

    def feed(self, data: bytes) -> Request | None:
        """Return the request once it is complete; raise RequestError if it is malformed or refused.

        As in Reverb, data after the head of a request without a length is its body. So frames that come before the
        answer to the handshake are lost.
        """
        searched = max(len(self._received) - 3, 0)
        self._received += data
        if self._head is None:
            end = self._received.find(b"\r\n\r\n", searched)
            if end < 0:
                self._check_size(len(self._received))
                return None
            self._check_size(end)
            self._head, self._body_at = _parse_head(self._received[:end].decode("latin-1")), end + 4
        # Reverb compares the announced length with the size of head and body together, so it may accept part of a
        # body. This bug is not copied, because its effect would depend on chance.
        length = self._head.content_length
        self._check_size(max(len(self._received), self._body_at + (length or 0)))
        body = self._received[self._body_at :]
        if length is not None and len(body) < length:
            return None
        head = self._head
        return Request(head.method, head.target, head.version, head.headers, bytes(body[:length]))

    def _check_size(self, size: int) -> None:
        if size > self._max_size:
            raise RequestError(413, "Payload too large.")


@dataclass(frozen=True)
class _Head:
    method: str
    target: str
    version: str
    headers: Mapping[str, Sequence[str]]
    content_length: int | None


def _parse_head(text: str) -> _Head:
    first, *lines = text.split("\r\n")
    # For Reverb, a target ends at its first space.
    match = re.fullmatch(r"(\S+) (\S+)(?: .*)? HTTP/(1\.[01])", first)
    if match is None:
        raise RequestError(400, "Bad request.")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip(" \t").lower(), []).append(value.strip(" \t"))
    if "transfer-encoding" in headers:
        raise RequestError(501, "Transfer-Encoding is not supported, send a Content-Length.")
    return _Head(
        match[1].upper(), match[2], match[3], headers, _content_length(set(headers.get("content-length", ())))
    )


def _content_length(values: set[str]) -> int | None:
    """Return the length of a body as RFC 9112 defines it: ASCII digits, and the same value if there are
    several."""
    if not values:
        return None
    value, *others = values
    if others or re.fullmatch("[0-9]+", value) is None:
        raise RequestError(400, "Bad request.")
    # Python refuses to convert thousands of digits to a number.
    return int(value) if len(value) <= 18 else int("9" * 18)


def wants_upgrade(request: Request) -> bool:
    first, *_ = request.headers.get("upgrade", [""])
    return first not in ("", "0")


def upgrade(request: Request) -> bytes:
    """Return the answer to a handshake. Reverb may answer with a refusal, and continues as if it had accepted."""
    lines = _answer_handshake(request)
    return "\r\n".join([f"HTTP/1.1 {lines[0]}", *lines[1:], "X-Powered-By: Laravel Reverb", "", ""]).encode()


def _answer_handshake(request: Request) -> list[str]:
    """Return the status and the headers.

    Reverb's library (Ratchet) makes the same checks, in this order and with these texts. It negotiates nothing.
    """

    def values(name: str) -> Sequence[str]:
        return request.headers.get(name, ())

    supported = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    if request.method != "GET":
        return ["405 Method Not Allowed", "Allow: GET"]
    if request.version != "1.1":
        return ["505 HTTP Version not supported"]
    if len(values("host")) != 1:
        return ["400 Bad Request"]
    if [value.lower() for value in values("upgrade")] != ["websocket"]:
        return ["426 Upgrade header MUST be provided", *supported]
    if "upgrade" not in [each.strip().lower() for value in values("connection") for each in value.split(",")]:
        return ["400 Connection Upgrade MUST be requested"]
    key = "".join(values("sec-websocket-key"))
    # 16 bytes in base64, as PHP decodes it: it ignores other characters.
    if len(values("sec-websocket-key")) != 1 or len(re.findall("[A-Za-z0-9+/]", key)) != 22:
        return ["400 Invalid Sec-WebSocket-Key"]
    if values("sec-websocket-version") != ["13"]:
        return ["426 Upgrade Required", *supported]
    digest = hashlib.sha1(key.encode("latin-1") + _KEY_SUFFIX, usedforsecurity=False).digest()
    accept = f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}"
    return ["101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", accept]


@dataclass(frozen=True)
class Call:
    """A signed request to an application; ``params`` are the parameters in its path."""

    channels: Channels
    params: Mapping[str, str]
    query: Mapping[str, str | list[str]]
    body: bytes

    def option(self, name: str) -> str:
        """Return a parameter of the query, or an empty string. Reverb fails if it is a list."""
        value = self.query.get(name, "")
        if not isinstance(value, str):
            raise RequestError(500)
        return value

    def fields(self) -> dict[str, Any]:
        """Return the body's JSON object."""
        try:
            fields = decode(self.body)
        except ValueError:
            raise RequestError(500) from None
        if not isinstance(fields, dict | list):
            raise RequestError(500)
        return fields if isinstance(fields, dict) else {}


def answer_call(request: Request, channels: Mapping[str, Channels], prefix: str) -> bytes:
    """Answer a request to the API; raise RequestError if it is refused.

    ``channels`` are the channels of each application, by its id. ``prefix`` is the server's path prefix, which is
    not signed.
    """
    path = request.path.removeprefix(prefix) if request.path.startswith(prefix) else ""
    # HEAD gets the answer of GET, with its body.
    wanted = "GET" if request.method == "HEAD" else request.method
    if path == "/up" and wanted == "GET":
        return _json({"health": "OK"})
    allowed = []
    for method, pattern, answer in _ROUTES:
        match = re.fullmatch(f"/apps/(?P<app_id>[^/]+){pattern}", path)
        if match is not None and method == wanted:
            return answer(_check(request, match.groupdict(), channels, prefix))
        if match is not None:
            allowed.append(method)
    if path == "/up":
        allowed.append("GET")
    if allowed:
        raise RequestError(405, "Method not allowed.", Allow=", ".join(allowed))
    raise RequestError(404, "Not found.")


def _check(request: Request, params: Mapping[str, str], channels: Mapping[str, Channels], prefix: str) -> Call:
    """Return the call that a request makes; raise RequestError for an unknown application or a wrong signature."""
    app_id = params["app_id"]
    if app_id not in channels:
        raise RequestError(404, f"No matching application for ID [{app_id}].")
    query = request.query
    given = query.get("auth_signature")
    signed = {name: value for name, value in query.items() if name not in _UNSIGNED}
    if request.body:
        signed["body_md5"] = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
    path = request.raw_path.removeprefix(prefix)
    texts = {name: value if isinstance(value, str) else ",".join(value) for name, value in signed.items()}
    parameters = "&".join(f"{name}={texts[name]}" for name in sorted(texts))
    # Reverb checks neither the key nor the timestamp.
    text = f"{request.method}\n{path}\n{parameters}".encode(errors="surrogateescape")
    right = hmac_hex(channels[app_id].app.secret, text)
    if not isinstance(given, str) or not hmac.compare_digest(right.encode(), given.encode(errors="replace")):
        raise RequestError(401, "Authentication signature invalid.")
    return Call(channels[app_id], params, query, request.body)


def publish(call: Call) -> bytes:
    fields = call.fields()
    errors = _Errors()
    errors.check_text(fields, "name", required="is required")
    errors.check_text(fields, "data", required="is required")
    no_channel, no_channels = (_is_missing(fields.get(name)) for name in ("channel", "channels"))
    why = "is required when channel is not present" if no_channel else None
    errors.check_array(fields, "channels", required=why)
    why = "is required when channels is not present" if no_channels else None
    errors.check_text(fields, "channel", required=why)
    errors.check_text(fields, "socket_id")
    errors.check_text(fields, "info")
    if errors.found:
        return _json(errors.found, 422)
    wanted = fields["channels"] if "channels" in fields else [fields["channel"]]
    channels = list(_items(wanted).values()) if isinstance(wanted, dict | list) else [wanted]
    # Reverb handles one channel after another, and fails at the first that cannot be a name.
    values = list(takewhile(lambda each: each is not None and not isinstance(each, dict | list), channels))
    names = [php_string(value) for value in values]
    message = {"event": fields["name"], "data": fields["data"]}
    call.channels.publish(names, message, excluded=fields.get("socket_id"))
    if len(names) < len(channels):
        raise RequestError(500)
    if "info" not in fields:
        return _json({})
    info = fields["info"].split(",")
    infos = {php_key(value): call.channels.info(name, info) for value, name in zip(values, names, strict=True)}
    return _json({"channels": php_list(infos)})


def publish_batch(call: Call) -> bytes:
    fields = call.fields()
    errors = _Errors()
    errors.check_array(fields, "batch", required="is required")
    events = {key: each if isinstance(each, dict) else {} for key, each in _items(fields.get("batch")).items()}
    why = "is required when channels is not present" if _is_missing(fields.get("channels")) else None
    rules = {"name": "is required", "data": "is required", "channel": why, "socket_id": None, "info": None}
    for name, required in rules.items():
        for key, event in events.items():
            errors.check_text(event, name, required=required, prefix=f"batch.{key}.")
    if errors.found:
        return _json(errors.found, 422)
    for event in events.values():
        excluded = event.get("socket_id")
        # Reverb 1.10 fails if the socket_id is that of a subscribed connection.
        is_subscribed = call.channels.subscriber(excluded) is not None
        if "channel" not in event or (is_subscribed and not call.channels.strict):
            raise RequestError(500)
        message = {"event": event["name"], "channel": event["channel"], "data": event["data"]}
        call.channels.publish([event["channel"]], message, excluded=excluded)
    if not any("info" in event for event in events.values()):
        return _json({"batch": {}})
    infos = {
        key: call.channels.info(event["channel"], event.get("info", "").split(","))
        for key, event in events.items()
    }
    return _json({"batch": php_list(infos)})


def list_channels(call: Call) -> bytes:
    start, wanted = call.option("filter_by_prefix"), call.option("info").split(",")
    occupied = dict.fromkeys(channel.name for channels in call.channels.nodes for channel in channels)
    names = [name for name in occupied if name.startswith(start)]
    return _json({"channels": php_list({name: call.channels.info(name, wanted) for name in names})})


def show_channel(call: Call) -> bytes:
    wanted = [*call.option("info").split(","), "occupied"]
    return _json(call.channels.info(call.params["channel"], wanted))


def list_users(call: Call) -> bytes:
    channel = call.channels.get(call.params["channel"])
    if channel is None:
        return _json({}, 404)
    if not channel.is_presence:
        return _json({}, 400)
    users = call.channels.users(channel.name)
    if not all("user_id" in user for user in users.values()):
        raise RequestError(500)
    return _json({"users": php_list({number: {"id": user["user_id"]} for number, user in users.items()})})


def count_connections(call: Call) -> bytes:
    return _json({"connections": sum(len(channels.subscribers()) for channels in call.channels.nodes)})


def terminate_connections(call: Call) -> bytes:
    """Close the connections of a user, in their order. Reverb 1.10 fails at the first one that never named a user.

    With scaling, the nodes get the request through Redis, and a failure ends the process of a node.
    """
    user_id = call.params["user_id"]
    for channels in call.channels.nodes:
        if _terminate(channels, user_id):
            continue
        if channels.fail is None:
            raise RequestError(500)
        channels.fail()
    return _json({})


def _terminate(channels: Channels, user_id: str) -> bool:
    """Close a user's connections to one node; return whether Reverb gets through all of them."""
    for connection, user in channels.users_by_connection().items():
        if "user_id" not in user:
            if channels.strict:
                continue
            return False
        if php_string(user["user_id"]) == user_id:
            connection.terminate()
    return True


_ROUTES: Final[tuple[tuple[str, str, Callable[[Call], bytes]], ...]] = (
    ("POST", "/events", publish),
    ("POST", "/batch_events", publish_batch),
    ("GET", "/connections", count_connections),
    ("GET", "/channels", list_channels),
    ("GET", "/channels/(?P<channel>[^/]+)", show_channel),
    ("GET", "/channels/(?P<channel>[^/]+)/users", list_users),
    ("POST", "/users/(?P<user_id>[^/]+)/terminate_connections", terminate_connections),
)
"""Method, path below ``/apps/{app_id}``, and the function that answers."""


def _items(value: Any) -> dict[str, Any]:
    """Return the items of a PHP array, which is a list or an object in JSON; no items if it is neither."""
    if isinstance(value, list):
        return {str(number): item for number, item in enumerate(value)}
    return value if isinstance(value, dict) else {}


def _is_missing(value: Any) -> bool:
    return value is None or value in ([], {}) or is_blank(value)


class _Errors:
    """The errors of Laravel's validation for a request, with its texts and in its order."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def check_text(
        self, fields: Mapping[str, Any], name: str, *, required: str | None = None, prefix: str = ""
    ) -> None:
        """Check a field. ``required`` says why it must be present, ``prefix`` where it is in a batch."""
        # Laravel writes a space instead of an underscore, but not for fields in a list.
        label = f"{prefix}{name}" if prefix else name.replace("_", " ")
        value = fields.get(name)
        if required is not None and _is_missing(value):
            self.found[prefix + name] = [f"The {label} field {required}."]
        elif name in fields and not isinstance(value, str):
            self.found[prefix + name] = [f"The {label} field must be a string."]

    def check_array(self, fields: Mapping[str, Any], name: str, *, required: str | None = None) -> None:
        value = fields.get(name)
        if required is not None and _is_missing(value):
            self.found[name] = [f"The {name} field {required}."]
        elif name in fields and not isinstance(value, dict | list) and not is_blank(value):
            self.found[name] = [f"The {name} field must be an array."]


def _json(value: Any, status: int = 200) -> bytes:
    """Write an answer as Symfony does: HTTP/1.0, with padded header names in alphabetical order.

    Characters with a meaning in HTML, and quotation marks, are escaped in the JSON.
    """
    text = php_encode(value)
    if text is False:
        raise RequestError(500)
    body = re.sub(r"\\[^\"]|\\?[\"<>&']", _escape, text).encode()
    phrases = {200: "OK", 400: "Bad Request", 404: "Not Found", 422: "Unprocessable Content"}
    headers = {
        "Cache-Control": "no-cache, private",
        "Content-Length": str(len(body)),
        "Content-Type": "application/json",
        "Date": formatdate(usegmt=True),
    }
    lines = [
        f"HTTP/1.0 {status} {phrases[status]}",
        *(f"{name + ':':15} {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    return f"\\u{ord(found[-1]):04X}" if found[-1] in "<>&'" or found == '\\"' else found
