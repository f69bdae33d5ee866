"""The HTTP API: publishing, and asking who is there. Statuses and texts are Reverb's."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from ..auth import _hmac_hex
from ._channels import Channels, Subscriber
from ._wire import decode, encode, php_string

MAX_REQUEST_SIZE = 10_000
"""In bytes, of head and body together: Reverb's ``max_request_size``."""


class RequestError(Exception):
    """A request that is answered with an error; without a text, one that makes Reverb fail."""

    def __init__(self, status: int, text: str = "Internal server error.") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Call:
    """A signed request to an application; ``params`` are those of the path."""

    channels: Channels
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes

    def fields(self) -> dict[str, Any]:
        """Return the body's JSON object."""
        try:
            fields = decode(self.body)
        except ValueError:
            raise RequestError(500) from None
        if not isinstance(fields, dict | list):
            raise RequestError(500)
        return fields if isinstance(fields, dict) else {}


async def check(request: web.Request, channels: Channels | None, prefix: str) -> Call:
    """Return the call that a request makes, if its application exists and its signature is right.

    ``prefix`` is the server's path prefix, which is not signed.
    """
    if channels is None:
        raise RequestError(404, f"No matching application for ID [{request.match_info['app_id']}].")
    body = await request.read()
    query = dict(request.query)
    given = query.get("auth_signature", "")
    signed = {name: value for name, value in query.items() if name not in ("auth_signature", "body_md5")}
    if body:
        signed["body_md5"] = hashlib.md5(body, usedforsecurity=False).hexdigest()
    path = request.raw_path.partition("?")[0].removeprefix(prefix)
    parameters = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    # Neither the key nor the timestamp is looked at.
    right = _hmac_hex(channels.app.secret, f"{request.method}\n{path}\n{parameters}")
    if not hmac.compare_digest(right.encode(), given.encode()):
        raise RequestError(401, "Authentication signature invalid.")
    return Call(channels, request.match_info, query, body)


def publish(call: Call) -> web.Response:
    fields = call.fields()
    errors = _errors(fields)
    if errors:
        return _json(errors, 422)
    names = fields["channels"] if "channels" in fields else [fields["channel"]]
    if not all(isinstance(name, str) for name in names):
        raise RequestError(500)
    excluded = _subscriber(call.channels, fields.get("socket_id"))
    call.channels.publish(names, {"event": fields["name"], "data": fields["data"]}, except_for=excluded)
    if "info" not in fields:
        return _json({})
    wanted = fields["info"].split(",")
    return _json({"channels": {name: call.channels.info(name, wanted) for name in names}})


def publish_batch(call: Call) -> web.Response:
    batch = call.fields().get("batch")
    if not batch:
        return _json({"batch": ["The batch field is required."]}, 422)
    if not isinstance(batch, list):
        return _json({"batch": ["The batch field must be an array."]}, 422)
    events = [event if isinstance(event, dict) else {} for event in batch]
    errors: dict[str, list[str]] = {}
    for number, event in enumerate(events):
        errors |= _errors(event, f"batch.{number}.")
    if errors:
        return _json(errors, 422)
    for event in events:
        if _subscriber(call.channels, event.get("socket_id")) is not None:
            raise RequestError(500)  # Reverb 1.10 fails on the socket_id of a connection that is there.
        message = {"event": event["name"], "channel": event["channel"], "data": event["data"]}
        call.channels.publish([event["channel"]], message)
    if not any("info" in event for event in events):
        return _json({"batch": {}})
    infos = [call.channels.info(event["channel"], event.get("info", "").split(",")) for event in events]
    return _json({"batch": infos})


def list_channels(call: Call) -> web.Response:
    start, wanted = call.query.get("filter_by_prefix", ""), call.query.get("info", "").split(",")
    names = [channel.name for channel in call.channels if channel.name.startswith(start)]
    # PHP writes an empty array as a list.
    return _json({"channels": {name: call.channels.info(name, wanted) for name in names} or []})


