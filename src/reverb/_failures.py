"""Why there is no connection: what was seen, and the likely causes. Pure: looks at errors and answers, and does
nothing.

The client says it in one line, ``reverb doctor`` in full. Causes stand in the order of their likelihood. Each
names the setting to change: ours, ``REVERB_…``; the server's, in Laravel's ``config/reverb.php`` and its ``.env``;
or that of the proxy in between, for which nginx stands.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from ._visible import visible
from .config import ReverbConfig
from .exceptions import plural

UPGRADE_HEADERS = (
    "The proxy does not pass the upgrade on; in nginx's location: proxy_http_version 1.1; "
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "Upgrade";'
)
NOT_FOUND = "Not found."
"""What Reverb says to a path that it does not have. Proxies and websites say other things."""
STRIPS = "nginx's proxy_pass must end behind the port: a path there, or a slash alone,"
_TLS_PORT_BODIES = (
    "plain HTTP request was sent to HTTPS port",
    "HTTP request to an HTTPS server",
    "speaking plain HTTP",
)
"""How nginx, programs in Go, and Apache answer plain HTTP where they speak TLS."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")
"""What OpenSSL calls an answer that is no TLS."""
_SHOWN_CAUSES = 2
"""Causes that go into one line."""


class Failure(NamedTuple):
    seen: str
    causes: tuple[str, ...]
    """Sentences, the likeliest first."""

    @property
    def line(self) -> str:
        """What was seen, and the likeliest causes."""
        causes = [cause.rstrip(".;") for cause in self.causes[:_SHOWN_CAUSES]]
        return f"{self.seen}; likely: {'; or: '.join(causes)}" if causes else self.seen


class Certificate(NamedTuple):
    """What is in a server's certificate."""

    names: tuple[str, ...]
    """Host names and addresses that it is for."""
    issuer: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, tls: ssl.SSLObject) -> Certificate:
        """The server's, once it was verified."""
        fields: Mapping[str, Any] = tls.getpeercert() or {}
        issuer = {name: value for group in fields["issuer"] for name, value in group}
        return cls(
            tuple(value for _, value in fields.get("subjectAltName", ())),
            issuer.get("organizationName") or issuer.get("commonName") or "an issuer without a name",
            _time(fields["notBefore"]),
            _time(fields["notAfter"]),
        )


def parse_head(head: bytes) -> tuple[int, dict[str, str]] | None:
    """Return the status and the headers, by names in lower case, of an HTTP answer; None if it is none. A header
    that is there twice is a list (RFC 9110, 5.3)."""
    first, *lines = head.decode("latin-1").split("\r\n")
    match = re.match(r"HTTP/\d(?:\.\d)? (\d{3})(?: |$)", first)
    if match is None:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = (part.strip() for part in line.partition(":"))
        earlier = headers.get(name.lower())
        headers[name.lower()] = value if earlier is None else f"{earlier}, {value}"
    return int(match[1]), headers


