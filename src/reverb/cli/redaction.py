"""Hides the secrets of the settings in texts that others wrote: servers and proxies quote what they were sent."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote

from .._checks import is_url
from .._settings import Found, SecretStr

__all__ = ["MASK", "Redaction", "holds_url"]

MASK = "********"
_SHORTEST = 6
"""Characters of a secret that is hidden. A shorter one could be a part of any word."""
_CUT_MARKS = ("…", "”", "'")
"""What follows a text that was cut, which may be within a secret."""
_SIGNATURE = re.compile(r"\b[0-9a-f]{64}\b")
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?(?:(?P<user>[^/?#]*)@)?[^?#]*(?P<rest>.*)", re.DOTALL | re.IGNORECASE)


class Redaction:
    """Hides the secrets of the settings, their usual encodings, and signatures.

    Args:
        found: The settings. Those that hold a URL may have a user, a password, or a token in it.
        names: Settings to hide as well, although they are not secret.
    """

    def __init__(self, found: Mapping[str, Found], *names: str) -> None:
        plain = {part for name, each in found.items() for part in _secrets_of(name, each, is_secret=name in names)}
        encoded = {quote(each, safe="") for each in plain} | {unquote(each) for each in plain}
        encoded |= {b64encode(unquote(each).encode()).decode() for each in plain}  # as of a proxy's password
        self._secrets = sorted(
            (each for each in plain | encoded if len(each) >= _SHORTEST), key=lambda each: (-len(each), each)
        )

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        for secret in self._secrets:
            text = _hide_beginning(text, secret)
        return _SIGNATURE.sub(MASK, text)


def holds_url(name: str, text: str) -> bool:
    """Return whether a setting is secret only because its URL may have a password or a token."""
    return name in ("auth_endpoint", "proxy") and is_url(text, "http", "https", "socks5")


def _secrets_of(name: str, found: Found, *, is_secret: bool) -> Iterator[str]:
    if found.value is None:
        return
    text = found.text
    url = _URL.fullmatch(text)
    assert url is not None  # every part of it may be empty
    user, rest = url["user"] or "", url["rest"]
    yield from (user, user.partition(":")[2], rest.lstrip("?#"), *re.findall(r"[=#]([^=&#]+)", rest))
    if is_secret or (isinstance(found.value, SecretStr) and not holds_url(name, text)):
        yield from (text, text.strip())


def _hide_beginning(text: str, secret: str) -> str:
    """Hide the beginning of a secret at the end of a text that was cut."""
    for size in range(len(secret) - 1, _SHORTEST - 1, -1):
        beginning = secret[:size]
        for mark in _CUT_MARKS:
            text = text.replace(beginning + mark, MASK + mark)
        if text.endswith(beginning):
            text = text.removesuffix(beginning) + MASK
    return text
