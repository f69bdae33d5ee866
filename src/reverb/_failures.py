"""Explains why there is no connection: what was observed, and the likely causes. Pure: looks at errors and answers
only.

The client says it in one line, ``reverb doctor`` in full. The likeliest cause comes first. Each cause names the
setting to change: ours, ``REVERB_…``; the server's, in Laravel's ``config/reverb.php`` and its ``.env``; or that
of the proxy, with nginx as the example.
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
"""Reverb's answer to a path that it does not have. Proxies and websites answer with other texts."""
STRIPS = "nginx's proxy_pass must end with the port. A path after it, or only a slash,"
_TLS_PORT_BODIES = (
    "plain HTTP request was sent to HTTPS port",
    "HTTP request to an HTTPS server",
    "speaking plain HTTP",
)
"""The answers of nginx, of programs in Go, and of Apache to plain HTTP on a TLS port."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")
"""OpenSSL's names for an answer that is not TLS."""
_SHOWN_CAUSES = 2
"""Number of causes in one line."""


class Failure(NamedTuple):
    """What was observed, and the likely causes."""

    seen: str
    causes: tuple[str, ...]
    """Sentences. The likeliest cause comes first."""

    @property
    def line(self) -> str:
        """The observation and the likeliest causes in one line."""
        causes = [cause.rstrip(".;") for cause in self.causes[:_SHOWN_CAUSES]]
        return f"{self.seen}; likely: {'; or: '.join(causes)}" if causes else self.seen


class Certificate(NamedTuple):
    """The fields of a server's certificate."""

    names: tuple[str, ...]
    """Host names and addresses that it is valid for."""
    issuer: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, tls: ssl.SSLObject) -> Certificate:
        """Return the server's certificate after it was verified."""
        fields: Mapping[str, Any] = tls.getpeercert() or {}
        issuer = {name: value for group in fields["issuer"] for name, value in group}
        return cls(
            tuple(value for _, value in fields.get("subjectAltName", ())),
            issuer.get("organizationName") or issuer.get("commonName") or "an unnamed issuer",
            _time(fields["notBefore"]),
            _time(fields["notAfter"]),
        )


def parse_head(head: bytes) -> tuple[int, dict[str, str]] | None:
    """Return the status and the headers of an HTTP answer, with names in lower case; None if it is not one.

    A header that occurs twice becomes a list (RFC 9110, 5.3).
    """
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
    """Return the content of a chunked body (RFC 9112, 7.1), as far as it is complete."""
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
                f"{variable}={host} is a name that only works in another network, such as a container's name.",
            ),
        )
    return Failure(
        f"there is no address for {host}",
        (
            f"{variable} is misspelt, or the name is not (yet) in the DNS.",
            "The names of containers and services work only inside their own network. From outside, use the "
            "name of the host.",
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
            f"A firewall drops packets to port {config.port} of {config.host}: on the server, or in the cloud's "
            "security group.",
            "REVERB_HOST or REVERB_PORT belongs to another machine.",
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
                "The server is not running: php artisan reverb:start.",
                "The server listens on another address: set REVERB_SERVER_HOST on the server; 0.0.0.0 means all "
                "networks.",
            ),
        )
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return Failure(
            f"there is no route to {host}: {error.strerror or error}",
            (
                "This machine is offline, or has no route there: check the VPN and IPv6.",
                f"REVERB_HOST={host} is not the server's address.",
            ),
        )
    return Failure(reason_of(error), (f"REVERB_HOST={host} or REVERB_PORT={port} is wrong.",))


# --- a proxy on the way ----------------------------------------------------------------------------------------


def no_proxy(proxy: str, why: str) -> Failure:
    """There is no connection to the proxy. ``proxy`` is its URL, without a password."""
    return Failure(
        f"no connection to the proxy: {why}", (f"REVERB_PROXY={proxy} is wrong, or the proxy is down.",)
    )