def join_chunks(body: bytes) -> bytes:
    """Return what is in the chunks of a body (RFC 9112, 7.1), as far as it goes."""
    content = b""
    while (match := re.match(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r\n", body)) is not None and (
        size := int(match[1], 16)
    ):
        start = match.end()
        content += body[start : start + size]
        body = body[start + size :].removeprefix(b"\r\n")
    return content


# --- names and TCP ---------------------------------------------------------------------------------------------


def no_name(host: str, variable: str, error: OSError | UnicodeError) -> Failure:
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return Failure(
            f"the name {host} can't be looked up at the moment",
            (
                "This machine is offline, or its DNS server does not answer: see /etc/resolv.conf.",
                f"{variable}={host} is a name that only another network knows, such as a container's.",
            ),
        )
    return Failure(
        f"there is no address for {host}",
        (
            f"{variable} is misspelt, or the name is not in the DNS (yet).",
            "Names of containers and services are known inside their own network only; from outside use the "
            "host's.",
        ),
    )


def slow_name(host: str, seconds: float) -> Failure:
    return Failure(
        f"the name {host} was not looked up {within(seconds)}",
        ("This machine's DNS server does not answer: see /etc/resolv.conf.",),
    )


def black_hole(config: ReverbConfig, seconds: float) -> Failure:
    return Failure(
        f"no answer {within(seconds)}",
        (
            f"A firewall drops what is for port {config.port} of {config.host}: on the server, or a cloud's "
            "security group.",
            "REVERB_HOST or REVERB_PORT is another machine's.",
        ),
    )


def no_connection(config: ReverbConfig, error: OSError) -> Failure:
    host, port = config.host, config.port
    if error.errno == errno.ECONNREFUSED:
        return Failure(
            f"nothing listens on port {port} of {host}: connection refused",
            (
                f"REVERB_PORT={port} is wrong: without a proxy it is the server's REVERB_SERVER_PORT, usually "
                "8080.",
                "The server does not run: php artisan reverb:start.",
                "It listens elsewhere: REVERB_SERVER_HOST on the server, 0.0.0.0 for all networks.",
            ),
        )
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return Failure(
            f"there is no way to {host}: {error.strerror or error}",
            (
                "This machine is offline, or has no route there: a VPN, or IPv6.",
                f"REVERB_HOST={host} is not the server's address.",
            ),
        )
    return Failure(reason_of(error), (f"REVERB_HOST={host} or REVERB_PORT={port} is wrong.",))


# --- a proxy on the way ----------------------------------------------------------------------------------------


def no_proxy(proxy: str, why: str) -> Failure:
    """``proxy`` is its URL, without a password."""
    return Failure(
        f"no connection to the proxy: {why}", (f"REVERB_PROXY={proxy} is wrong, or the proxy is down.",)
    )


def not_through_proxy(config: ReverbConfig, why: str) -> Failure:
    """The proxy was there, and did not connect us."""
    if re.search("407|authenticat", why.lower()):
        return Failure(
            f"the proxy wants a login: {why}",
            ("REVERB_PROXY must have the user and password that it wants: http://user:password@host:port.",),
        )
    return Failure(
        f"no connection through the proxy: {why}",
        (
            "REVERB_PROXY is wrong, or that proxy lets nobody through to "
            f"{config.address}: see its log, and what it allows for CONNECT.",
            "REVERB_HOST, REVERB_PORT or REVERB_SCHEME is wrong.",
        ),
    )


# --- TLS -------------------------------------------------------------------------------------------------------


def plain_on_tls(config: ReverbConfig) -> Failure:
    """The port answers in plain HTTP."""
    return Failure(f"port {config.port} answers in plain HTTP, not in TLS", _use_plain(config))


def silent_on_tls(config: ReverbConfig, seconds: float, *, may_be_plain: bool) -> Failure:
    """Nothing came in answer to TLS. ``may_be_plain`` is whether the port may speak plain HTTP: Reverb says
    nothing to TLS, and waits for more."""
    causes = _use_plain(config) if may_be_plain else _check_tls(config)
    return Failure(f"no answer to TLS {within(seconds)}", causes)


def no_tls(config: ReverbConfig, error: Exception) -> Failure:
    """A TLS handshake failed, and not for its certificate."""
    reason = getattr(error, "reason", None)
    if reason in _NO_TLS:
        return Failure(f"port {config.port} answers, but not in TLS", _use_plain(config))
    why = reason or reason_of(error)
    port, server = _check_tls(config)
    return Failure(f"no TLS: {why}", (server, port) if "ALERT" in why else (port, server))


def _use_plain(config: ReverbConfig) -> tuple[str, ...]:
    return (
        f"REVERB_SCHEME=ws (or http) for port {config.port}.",
        "REVERB_PORT must be that of the proxy that speaks TLS: 443, usually.",
        "Reverb must speak TLS itself: 'tls' below 'options' in config/reverb.php.",
    )


def _check_tls(config: ReverbConfig) -> tuple[str, str]:
    return (
        f"What listens on port {config.port} does not speak TLS: check REVERB_PORT and REVERB_SCHEME.",
        "The server has no certificate for this name, wants one from its clients, or speaks old TLS only.",
    )


def tls_on_plain(config: ReverbConfig) -> Failure:
    return Failure(f"port {config.port} speaks TLS, and was spoken to in plain", _use_tls(config))


def _use_tls(config: ReverbConfig) -> tuple[str, ...]:
    return (
        f"REVERB_SCHEME=wss (or https) for port {config.port}.",
        "REVERB_PORT must be that at which Reverb itself listens, in plain: 8080, usually.",
    )


def bad_certificate(host: str, error: ssl.SSLCertVerificationError, found: Certificate | None = None) -> Failure:
    """``found`` is what is in the certificate, if that could be looked at."""
    now = datetime.now(timezone.utc)
    clock = f"This machine's clock is wrong: it says {now:%Y-%m-%d %H:%M} UTC. Have it set by NTP (timedatectl)."
    issuer = "" if found is None else f" (issued by {found.issuer})"
    reason = error.verify_message.lower()
    if "expired" in reason:
        when = "" if found is None else f" on {found.not_after:%Y-%m-%d}, {count_days(now - found.not_after)} ago"
        return Failure(
            f"the certificate expired{when}{issuer}",
            (
                "The server's certificate must be renewed, and what serves it reloaded: certbot renew, systemctl "
                "reload nginx.",
                clock,
            ),
        )
    if "not yet valid" in reason:
        when = "yet" if found is None else f"before {found.not_before:%Y-%m-%d %H:%M} UTC"
        return Failure(
            f"the certificate is not valid {when}",
            (clock, "The server's certificate was made with a wrong clock."),
        )
    if "mismatch" in reason or "not valid for" in reason:
        names = "" if found is None else f", but for {', '.join(found.names[:4]) or 'no name at all'}"
        return Failure(
            f"the certificate is not for {host}{names}",
            (
                "REVERB_HOST must be a name that is in the certificate."
                + (f" Is it {found.names[0]}?" if found is not None and found.names else ""),
                f"The server must have a certificate for {host}: nginx's server_name and ssl_certificate.",
            ),
        )
    if any(part in reason for part in ("key identifier", "basic constraints", "key usage")):
        return Failure(
            f"the certificate is not trusted{issuer}: {error.verify_message}",
            (
                "Since 3.13 Python checks that certificates follow RFC 5280. Make those of your own authority "
                "anew, with mkcert or step-ca for instance.",
            ),
        )
    own_ca = (
        "If the authority is your own, have this machine trust it: SSL_CERT_FILE=/path/to/ca.pem in the "
        "environment (or ssl_context=… in the program)."
    )
    chain = (
        "The server leaves out the intermediate certificate: nginx's ssl_certificate must be the fullchain.pem."
    )
    is_self_signed = "self-signed" in reason or "self signed" in reason
    return Failure(
        f"the certificate is not trusted{issuer}: {error.verify_message}",
        (
            *((own_ca,) if is_self_signed else (chain, own_ca)),
            "This machine's list of authorities is missing or old: the package ca-certificates.",
        ),
    )


def count_days(span: timedelta) -> str:
    return plural(span.days, "day") if span.days else plural(span.seconds // 3600, "hour")


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), timezone.utc)


