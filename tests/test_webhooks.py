"""Webhooks: what is believed, and what is made of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest

from reverb import AuthenticationError, ConfigurationError, ProtocolError
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
    webhook = Webhook.parse(vector["body"], headers, key=KEY, secret=SECRET, max_age=None)
    assert webhook == Webhook.parse(vector["body"].encode(), headers, key=KEY, secret=SECRET, max_age=None)
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
    assert Webhook.parse(body, headers_for(body), key=KEY, secret=SECRET, max_age=None).events == (event, event)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"X-Pusher-Key": "another"}, "X-Pusher-Key is not its key"),
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
        Webhook.parse(body, headers_for(body) | change, key=KEY, secret=SECRET, max_age=None)


def test_headers_that_are_missing() -> None:
    with pytest.raises(AuthenticationError, match="X-Pusher-Key"):
        Webhook.parse(make_body(), {}, key=KEY, secret=SECRET, max_age=None)
    with pytest.raises(AuthenticationError, match="X-Pusher-Signature"):
        Webhook.parse(make_body(), {"X-Pusher-Key": KEY}, key=KEY, secret=SECRET, max_age=None)


def test_neither_another_secret_nor_another_body() -> None:
    body = make_body()
    for signed, secret in ((body, "wrong"), (body + b" ", SECRET)):
        headers = headers_for(signed, secret)
        with pytest.raises(AuthenticationError, match="X-Pusher-Signature") as caught:
            Webhook.parse(body, headers, key=KEY, secret=SECRET, max_age=None)
        assert SECRET not in str(caught.value)
        assert headers_for(body)["X-Pusher-Signature"] not in str(caught.value)


def sent_at(age: float) -> tuple[bytes, dict[str, str]]:
    body = make_body(time_ms=int((time.time() - age) * 1000))
    return body, headers_for(body)


def test_age() -> None:
    assert Webhook.parse(*sent_at(60), key=KEY, secret=SECRET, max_age=120)
    with pytest.raises(AuthenticationError, match="is 60 seconds old; max_age is 30"):
        Webhook.parse(*sent_at(60), key=KEY, secret=SECRET, max_age=30)


def test_age_by_default() -> None:
    for age in (0, 5 * 60, 9 * 60):  # Pusher tries for five minutes
        assert Webhook.parse(*sent_at(age), key=KEY, secret=SECRET)
    with pytest.raises(AuthenticationError, match="is 660 seconds old; max_age is 600"):
        Webhook.parse(*sent_at(11 * 60), key=KEY, secret=SECRET)
    assert Webhook.parse(*sent_at(10**9), key=KEY, secret=SECRET, max_age=None)


def test_webhooks_from_the_future() -> None:
    assert Webhook.parse(*sent_at(-50), key=KEY, secret=SECRET, max_age=30)  # the clocks differ
    for max_age in (30, 600, float("inf")):
        with pytest.raises(AuthenticationError, match=r"from (119|120) seconds in the future.*clock"):
            Webhook.parse(*sent_at(-120), key=KEY, secret=SECRET, max_age=max_age)
    assert Webhook.parse(*sent_at(-120), key=KEY, secret=SECRET, max_age=None)


def test_a_limit_that_is_no_number_lets_nothing_through() -> None:
    with pytest.raises(AuthenticationError, match="seconds old"):
        Webhook.parse(*sent_at(1), key=KEY, secret=SECRET, max_age=float("nan"))


@pytest.mark.parametrize(("key", "secret"), [("", SECRET), (KEY, ""), ("", ""), (KEY, None), (None, None)])
def test_with_an_empty_key_or_secret_nothing_is_believed(key: Any, secret: Any) -> None:
    body = make_body()
    forged = {"X-Pusher-Key": key or "", "X-Pusher-Signature": hmac.new(b"", body, hashlib.sha256).hexdigest()}
    with pytest.raises(ConfigurationError, match="must not be empty"):
        Webhook.parse(body, forged, key=key, secret=secret)
    with pytest.raises(ConfigurationError, match="must not be empty"):
        Webhook.parse(body, {}, key=key, secret=secret)


def test_key_and_secret_are_not_to_be_confused() -> None:
    parse: Any = Webhook.parse
    body = make_body()
    with pytest.raises(TypeError):
        parse(body, headers_for(body), KEY, SECRET)


@pytest.mark.parametrize("body", ['{"time_ms":1,"events":[]}\udcff', {"time_ms": 1, "events": []}, None])
def test_bodies_that_are_not_as_they_were_sent(body: Any) -> None:
    with pytest.raises(ProtocolError, match="pass the body of the request as bytes"):
        Webhook.parse(body, headers_for(b""), key=KEY, secret=SECRET)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind(kind: Any) -> None:
    body, headers = sent_at(0)
    assert Webhook.parse(kind(body), headers, key=KEY, secret=SECRET)


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
        b'{"time_ms": -1, "events": []}',
        b'{"time_ms": 1%s, "events": []}' % (400 * b"0"),
        make_body({"name": "member_added", "channel": "a"}),
        make_body({"name": "channel_occupied", "channel": 1}),
    ],
)
def test_bodies_that_mean_nothing(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a webhook of the Pusher protocol"):
        Webhook.parse(body, headers_for(body), key=KEY, secret=SECRET, max_age=None)


def test_json_that_is_unusual() -> None:
    """The data of a client event is text of whoever sent it; here not within a string."""
    event = b'{"name":"client_event","channel":"private-a","event":"client-x","data":"half an emoji: \\ud83d"}'
    body = b'{"time_ms":1700000000123,"events":[%s]}' % event
    webhook = Webhook.parse(body, headers_for(body), key=KEY, secret=SECRET, max_age=None)
    assert webhook.events == (ClientEvent("private-a", "client-x", "half an emoji: \N{REPLACEMENT CHARACTER}"),)
