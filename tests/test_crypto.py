"""Sealing and opening, checked against what tweetnacl (which pusher-js uses) and Laravel Reverb sealed."""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from typing import Any

import pytest

from reverb import AuthenticationError, ConfigurationError, ProtocolError
from reverb.crypto import decrypt, derive_shared_secret, encrypt, parse_shared_secret, require_nacl

MASTER_KEY = bytes(range(32))

# Computed on Node: crypto.createHash("sha256") over channel name and master key, and tweetnacl's secretbox.
TWEETNACL = [
    (
        "private-encrypted-orders.1",
        '{"id":1,"text":"é ☃ /"}',
        "XUyxZql99rulph8Jnn79rk5vgnJjAYyWGT1lVCstFJg=",
        "wa731JV6JbN+DRAbSzAk/LKJ5xwIBD8H",
        "MoMGTH7NZj9RnoQ4ccRAh3Sjy+0moD5df5mc+D1AxGB/A5D8HTYbXDFW",
    ),
    (
        "private-encrypted-cache-x",
        '"just text"',
        "EL9VBUURoCLg6KVdzIxsFSQB+LcUEeJ2Xtt7Hz933bI=",
        "LlSf+YuiwAXwxy4S/xiqrMZ3wplfE0Ra",
        "t0B9LdnVKMGeaoYONS/6dl4GXzNmM9BpABTC",
    ),
    (
        "private-encrypted-empty",
        "",
        "QIjM/uu/caoPrsKm0+alaqbJAEPBvlQcA338V2H4RuU=",
        "7eB7wqN2/Xp3hbQmdYi5NRwNrWpBIhw7",
        "p6nJ/dPVWQMQQ+B5DkZDzA==",
    ),
]


@pytest.mark.parametrize(("channel", "text", "secret", "nonce", "ciphertext"), TWEETNACL)
def test_what_tweetnacl_sealed_opens(channel: str, text: str, secret: str, nonce: str, ciphertext: str) -> None:
    assert b64encode(derive_shared_secret(channel, MASTER_KEY)).decode() == secret
    sealed = {"nonce": nonce, "ciphertext": ciphertext}
    assert decrypt(json.dumps(sealed), b64decode(secret)) == text
    assert decrypt(sealed, b64decode(secret)) == text


def test_what_laravel_sealed_opens() -> None:
    """From a recording: the answer of ``/broadcasting/auth``, and an event on the channel."""
    secret = parse_shared_secret("private-encrypted-open", "dG15Y4sCfGyWPRISGRALmuaWFlLGMI/QndRoO6YZYE0=")
    data = r'{"nonce":"XatDh5M0edXM7AxS3ArGgyMZ\/crl\/VJk","ciphertext":"phxdOapiNGy+mTcrm1dhc9Bmq9Q\/andx"}'
    assert json.loads(decrypt(data, secret)) == {"id": 1}


def test_what_we_seal_opens_and_looks_different_each_time() -> None:
    key = derive_shared_secret("private-encrypted-x", MASTER_KEY)
    one, two = encrypt("é", key), encrypt("é", key)
    assert one != two
    assert decrypt(one, key) == decrypt(two, key) == "é"
    assert len(b64decode(json.loads(one)["nonce"])) == 24


def tampered(sealed: str, field: str) -> str:
    fields = json.loads(sealed)
    raw = bytearray(b64decode(fields[field]))
    raw[-1] ^= 1
    return json.dumps({**fields, field: b64encode(raw).decode()})


def test_what_was_changed_does_not_open() -> None:
    key = bytes(32)
    sealed = encrypt("text", key)
    for changed, with_key in (
        (tampered(sealed, "ciphertext"), key),
        (tampered(sealed, "nonce"), key),
        (sealed, bytes(31) + b"\1"),
    ):
        with pytest.raises(ProtocolError, match="the key is not the right one"):
            decrypt(changed, with_key)


@pytest.mark.parametrize(
    "data",
    [
        None,
        1,
        [],
        {},
        "",
        "text",
        "{}",
        '{"nonce":"AAAA"}',
        '{"nonce":1,"ciphertext":2}',
        '{"nonce":"?","ciphertext":"é"}',
    ],
)
def test_what_is_not_encrypted_is_told(data: Any) -> None:
    with pytest.raises(ProtocolError, match="it is not encrypted"):
        decrypt(data, bytes(32))


@pytest.mark.parametrize("text", ["", "AAAA"])
def test_what_is_too_short_does_not_open(text: str) -> None:
    with pytest.raises(ProtocolError, match="the key is not the right one"):
        decrypt({"nonce": text, "ciphertext": text}, bytes(32))


@pytest.mark.parametrize(
    "secret", ["", "c2hvcnQ=", "not base64!", 44 * "A", 43 * "A" + "=!", 20 * "A" + "\n" + 23 * "A" + "="]
)
def test_a_secret_that_is_none(secret: str) -> None:
    says = (
        "'private-encrypted-x' .* has a shared_secret that is not 32 bytes in base64.*REVERB_ENCRYPTION_MASTER_KEY"
    )
    with pytest.raises(AuthenticationError, match=says):
        parse_shared_secret("private-encrypted-x", secret)


def test_an_authorisation_without_a_secret() -> None:
    says = "'private-encrypted-x' .* has no shared_secret: .*REVERB_ENCRYPTION_MASTER_KEY"
    with pytest.raises(AuthenticationError, match=says):
        parse_shared_secret("private-encrypted-x", None)


def test_without_pynacl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl.secret", None)
    with pytest.raises(ConfigurationError, match=r"python-reverb\[encryption\]"):
        require_nacl()


@pytest.mark.parametrize("master_key", [b"", b"short", bytes(33)])
def test_no_key_is_derived_from_what_is_no_master_key(master_key: bytes) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        derive_shared_secret("private-encrypted-x", master_key)