# --- the upgrade to a WebSocket --------------------------------------------------------------------------------


def upgrade_refused(config: ReverbConfig, status: int, headers: Mapping[str, str], body: str) -> Failure:
    """An HTTP answer that is not 101. Of the body the beginning is enough."""
    if any(text in body for text in _TLS_PORT_BODIES):
        return tls_on_plain(config)
    server = visible(headers.get("server", ""), 60)
    seen = f"HTTP status {status}{f' by {server}' if server else ''} for {config.path}/app/…"
    excerpt = _excerpt(body)
    if excerpt:
        seen += f": {excerpt}"
    host_and_port = f"REVERB_HOST or REVERB_PORT={config.port} is the website's, not Reverb's (usually 8080)."
    if 300 <= status < 400:
        return _redirected(config, status, headers.get("location", ""))
    # Reverb answers 500 to a request for /app/KEY that is no upgrade; ratchet's older handshake answers 426.
    if status in (400, 426) or (status == 500 and "Internal server error" in body):
        return Failure(
            seen, (UPGRADE_HEADERS, "Something else than Reverb listens there: REVERB_HOST, REVERB_PORT.")
        )
    if status == 429:
        return Failure(seen, ("A proxy in front of the server limits connections or requests: see its settings.",))
    if status in (502, 503, 504):
        return Failure(
            seen,
            (
                "Reverb does not run behind the proxy: php artisan reverb:start, and Supervisor to start it "
                "again.",
                "The proxy looks in the wrong place: nginx's proxy_pass must have the server's "
                "REVERB_SERVER_PORT, such as http://127.0.0.1:8080.",
            ),
        )
    if status in (401, 403, 407):
        return Failure(
            seen,
            (
                "Something in front of the server refuses: a firewall, a proxy that wants a login, Cloudflare. "
                f"Make an exception for {config.path}/app/ there.",
            ),
        )
    if status == 404 or status < 300 or status == 405:
        path = f"REVERB_PATH must be the server's REVERB_SERVER_PATH; it is {config.path or 'not set'}."
        if is_not_found(status, body):
            seen += ", which is Reverb's own answer"
            return Failure(seen, (path, *((strips_path(config),) if "server" in headers else ())))
        location = (
            "The proxy has no location for it, so the website answers: in nginx, location "
            f"{config.path}/app with proxy_pass to Reverb."
        )
        causes = (path, location, host_and_port) if status >= 400 else (location, host_and_port, path)
        return Failure(seen, causes)
    return Failure(seen, ("The server, or the proxy in front of it, has failed: see its log.", UPGRADE_HEADERS))


def is_not_found(status: int, body: str) -> bool:
    """Whether it is Reverb itself that does not have the path."""
    return status == 404 and body.strip() == NOT_FOUND


