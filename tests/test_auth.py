"""Signatures, checked against what others computed: Pusher's documentation, and a recording of Laravel Reverb."""

from __future__ import annotations

import pytest

from reverb.auth import ChannelAuth, sign_channel, sign_request

KEY, SECRET = "278d425bdf160c739803", "7ad3773142a6692b25b8"


@pytest.mark.parametrize(
    ("key", "secret", "socket_id", "channel", "channel_data", "signature"),
    [
        (
            KEY,
            SECRET,
            "1234.1234",
            "private-foobar",
            None,
            "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
        ),
        (
            KEY,
            SECRET,
            "1234.1234",
            "presence-foobar",
            '{"user_id":10,"user_info":{"name":"Mr. Channels"}}',
            "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
        ),
        (
            "app-key",
            "app-secret",
            "697736332.449543751",
            "private-x",
            None,
            "eb6eec438af99c7f43db1090f4f7b06f0b45f6eee64218cc2235d95212e82506",
        ),
    ],
)
def test_channel_signatures(
    key: str, secret: str, socket_id: str, channel: str, channel_data: str | None, signature: str
) -> None:
    assert sign_channel(key, secret, socket_id, channel, channel_data) == f"{key}:{signature}"


def test_request_signature() -> None:
    body = b'{"name":"foo","channels":["project-3"],"data":"{\\"some\\":\\"data\\"}"}'
    assert sign_request(KEY, SECRET, "POST", "/apps/3/events", {}, body, 1353088179) == {
        "auth_key": KEY,
        "auth_timestamp": "1353088179",
        "auth_version": "1.0",
        "body_md5": "ec365a775a4cd0599faeb73354201b6f",
        "auth_signature": "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
    }


def test_a_request_without_a_body_has_no_digest_and_keeps_its_query() -> None:
    signed = sign_request(KEY, SECRET, "GET", "/apps/3/channels", {"info": "user_count"}, b"", 1)
    assert signed.keys() == {"auth_key", "auth_timestamp", "auth_version", "auth_signature", "info"}
    assert signed["info"] == "user_count"
    other = sign_request(KEY, SECRET, "GET", "/apps/3/channels", {"info": "subscription_count"}, b"", 1)
    assert other["auth_signature"] != signed["auth_signature"]


def test_signatures_do_not_show() -> None:
    assert "sig" not in repr(ChannelAuth("key:sig", '{"user_id":"sig"}'))
