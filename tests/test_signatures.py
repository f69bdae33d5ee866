"""Signatures, compared with the example in the documentation of Pusher's HTTP API."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from reverb import ConfigurationError
from reverb._signatures import hmac_hex, problem_of, sign_request

KEY, SECRET = "278d425bdf160c739803", "7ad3773142a6692b25b8"
BODY = rb'{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}'


def test_a_request_with_a_body_is_signed_as_documented() -> None:
    assert sign_request(KEY, SECRET, "POST", "/apps/3/events", {}, BODY, 1353088179) == {
        "auth_key": KEY,
        "auth_timestamp": "1353088179",
        "auth_version": "1.0",
        "body_md5": "ec365a775a4cd0599faeb73354201b6f",
        "auth_signature": "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c",
    }


def test_a_body_is_signed_where_md5_is_not_allowed_for_security(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems in FIPS mode."""
    md5 = hashlib.md5

    def as_in_fips_mode(content: bytes, *, usedforsecurity: bool = True) -> Any:
        if usedforsecurity:
            raise ValueError("disabled for FIPS")
        return md5(content, usedforsecurity=False)

    monkeypatch.setattr(hashlib, "md5", as_in_fips_mode)
    assert "body_md5" in sign_request(KEY, SECRET, "POST", "/apps/3/events", {}, BODY, 1)


def test_the_parameters_of_a_request_are_signed_in_order() -> None:
    text = "auth_key=k&auth_timestamp=1&auth_version=1.0&filter_by_prefix=a&info=b"
    query = {"info": "b", "filter_by_prefix": "a"}
    signed = sign_request("k", "s", "GET", "/apps/3/channels", query, b"", 1)
    assert signed.pop("auth_signature") == hmac_hex("s", f"GET\n/apps/3/channels\n{text}".encode())
    assert "&".join(f"{name}={signed[name]}" for name in sorted(signed)) == text
    assert query == {"info": "b", "filter_by_prefix": "a"}


@pytest.mark.parametrize(("key", "secret"), [("", "s"), ("k", ""), ("", "")])
def test_nothing_is_signed_without_a_key_and_a_secret(key: str, secret: str) -> None:
    assert problem_of(key, secret) is not None
    with pytest.raises(ConfigurationError, match="the application's key and secret must not be empty"):
        sign_request(key, secret, "GET", "/apps/3/channels", {}, b"", 1)


@pytest.mark.parametrize(("key", "secret"), [("\ud800", "s"), ("k", "\ud800")])
def test_nothing_is_signed_with_what_is_no_text(key: str, secret: str) -> None:
    with pytest.raises(ConfigurationError, match="the application's key and secret must be valid Unicode text"):
        sign_request(key, secret, "GET", "/apps/3/channels", {}, b"", 1)


def test_text_that_is_not_ascii_can_be_signed_with() -> None:
    assert problem_of("k", "\u00e9\U0001f600") is None
    # By: printf text | openssl dgst -sha256 -hmac é
    assert hmac_hex("\u00e9", b"text") == "6a6840e584017ad433e2a10a980d3daff089c9fc037d7fdf4c11c8fb9cc11232"