def not_through_proxy(config: ReverbConfig, why: str) -> Failure:
    """The proxy answered, but did not connect us."""
    if re.search("407|authenticat", why.lower()):
        return Failure(
            f"the proxy requires a login: {why}",
            ("REVERB_PROXY must contain the user and the password: http://user:password@host:port.",),
        )
    return Failure(
        f"no connection through the proxy: {why}",
        (
            "REVERB_PROXY is wrong, or the proxy does not allow connections to "
            f"{config.address}: see its log and its rules for CONNECT.",
            "REVERB_HOST, REVERB_PORT or REVERB_SCHEME is wrong.",
        ),
    )


# --- TLS -------------------------------------------------------------------------------------------------------


def plain_on_tls(config: ReverbConfig) -> Failure:
    """The port answers with plain HTTP."""
    return Failure(f"port {config.port} answers with plain HTTP, not with TLS", _use_plain(config))


def silent_on_tls(config: ReverbConfig, seconds: float, *, may_be_plain: bool) -> Failure:
    """The port does not answer to TLS. ``may_be_plain``: it may speak plain HTTP. Reverb does not answer to
    TLS, and waits."""
    causes = _use_plain(config) if may_be_plain else _check_tls(config)
    return Failure(f"no answer to TLS {within(seconds)}", causes)


def no_tls(config: ReverbConfig, error: Exception) -> Failure:
    """A TLS handshake failed, but not because of the certificate."""
    reason = getattr(error, "reason", None)
    if reason in _NO_TLS:
        return Failure(f"port {config.port} answers, but not with TLS", _use_plain(config))
    why = reason or reason_of(error)
    port, server = _check_tls(config)
    return Failure(f"no TLS: {why}", (server, port) if "ALERT" in why else (port, server))


def _use_plain(config: ReverbConfig) -> tuple[str, ...]:
    return (
        f"Port {config.port} needs REVERB_SCHEME=ws (or http).",
        "REVERB_PORT must be the port of the proxy that speaks TLS, usually 443.",
        "Reverb itself must speak TLS: set 'tls' in 'options' in config/reverb.php.",
    )


def _check_tls(config: ReverbConfig) -> tuple[str, str]:
    return (
        f"The service on port {config.port} does not speak TLS: check REVERB_PORT and REVERB_SCHEME.",
        "The server has no certificate for this name, requires one from its clients, or speaks only old TLS.",
    )


def tls_on_plain(config: ReverbConfig) -> Failure:
    return Failure(f"port {config.port} speaks TLS, but the client does not use TLS", _use_tls(config))


def _use_tls(config: ReverbConfig) -> tuple[str, ...]:
    return (
        f"Port {config.port} needs REVERB_SCHEME=wss (or https).",
        "REVERB_PORT must be the port on which Reverb itself listens without TLS, usually 8080.",
    )


def bad_certificate(host: str, error: ssl.SSLCertVerificationError, found: Certificate | None = None) -> Failure:
    """The certificate was refused. ``found`` has its fields, if they could be read."""
    now = datetime.now(timezone.utc)
    clock = f"This machine's clock is wrong: it says {now:%Y-%m-%d %H:%M} UTC. Set it with NTP (timedatectl)."
    issuer = "" if found is None else f" (issued by {found.issuer})"
    reason = error.verify_message.lower()
    if "expired" in reason:
        when = "" if found is None else f" on {found.not_after:%Y-%m-%d}, {count_days(now - found.not_after)} ago"
        return Failure(
            f"the certificate expired{when}{issuer}",
            (
                "The certificate was not renewed, or the web server not reloaded: certbot renew, systemctl "
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
                "REVERB_HOST must be a name in the certificate."
                + (f" Is it {found.names[0]}?" if found is not None and found.names else ""),
                f"The server must have a certificate for {host}: nginx's server_name and ssl_certificate.",
            ),
        )
    if any(part in reason for part in ("key identifier", "basic constraints", "key usage")):
        return Failure(
            f"the certificate is not trusted{issuer}: {error.verify_message}",
            (
                "Since 3.13 Python checks that certificates follow RFC 5280. Issue the certificates of your own "
                "authority again, for instance with mkcert or step-ca.",
            ),
        )
    own_ca = (
        "If the authority is your own, make this machine trust it: SSL_CERT_FILE=/path/to/ca.pem in the "
        "environment (or ssl_context=… in the program)."
    )
    chain = (
        "The server does not send the intermediate certificate: nginx's ssl_certificate must be the fullchain.pem."
    )
    is_self_signed = "self-signed" in reason or "self signed" in reason
    return Failure(
        f"the certificate is not trusted{issuer}: {error.verify_message}",
        (
            *((own_ca,) if is_self_signed else (chain, own_ca)),
            "This machine's list of authorities is missing or old: update the package ca-certificates.",
        ),
    )


