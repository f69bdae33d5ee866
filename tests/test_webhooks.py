"""Webhooks: what is believed, and what is made of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest

from reverb import AuthenticationError, ProtocolError
from reverb.webhooks import (
    CacheMiss,
    ChannelOccupied,
    ChannelVacated,
    ClientEvent,
    MemberAdded,
    MemberRemoved,
    SubscriptionCount,
    UnknownEvent,
    Webhook,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors/pusher.json").read_text(encoding="utf-8"))
KEY, SECRET = VECTORS["key"], VECTORS["secret"]


def headers_for(body: bytes, secret: str = SECRET) -> dict[str, str]:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Pusher-Key": KEY, "X-Pusher-Signature": signature}


def make_body(*events: dict[str, Any], time_ms: int = 1_700_000_000_123) -> bytes:
    return json.dumps({"time_ms": time_ms, "events": events}).encode()


@pytest.mark.parametrize("vector", VECTORS["webhooks"])
def test_the_signature_of_pushers_library(vector: dict[str, str]) -> None:
    headers = {"x-pusher-key": KEY, "X-PUSHER-SIGNATURE": vector["signature"]}
    webhook = Webhook.parse(vector["body"], headers, KEY, SECRET)
    assert webhook == Webhook.parse(vector["body"].encode(), headers, KEY, SECRET)
    assert webhook == Webhook(1_700_000_000.123, (ChannelOccupied("é"),))


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        ({"name": "channel_occupied", "channel": "a"}, ChannelOccupied("a")),
        ({"name": "channel_vacated", "channel": "a"}, ChannelVacated("a")),
        ({"name": "member_added", "channel": "presence-a", "user_id": "7"}, MemberAdded("presence-a", "7")),
        ({"name": "member_added", "channel": "presence-a", "user_id": 7}, MemberAdded("presence-a", "7")),
        ({"name": "member_removed", "channel": "presence-a", "user_id": "7"}, MemberRemoved("presence-a", "7")),
        ({"name": "cache_miss", "channel": "cache-a"}, CacheMiss("cache-a")),
        ({"name": "subscription_count", "channel": "a", "subscription_count": 3}, SubscriptionCount("a", 3)),
        (
            {
                "name": "client_event",
                "channel": "private-a",
                "event": "client-b",
                "data": '{"c":1}',
                "socket_id": "1.2",
            },
            ClientEvent("private-a", "client-b", '{"c":1}', "1.2"),
        ),
        (
            {"name": "client_event", "channel": "presence-a", "event": "client-b", "data": {}, "user_id": 7},
            ClientEvent("presence-a", "client-b", {}, user_id="7"),
        ),
        ({"name": "new", "x": 1}, UnknownEvent("new", {"name": "new", "x": 1})),
        ({"name": ["odd"]}, UnknownEvent("['odd']", {"name": ["odd"]})),
    ],
)
def test_events(fields: dict[str, Any], event: Any) -> None:
    body = make_body(fields, fields)
    assert Webhook.parse(body, headers_for(body), KEY, SECRET).events == (event, event)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"X-Pusher-Key": "another"}, "X-Pusher-Key is another key"),
        ({"X-Pusher-Key": ""}, "X-Pusher-Key"),
        ({"X-Pusher-Key": "\udcff"}, "X-Pusher-Key"),
        ({"X-Pusher-Signature": ""}, "X-Pusher-Signature is wrong"),
        ({"X-Pusher-Signature": "0" * 64}, "X-Pusher-Signature is wrong"),
        ({"X-Pusher-Signature": "\udcff"}, "X-Pusher-Signature is wrong"),
    ],
)
def test_headers_that_are_wrong(change: dict[str, str], says: str) -> None:
    body = make_body()
    with pytest.raises(AuthenticationError, match=says):
        Webhook.parse(body, headers_for(body) | change, KEY, SECRET)


def test_headers_that_are_missing() -> None:
    with pytest.raises(AuthenticationError, match="X-Pusher-Key"):
        Webhook.parse(make_body(), {}, KEY, SECRET)
    with pytest.raises(AuthenticationError, match="X-Pusher-Signature"):
        Webhook.parse(make_body(), {"X-Pusher-Key": KEY}, KEY, SECRET)


def test_neither_another_secret_nor_another_body() -> None:
    body = make_body()
    for signed, secret in ((body, "wrong"), (body + b" ", SECRET)):
        headers = headers_for(signed, secret)
        with pytest.raises(AuthenticationError, match="X-Pusher-Signature") as caught:
            Webhook.parse(body, headers, KEY, SECRET)
        assert SECRET not in str(caught.value)
        assert headers_for(body)["X-Pusher-Signature"] not in str(caught.value)


def test_age() -> None:
    body = make_body(time_ms=int(time.time() * 1000) - 60_000)
    headers = headers_for(body)
    assert Webhook.parse(body, headers, KEY, SECRET)
    assert Webhook.parse(body, headers, KEY, SECRET, max_age=120)
    with pytest.raises(AuthenticationError, match="is 60 seconds old, and 30 are allowed"):
        Webhook.parse(body, headers, KEY, SECRET, max_age=30)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"time_ms": 1}',
        b'{"time_ms": "x", "events": []}',
        make_body({"name": "member_added", "channel": "a"}),
        make_body({"name": "channel_occupied", "channel": 1}),
    ],
)
def test_bodies_that_mean_nothing(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="the webhook's body"):
        Webhook.parse(body, headers_for(body), KEY, SECRET)