def strips_path(config: ReverbConfig) -> str:
    return f"The proxy cuts {config.path}/app off before it passes the request on. {STRIPS} replaces it."


def _redirected(config: ReverbConfig, status: int, location: str) -> Failure:
    target = location.partition("?")[0].replace(config.app_key, "…")
    seen = f"HTTP status {status}: it redirects to {visible(target) or 'nowhere'}"
    match = re.match(r"(https?)://([^/:]+)(?::(\d+))?", target)
    if match is not None and match[1] == "https" and config.scheme == "ws":
        return Failure(seen, (f"REVERB_SCHEME=wss (or https) and REVERB_PORT={match[3] or 443}.",))
    if match is not None and match[2] != config.host:
        return Failure(seen, (f"REVERB_HOST={visible(match[2])}, if that is the server.",))
    return Failure(
        seen,
        (
            "REVERB_HOST, REVERB_PORT or REVERB_SCHEME is the website's, not Reverb's.",
            "The proxy redirects what it should pass on: it needs a location for /app.",
        ),
    )


def wrong_header(headers: Mapping[str, str]) -> str | None:
    """Name the header of a 101 for which we can't take it, if there is one; ``Sec-WebSocket-Accept`` aside."""
    for name, value in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        if headers.get(name.lower(), "").lower() != value:
            return name
    return None


def not_websocket(name: str, headers: Mapping[str, str]) -> Failure:
    """A 101 in which the header ``name`` is not as it should be."""
    value = headers.get(name.lower())
    shown = f"without {name}" if value is None else f"with “{name}: {visible(value)}”"
    if name == "Connection" and value is not None and "upgrade" in re.split(r"\s*,\s*", value.lower()):
        return Failure(
            f"HTTP status 101 {shown}; only “Connection: Upgrade” is understood here",
            ("A proxy in front of the server has added to the header: have it pass that on as it is.",),
        )
    return Failure(
        f"HTTP status 101, but {shown}, which is wrong for a WebSocket",
        (
            "A proxy between here and the server changes or caches answers: Upgrade, Connection and "
            "Sec-WebSocket-Accept must come through as the server sends them.",
            "What listens there is no WebSocket server: "
            f"{visible(headers.get('server', 'REVERB_HOST, REVERB_PORT'), 60)}.",
        ),
    )


def not_http(config: ReverbConfig, start: bytes) -> Failure:
    if start[:2] == b"\x15\x03":  # a TLS alert
        return tls_on_plain(config)
    shown = ascii(start[:16].decode(errors="replace"))
    return Failure(
        f"what listens there does not speak HTTP; it says {shown}",
        (f"REVERB_PORT={config.port} is another service's.",),
    )


def hung_up(config: ReverbConfig, *, may_be_tls: bool) -> Failure:
    """``may_be_tls`` is whether the port may speak TLS, and was spoken to in plain."""
    return Failure(
        "the connection was closed without an answer",
        (
            *(_use_tls(config)[:1] if may_be_tls else ()),
            f"What listens on port {config.port} is no web server: REVERB_PORT.",
            "The server, or the proxy in front of it, has failed or refuses this machine: see its log.",
        ),
    )


def upgrade_unanswered(config: ReverbConfig, seconds: float) -> Failure:
    return Failure(
        f"no answer to the HTTP request {within(seconds)}",
        (
            "The server hangs: see whether it is busy, and restart it (php artisan reverb:restart).",
            f"What listens on port {config.port} is no web server: REVERB_PORT.",
        ),
    )


def not_greeted(why: str) -> Failure:
    return Failure(f"the WebSocket opened, but the server did not greet: {why}", _NOT_GREETED)


def not_greeted_in_time(seconds: float) -> Failure:
    return Failure(f"the WebSocket opened, but the server did not greet {within(seconds)}", _NOT_GREETED)


_NOT_GREETED = (
    "What answers is no Pusher-protocol server, or hangs: REVERB_HOST, REVERB_PORT, REVERB_PATH.",
    "A proxy opens WebSockets by itself, and does not pass on what is in them.",
    "The server uses scaling, and does not reach Redis: REVERB_SCALING_ENABLED, REDIS_URL.",
)


# --- words -----------------------------------------------------------------------------------------------------


def reason_of(error: Exception) -> str:
    """What an error says, in the words that are usual."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | EOFError) and not str(error):
        return "the connection was closed"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _excerpt(body: str) -> str:
    text = " ".join(body.split())
    if text.startswith("<"):
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE)
        return f"a page, “{visible(title[1].strip()[:60])}”" if title else "a page of HTML"
    return f"“{visible(text[:60])}”" if text else ""


def within(seconds: float) -> str:
    return f"within {plural(seconds, 'second')} (REVERB_CONNECT_TIMEOUT)"