def count_days(span: timedelta) -> str:
    return plural(span.days, "day") if span.days else plural(span.seconds // 3600, "hour")


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), timezone.utc)


# --- the upgrade to a WebSocket --------------------------------------------------------------------------------


def upgrade_refused(config: ReverbConfig, status: int, headers: Mapping[str, str], body: str) -> Failure:
    """An HTTP answer other than 101. The beginning of the body is enough."""
    if any(text in body for text in _TLS_PORT_BODIES):
        return tls_on_plain(config)
    server = visible(headers.get("server", ""), 60)
    seen = f"HTTP status {status}{f' by {server}' if server else ''} for {config.path}/app/…"
    excerpt = _excerpt(body)
    if excerpt:
        seen += f": {excerpt}"
    host_and_port = (
        f"REVERB_HOST or REVERB_PORT={config.port} belongs to the website, not to Reverb (usually 8080)."
    )
    if 300 <= status < 400:
        return _redirected(config, status, headers.get("location", ""))
    # Reverb answers 500 to a request for /app/KEY that is no upgrade; ratchet's older handshake answers 426.
    if status in (400, 426) or (status == 500 and "Internal server error" in body):
        return Failure(
            seen,
            (UPGRADE_HEADERS, "Another service than Reverb listens there: check REVERB_HOST and REVERB_PORT."),
        )
    if status == 429:
        return Failure(seen, ("A proxy in front of the server limits connections or requests: see its settings.",))
    if status in (502, 503, 504):
        return Failure(
            seen,
            (
                "Reverb is not running behind the proxy: php artisan reverb:start. Let Supervisor start it again.",
                "The proxy has a wrong address: nginx's proxy_pass must have the server's "
                "REVERB_SERVER_PORT, such as http://127.0.0.1:8080.",
            ),
        )
    if status in (401, 403, 407):
        return Failure(
            seen,
            (
                "Something in front of the server refuses: a firewall, a proxy that requires a login, Cloudflare. "
                f"Make an exception for {config.path}/app/ there.",
            ),
        )
    if status == 404 or status < 300 or status == 405:
        path = f"REVERB_PATH must be the server's REVERB_SERVER_PATH; it is {config.path or 'not set'}."
        if is_not_found(status, body):
            seen += ", which is Reverb's own answer"
            return Failure(seen, (path, *((strips_path(config),) if "server" in headers else ())))
        location = (
            "The proxy has no location for this path, so the website answers: in nginx, add location "
            f"{config.path}/app with proxy_pass to Reverb."
        )
        causes = (path, location, host_and_port) if status >= 400 else (location, host_and_port, path)
        return Failure(seen, causes)
    return Failure(seen, ("The server, or the proxy in front of it, has failed: see its log.", UPGRADE_HEADERS))


def is_not_found(status: int, body: str) -> bool:
    """Return whether Reverb itself says that it does not have the path."""
    return status == 404 and body.strip() == NOT_FOUND


def strips_path(config: ReverbConfig) -> str:
    return f"The proxy cuts {config.path}/app off before it passes the request on. {STRIPS} replaces it."


def _redirected(config: ReverbConfig, status: int, location: str) -> Failure:
    target = re.sub("//[^/]*@", "//", re.split("[?#]", location)[0]).replace(config.app_key, "…")
    seen = f"HTTP status {status}: it redirects to {visible(target) or 'nowhere'}"
    match = re.match(r"(https?)://([^/:]+)(?::(\d+))?", target)
    if match is not None and match[1] == "https" and config.scheme == "ws":
        return Failure(seen, (f"It needs REVERB_SCHEME=wss (or https) and REVERB_PORT={match[3] or 443}.",))
    if match is not None and match[2] != config.host:
        return Failure(seen, (f"REVERB_HOST={visible(match[2])}, if that is the server.",))
    return Failure(
        seen,
        (
            "REVERB_HOST, REVERB_PORT or REVERB_SCHEME belongs to the website, not to Reverb.",
            "The proxy redirects requests that it should pass on: it needs a location for /app.",
        ),
    )