def show_channel(call: Call) -> web.Response:
    wanted = [*call.query.get("info", "").split(","), "occupied"]
    return _json(call.channels.info(call.params["channel"], wanted))


def list_users(call: Call) -> web.Response:
    channel = call.channels.get(call.params["channel"])
    if channel is None:
        return _json({}, 404)
    if not channel.is_presence:
        return _json({}, 400)
    users = channel.users()
    if not all("user_id" in user for user in users):
        raise RequestError(500)
    return _json({"users": [{"id": user["user_id"]} for user in users]})


def count_connections(call: Call) -> web.Response:
    return _json({"connections": len(call.channels.subscribers())})


def terminate_connections(call: Call) -> web.Response:
    user_id = call.params["user_id"]
    connections = {
        connection
        for channel in call.channels
        for connection, user in channel.members.items()
        if php_string(user.get("user_id")) == user_id
    }
    for connection in connections:
        connection.end()
    if connections:
        raise RequestError(500)  # So does Reverb 1.10, after it has ended them.
    return _json({})


async def up(request: web.Request) -> web.Response:
    return _json({"health": "OK"})


ROUTES: tuple[tuple[str, str, Callable[[Call], web.Response]], ...] = (
    ("POST", "/events", publish),
    ("POST", "/batch_events", publish_batch),
    ("GET", "/connections", count_connections),
    ("GET", "/channels", list_channels),
    ("GET", "/channels/{channel:[^/]+}", show_channel),
    ("GET", "/channels/{channel:[^/]+}/users", list_users),
    ("POST", "/users/{user_id:[^/]+}/terminate_connections", terminate_connections),
)
"""Method, path below ``/apps/{app_id}``, and what answers."""


@web.middleware
async def answer_as_reverb(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """Refuse what is too large, put failures in Reverb's words, and close the connection behind each answer."""
    response: web.StreamResponse
    try:
        if _size(request) > MAX_REQUEST_SIZE:
            raise RequestError(413, "Payload too large.")
        response = await handler(request)
    except RequestError as error:
        response = web.Response(status=error.status, text=error.text)
    except web.HTTPNotFound:
        response = web.Response(status=404, text="Not found.")
    except web.HTTPMethodNotAllowed as error:
        response = web.Response(status=405, text="Method not allowed.", headers={"Allow": error.headers["Allow"]})
    response.force_close()
    return response


def _size(request: web.Request) -> int:
    head = len(f"{request.method} {request.raw_path} HTTP/1.1\r\n\r\n")
    head += sum(len(name) + len(value) + len(": \r\n") for name, value in request.raw_headers)
    return head + (request.content_length or 0)


def _subscriber(channels: Channels, socket_id: str | None) -> Subscriber | None:
    if socket_id is None:
        return None
    return next((each for each in channels.subscribers() if each.socket_id == socket_id), None)


def _errors(event: Mapping[str, Any], prefix: str = "") -> dict[str, list[str]]:
    """Validate one event as Laravel does. The events of a batch, which have a prefix, know one channel only."""
    errors: dict[str, list[str]] = {}

    def add(name: str, why: str) -> None:
        errors[prefix + name] = [f"The {prefix}{name.replace('_', ' ')} field {why}."]

    def is_missing(name: str) -> bool:
        value = event.get(name)
        return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())

    for name in ("name", "data"):
        if is_missing(name):
            add(name, "is required")
        elif not isinstance(event[name], str):
            add(name, "must be a string")
    if not prefix:
        if is_missing("channels") and is_missing("channel"):
            add("channels", "is required when channel is not present")
        elif "channels" in event and not isinstance(event["channels"], list):
            add("channels", "must be an array")
    if is_missing("channel") and (prefix or is_missing("channels")):
        add("channel", "is required when channels is not present")
    for name in ("channel", "socket_id", "info"):
        if prefix + name not in errors and name in event and not isinstance(event[name], str):
            add(name, "must be a string")
    return errors


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, text=encode(value), content_type="application/json")
