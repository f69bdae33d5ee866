"""Decide who may use the console, from host names, headers and tokens. Without I/O."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from hmac import compare_digest

__all__ = ["Access", "is_loopback"]

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not listened on
"""Addresses that mean all addresses of this machine, and the loopback address for each."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to a server on ``host``."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


class Access:
    """Knows the host names of the console, and the tokens that open it.

    A page of another site can make a browser send requests to the console: from its own origin, or under a host
    name that it points to 127.0.0.1 (DNS rebinding). Such a request does not have our host name in ``Origin`` or
    ``Host``.
    """

    def __init__(self, host: str, port: int, *, is_tls: bool) -> None:
        self.token = secrets.token_urlsafe(32)
        """Opens the console any number of times."""
        self.cookie = secrets.token_urlsafe(32)
        """The value of the cookie that a page gets for the token."""
        self.cookie_name = f"reverb-console-{port}"  # browsers send cookies to all ports of a host
        self.is_tls = is_tls
        self._once: str | None = None
        self._scheme = "https" if is_tls else "http"
        self._host = host
        self._port = port
        self._is_any = host in _ANY
        names = ["127.0.0.1", "localhost", "[::1]", socket.gethostname() if self._is_any else _bracketed(host)]
        self._names = {name.lower() for name in names}

    def url(self, token: str, *, is_here: bool = False) -> str:
        """Return the address to open. ``is_here``: from this machine.

        The token is in the fragment, which browsers do not send with requests."""
        host = self._host
        if host in _ANY:
            host = _ANY[host] if is_here else socket.gethostname()
        return f"{self._scheme}://{_bracketed(host)}:{self._port}/#{token}"

    def token_for_once(self) -> str:
        """Make a token that opens the console once, because other users can read a browser's command line."""
        self._once = secrets.token_urlsafe(32)
        return self._once

    def knows_host(self, header: str) -> bool:
        """Return whether a ``Host`` header names the console."""
        host, separator, port = header.rpartition(":")
        if not separator or not port.isdecimal():
            host, port = header, "443" if self.is_tls else "80"
        if port != str(self._port):
            return False
        # An IP address is safe: DNS rebinding needs a host name.
        return host.lower() in self._names or (self._is_any and _address(host.strip("[]")) is not None)

    def knows_origin(self, header: str | None, host: str) -> bool:
        """Return whether an ``Origin`` header is that of our own page, which was loaded from ``host``."""
        return header is not None and header.lower() == f"{self._scheme}://{host}".lower()

    def accepts(self, token: str) -> bool:
        """Return whether a token opens the console."""
        if self._once is not None and _same(token, self._once):
            self._once = None
            return True
        return _same(token, self.token)

    def knows_cookie(self, value: str | None) -> bool:
        return value is not None and _same(value, self.cookie)


def _same(one: str, other: str) -> bool:
    return compare_digest(one.encode(errors="replace"), other.encode())


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