def wrong_header(headers: Mapping[str, str]) -> str | None:
    """Return the header of a 101 that is wrong for us, if there is one; ``Sec-WebSocket-Accept`` is not
    checked."""
    for name, value in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        if headers.get(name.lower(), "").lower() != value:
            return name
    return None


def not_websocket(name: str, headers: Mapping[str, str]) -> Failure:
    """A 101 with a wrong header ``name``."""
    value = headers.get(name.lower())
    shown = f"without {name}" if value is None else f"with “{name}: {visible(value)}”"
    if name == "Connection" and value is not None and "upgrade" in re.split(r"\s*,\s*", value.lower()):
        return Failure(
            f"HTTP status 101 {shown}; the client accepts only “Connection: Upgrade”",
            ("A proxy in front of the server has changed the header: let it pass the header on unchanged.",),
        )
    return Failure(
        f"HTTP status 101, but {shown}, which is wrong for a WebSocket",
        (
            "A proxy in front of the server changes or caches answers: Upgrade, Connection and "
            "Sec-WebSocket-Accept must arrive as the server sends them.",
            "The service there is not a WebSocket server: "
            f"{visible(headers.get('server', 'REVERB_HOST, REVERB_PORT'), 60)}.",
        ),
    )


def not_http(config: ReverbConfig, start: bytes) -> Failure:
    if start[:2] == b"\x15\x03":  # a TLS alert
        return tls_on_plain(config)
    shown = ascii(start[:16].decode(errors="replace"))
    return Failure(
        f"the service there does not speak HTTP; it sends {shown}",
        (f"REVERB_PORT={config.port} belongs to another service.",),
    )


def hung_up(config: ReverbConfig, *, may_be_tls: bool) -> Failure:
    """The connection was closed without an answer. ``may_be_tls``: the port may speak TLS, and we did not use
    it."""
    return Failure(
        "the connection was closed without an answer",
        (
            *(_use_tls(config)[:1] if may_be_tls else ()),
            f"The service on port {config.port} is not a web server: check REVERB_PORT.",
            "The server, or the proxy in front of it, has failed or refuses this machine: see its log.",
        ),
    )


def upgrade_unanswered(config: ReverbConfig, seconds: float) -> Failure:
    return Failure(
        f"no answer to the HTTP request {within(seconds)}",
        (
            "The server hangs: check its load, and restart it (php artisan reverb:restart).",
            f"The service on port {config.port} is not a web server: check REVERB_PORT.",
        ),
    )


def not_established(why: str) -> Failure:
    return Failure(f"{_OPENED_ONLY}: {why}", _NOT_ESTABLISHED)


def not_established_in_time(seconds: float) -> Failure:
    return Failure(f"{_OPENED_ONLY} {within(seconds)}", _NOT_ESTABLISHED)


_OPENED_ONLY = "the WebSocket opened, but the server did not send pusher:connection_established"
_NOT_ESTABLISHED = (
    "The server does not speak the Pusher protocol, or hangs: check REVERB_HOST, REVERB_PORT and REVERB_PATH.",
    "A proxy opens the WebSocket itself, and does not pass on the messages.",
    "The server uses scaling, and can't reach Redis: check REVERB_SCALING_ENABLED and REDIS_URL.",
)


# --- words -----------------------------------------------------------------------------------------------------


def reason_of(error: Exception) -> str:
    """Return the usual words for an error."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | EOFError) and not str(error):
        return "the connection was closed"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _excerpt(body: str) -> str:
    text = " ".join(body.split())
    if text.startswith("<"):
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE)
        return f"a page, “{visible(title[1].strip()[:60])}”" if title else "an HTML page"
    return f"“{visible(text[:60])}”" if text else ""


def within(seconds: float) -> str:
    return f"within {plural(seconds, 'second')} (REVERB_CONNECT_TIMEOUT)"
