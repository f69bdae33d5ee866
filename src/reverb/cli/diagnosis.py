"""What can be wrong, by what was seen, and what to do about it. Pure: looks at errors and answers, does nothing.

Causes stand in the order of their likelihood. Each names the setting to change: ours, ``REVERB_…``; the server's,
in Laravel's ``config/reverb.php`` and its ``.env``; or the proxy's in between, for which nginx stands.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Mapping, Set
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from .. import ReverbConfig
from .._protocol import ServerError, is_auth_refusal
from .._settings import Found, where
from ..exceptions import APIError, AuthenticationError, ReverbError
from .probe import Answer, Certificate
from .process import ExitCode
from .view import plural

__all__ = ["Place", "Problem", "Refused"]

_RESTART = "After changes of the server's .env: php artisan config:clear, then php artisan reverb:restart."
_UPGRADE_HEADERS = (
    "The proxy does not pass the upgrade on; in nginx's location: proxy_http_version 1.1; "
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "Upgrade";'
)
_STRIPS = "nginx's proxy_pass must end behind the port: a path there, or a slash alone,"
_SEVERAL = (
    "There are several servers that know nothing of each other: REVERB_SCALING_ENABLED=true on all of them, and "
    "one Redis for all."
)
_REDIS = "With REVERB_SCALING_ENABLED=true, the server does not reach Redis: REDIS_URL, REDIS_HOST."
_GUARD = "Broadcast::routes(['middleware' => ['auth:sanctum']])"
_REVERB_NOT_FOUND = "Not found."
"""What Reverb says to a path that it does not have. Proxies and websites say other things."""
_SIGNATURE_LIFETIME = 600
"""Seconds that a signed request of the HTTP API is valid."""
_EXPIRES_SOON = 14
"""Days."""


class Problem(Exception):  # noqa: N818 - a finding, and nothing that went wrong in here
    """What a step has found: the fact, and its likely causes."""

    def __init__(
        self,
        detail: str,
        *causes: str | None,
        code: ExitCode = ExitCode.CONNECTION,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.causes = tuple(cause for cause in causes if cause)
        self.code = code
        self.status = status
        """The HTTP status that it is about."""


class Refused(Exception):  # noqa: N818
    """The server's answer was an error."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(str(error))
        self.error = error


class Place(NamedTuple):
    """What causes depend on: the settings, where they were found, and the server's own if they are here, too."""

    config: ReverbConfig
    found: Mapping[str, Found]
    server_path: str | None = None
    """``REVERB_SERVER_PATH``, where it is set on this machine."""
    server_port: str | None = None
    """``REVERB_SERVER_PORT``."""

    @property
    def address(self) -> str:
        return self.config.address

    @property
    def is_tls(self) -> bool:
        return self.config.scheme == "wss"

    def check(self, *names: str) -> str | None:
        """Say what looks wrong about settings by themselves."""
        for name in names:
            found = self.found.get(name)
            if found is None or found.value is None:
                continue
            variable, value = f"REVERB_{name.upper()}", found.text
            if value != value.strip() or value.startswith(('"', "'")):
                return f"{variable} begins or ends with a space or a quotation mark, which counts as part of it."
            if found.hint:
                return f"{where(name, found)} {found.hint}."
            if found.differing:
                others = " and ".join(map(_name_source, found.differing))
                return f"{variable} is from {_name_source(found.source)}, and another in {others}: which is right?"
        return None


def _name_source(source: str) -> str:
    return {"argument": "the option", "environment": "the environment"}.get(source, source)


# --- to the server ---------------------------------------------------------------------------------------------


def no_name(host: str, variable: str, error: OSError | UnicodeError) -> Problem:
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return Problem(
            f"the name {host} can't be looked up at the moment",
            "This machine is offline, or its DNS server does not answer: see /etc/resolv.conf.",
            f"{variable}={host} is a name that only another network knows, such as a container's.",
        )
    return Problem(
        f"there is no address for {host}",
        f"{variable} is misspelt, or the name is not in the DNS (yet).",
        "Names of containers and services are known inside their own network only; from outside use the host's.",
    )


def slow_name(host: str, seconds: float) -> Problem:
    return Problem(
        f"the name {host} was not looked up within {plural(seconds, 'second')}",
        "This machine's DNS server does not answer: see /etc/resolv.conf.",
    )


def no_answer(what: str, seconds: float, *causes: str | None) -> Problem:
    return Problem(f"no {what} within {plural(seconds, 'second')}", *causes)


def black_hole(place: Place, seconds: float) -> Problem:
    host, port = place.config.host, place.config.port
    return no_answer(
        "answer",
        seconds,
        f"A firewall drops what is for port {port} of {host}: on the server, or a cloud's security group.",
        "REVERB_HOST or REVERB_PORT is another machine's.",
    )


def no_connection(place: Place, error: OSError) -> Problem:
    host, port = place.config.host, place.config.port
    if error.errno == errno.ECONNREFUSED:
        return Problem(
            f"nothing listens on port {port} of {host}: connection refused",
            f"REVERB_SERVER_PORT is {place.server_port} here, so try REVERB_PORT={place.server_port}."
            if place.server_port not in (None, str(port))
            else None,
            f"REVERB_PORT={port} is wrong: without a proxy it is the server's REVERB_SERVER_PORT, usually 8080.",
            "The server does not run: php artisan reverb:start.",
            "It listens elsewhere: REVERB_SERVER_HOST on the server, 0.0.0.0 for all networks.",
        )
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL):
        return Problem(
            f"there is no way to {host}: {error.strerror or error}",
            "This machine is offline, or has no route there: a VPN, or IPv6.",
            f"REVERB_HOST={host} is not the server's address.",
        )
    return Problem(f"{error.strerror or error}", f"REVERB_HOST={host} or REVERB_PORT={port} is wrong.")


def no_proxy(proxy: str, why: str) -> Problem:
    return Problem(f"no connection to the proxy: {why}", f"REVERB_PROXY={proxy} is wrong, or the proxy is down.")


def plain_on_tls(place: Place, is_plain: bool, detail: str) -> Problem:
    """A TLS handshake that failed; ``is_plain`` is whether the port answers in plain HTTP."""
    if is_plain:
        return Problem(
            f"port {place.config.port} answers in plain HTTP, not in TLS",
            f"REVERB_SCHEME=ws (or http) for port {place.config.port}.",
            "Or the port of the proxy that speaks TLS: REVERB_PORT=443, usually.",
            "Or have Reverb speak TLS itself: 'tls' below 'options' in config/reverb.php.",
        )
    return Problem(
        detail,
        f"What listens on port {place.config.port} does not speak TLS: check REVERB_PORT and REVERB_SCHEME.",
        "The server has no certificate for this name, wants one from its clients, or speaks old TLS only.",
    )


def tls_on_plain(place: Place) -> Problem:
    return Problem(
        f"port {place.config.port} speaks TLS, and was spoken to in plain",
        "REVERB_SCHEME=wss (or https).",
        "Or the port at which Reverb itself listens, in plain: REVERB_PORT=8080, usually.",
    )


def certificate(place: Place, error: ssl.SSLCertVerificationError, seen: Certificate | None) -> Problem:
    host, now = place.config.host, datetime.now(timezone.utc)
    issuer = "" if seen is None else f" (issued by {seen.issuer})"
    reason = error.verify_message.lower()
    if "expired" in reason:
        when = "" if seen is None else f" on {seen.not_after:%Y-%m-%d}, {_days(now - seen.not_after)} ago"
        return Problem(
            f"the certificate expired{when}{issuer}",
            "Renew the server's certificate, and reload what serves it: certbot renew, systemctl reload nginx.",
            f"This machine's clock is wrong: it says {now:%Y-%m-%d %H:%M} UTC.",
        )
    if "not yet valid" in reason:
        when = "" if seen is None else f" before {seen.not_before:%Y-%m-%d %H:%M} UTC"
        return Problem(
            f"the certificate is not valid{when}",
            f"This machine's clock is wrong: it says {now:%Y-%m-%d %H:%M} UTC. Have it set by NTP (timedatectl).",
            "The server's certificate was made with a wrong clock.",
        )
    if "mismatch" in reason or "not valid for" in reason:
        names = "" if seen is None else f", but for {', '.join(seen.names[:4]) or 'no name at all'}"
        return Problem(
            f"the certificate is not for {host}{names}",
            "REVERB_HOST must be a name that is in the certificate."
            + (f" Is it {seen.names[0]}?" if seen is not None and seen.names else ""),
            f"The server must have a certificate for {host}: nginx's server_name and ssl_certificate.",
        )
    if any(part in reason for part in ("key identifier", "basic constraints", "key usage")):
        return Problem(
            f"the certificate is not trusted{issuer}: {error.verify_message}",
            "Python checks since 3.13 that certificates follow RFC 5280. Make those of your own authority anew, "
            "with mkcert or step-ca for instance.",
        )
    own_ca = (
        "If the authority is your own, have this machine trust it: SSL_CERT_FILE=/path/to/ca.pem in the "
        "environment (or ssl_context=… in the program)."
    )
    chain = (
        "The server leaves out the intermediate certificate: nginx's ssl_certificate must be the fullchain.pem."
    )
    is_self_signed = "self-signed" in reason or "self signed" in reason
    return Problem(
        f"the certificate is not trusted{issuer}: {error.verify_message}",
        *((own_ca, None) if is_self_signed else (chain, own_ca)),
        "This machine's list of authorities is missing or old: the package ca-certificates.",
    )


def describe_certificate(version: str | None, seen: Certificate) -> str:
    left = seen.not_after - datetime.now(timezone.utc)
    until = f"valid until {seen.not_after:%Y-%m-%d}"
    if left.days < _EXPIRES_SOON:
        until += f", only {_days(left)} more"
    return f"{version}, certificate by {seen.issuer}, {until}"


def _days(span: timedelta) -> str:
    return plural(span.days, "day") if span.days else plural(span.seconds // 3600, "hour")


# --- the upgrade -----------------------------------------------------------------------------------------------


def upgrade_refused(place: Place, answer: Answer, working_path: str | None) -> Problem:
    """An HTTP answer that is not 101. ``working_path`` is a ``REVERB_PATH`` with which it is."""
    status, server = answer.status, answer.headers.get("server", "")
    by = f" by {server}" if server else ""
    path = f"{place.config.path}/app/…"
    detail = f"HTTP status {status}{by} for {path}"
    excerpt = _excerpt(answer)
    if excerpt:
        detail += f": {excerpt}"
    if "plain HTTP request was sent to HTTPS port" in answer.body:
        return tls_on_plain(place)
    if 300 <= status < 400:
        return _redirected(place, answer)
    # Reverb answers 500 to a request for /app/KEY that is no upgrade; ratchet's older handshake answers 426.
    if status in (400, 426) or (status == 500 and "Internal server error" in answer.body):
        return Problem(
            detail, _UPGRADE_HEADERS, "Something else than Reverb listens there: REVERB_HOST, REVERB_PORT."
        )
    if status in (502, 503, 504):
        return Problem(
            detail,
            "Reverb does not run behind the proxy: php artisan reverb:start, and Supervisor to start it again.",
            "The proxy looks in the wrong place: nginx's proxy_pass must have the server's REVERB_SERVER_PORT, "
            "such as http://127.0.0.1:8080.",
        )
    if status in (401, 403, 407):
        return Problem(
            detail,
            "Something in front of the server refuses: a firewall, a proxy that wants a login, Cloudflare. "
            f"Make an exception for {place.config.path}/app/ there.",
        )
    if status == 404 or status < 300 or status == 405:
        return _not_found(place, answer, detail, working_path)
    return Problem(detail, "The server, or the proxy in front of it, has failed: see its log.", _UPGRADE_HEADERS)


def is_reverbs_not_found(answer: Answer) -> bool:
    return answer.status == 404 and answer.body.strip() == _REVERB_NOT_FOUND


def _not_found(place: Place, answer: Answer, detail: str, working_path: str | None) -> Problem:
    path, set_path = place.config.path, None
    if place.server_path is not None and place.server_path.strip("/") != path.strip("/"):
        set_path = f"REVERB_SERVER_PATH is {place.server_path} here, so try REVERB_PATH={place.server_path}."
    strips = f"The proxy cuts {path}/app off before it passes the request on. {_STRIPS} replaces it."
    if working_path == "":
        return Problem(detail, "REVERB_PATH must be empty: without it the server answers.")
    if working_path is not None:
        return Problem(detail, strips, f"Until that is mended, REVERB_PATH={working_path} works.")
    other_path = f"REVERB_PATH must be the server's REVERB_SERVER_PATH; it is {path or 'not set'}."
    if is_reverbs_not_found(answer):
        return Problem(
            f"{detail}, which is Reverb's own answer",
            set_path,
            other_path,
            strips if "server" in answer.headers else None,
        )
    return Problem(
        detail,
        set_path,
        other_path,
        f"The proxy has no location for it, so the website answers: in nginx, location {path}/app with proxy_pass "
        "to Reverb.",
        f"REVERB_HOST or REVERB_PORT={place.config.port} is the website's, not Reverb's (usually 8080).",
    )


def _redirected(place: Place, answer: Answer) -> Problem:
    target = answer.headers.get("location", "").partition("?")[0]
    detail = (
        f"HTTP status {answer.status}: it redirects to {target.replace(place.config.app_key, '…') or 'nowhere'}"
    )
    match = re.match(r"(https?)://([^/:]+)(?::(\d+))?", target)
    if match is not None and match[1] == "https" and not place.is_tls:
        return Problem(detail, f"REVERB_SCHEME=wss (or https) and REVERB_PORT={match[3] or 443}.")
    if match is not None and match[2] != place.config.host:
        return Problem(detail, f"REVERB_HOST={match[2]}, if that is the server.")
    return Problem(
        detail,
        "REVERB_HOST, REVERB_PORT or REVERB_SCHEME is the website's, not Reverb's.",
        "The proxy redirects what it should pass on: it needs a location for /app.",
    )


def unusual_headers(answer: Answer) -> str:
    """What a 101 has other than servers send it: WebSocket libraries may refuse that."""
    wanted = {"Upgrade": "websocket", "Connection": "upgrade"}
    return " and ".join(
        f"{name}: {answer.headers[name.lower()]}" if name.lower() in answer.headers else f"no {name}"
        for name, value in wanted.items()
        if answer.headers.get(name.lower(), "").lower() != value
    )


def not_websocket(answer: Answer) -> Problem:
    return Problem(
        "HTTP status 101, but with the wrong headers for a WebSocket: "
        f"{unusual_headers(answer) or 'a Sec-WebSocket-Accept that is not for our key'}",
        "A proxy between here and the server changes or caches answers: Upgrade, Connection and "
        "Sec-WebSocket-Accept must come through as the server sends them.",
        f"What listens there is no WebSocket server: {answer.headers.get('server', 'REVERB_HOST, REVERB_PORT')}.",
    )


def not_http(place: Place, start: bytes) -> Problem:
    if start[:2] == b"\x15\x03":  # a TLS alert
        return tls_on_plain(place)
    shown = ascii(start.decode(errors="replace"))
    return Problem(
        f"what listens there does not speak HTTP; it says {shown}",
        f"REVERB_PORT={place.config.port} is another service's.",
    )


def hung_up(place: Place) -> Problem:
    return Problem(
        "the connection was closed without an answer",
        f"What listens on port {place.config.port} is no web server: REVERB_PORT.",
        "The server, or the proxy in front of it, has failed or refuses this machine: see its log.",
    )


def upgrade_unanswered(place: Place, seconds: float) -> Problem:
    return no_answer(
        "answer to the HTTP request",
        seconds,
        "The server hangs: see whether it is busy, and restart it (php artisan reverb:restart).",
        f"What listens on port {place.config.port} is no web server: REVERB_PORT.",
    )


def not_through_proxy(place: Place, error: ReverbError) -> Problem:
    return Problem(
        str(error),
        "REVERB_PROXY is wrong, or that proxy lets nobody through to "
        f"{place.address}: see its log, and what it allows for CONNECT.",
        "REVERB_HOST, REVERB_PORT, REVERB_SCHEME or REVERB_PATH is wrong; without REVERB_PROXY more can be seen.",
    )


def _excerpt(answer: Answer) -> str:
    text = " ".join(answer.body.split())
    if text.startswith("<"):
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE)
        return f"a page, “{title[1].strip()[:60]}”" if title else "a page of HTML"
    return f"“{text[:60]}”" if text else ""


# --- the application -------------------------------------------------------------------------------------------


def wrong_key(place: Place, error: ReverbError) -> Problem:
    return Problem(
        f"the server knows no application with this key ({error.code})",
        place.check("app_key"),
        "REVERB_APP_KEY must be that of the server's .env: the key of an application in its config/reverb.php.",
        f"{place.address} is another server than you think: REVERB_HOST, REVERB_PORT.",
        _RESTART,
    )


def wrong_origin(place: Place, error: ReverbError, accepted: str | None) -> Problem:
    ours = place.config.origin
    return Problem(
        f"the server does not allow {f'the Origin {ours}' if ours else 'connections without an Origin'} "
        f"({error.code})",
        f"REVERB_ORIGIN={accepted}: the server takes that." if accepted else None,
        None
        if accepted
        else "REVERB_ORIGIN must be a URL whose host the server allows, such as https://example.com.",
        "Or the server must allow it: allowed_origins in its config/reverb.php, which may read "
        "REVERB_ALLOWED_ORIGINS; * allows all.",
        _RESTART,
    )


def over_quota(error: ReverbError) -> Problem:
    return Problem(
        f"the application has all the connections that it may have ({error.code})",
        "Raise max_connections of the application in the server's config/reverb.php (REVERB_APP_MAX_CONNECTIONS).",
        "Programs that are thought dead hold connections: reverb connections counts them.",
    )


def not_greeted(place: Place, error: ReverbError) -> Problem:
    if error.code is not None and 4000 <= error.code < 4100:
        return Problem(str(error), "See what the server's log says.")
    return Problem(
        f"the WebSocket opened, but the server did not greet: {error}",
        "What answers is no Pusher-protocol server, or hangs: REVERB_HOST, REVERB_PORT, REVERB_PATH.",
        "A proxy opens WebSockets by itself, and does not pass on what is in them.",
        "The server uses scaling, and does not reach Redis: REVERB_SCALING_ENABLED, REDIS_URL.",
    )


def lost(error: ReverbError) -> Problem:
    return Problem(
        str(error),
        "A proxy ends the connection early: nginx's proxy_read_timeout must be longer than REVERB_PING_INTERVAL.",
        "The server was restarted, or has crashed: see its log.",
    )


def no_pong(seconds: float) -> Problem:
    return no_answer(
        "answer to a ping",
        seconds,
        "The server hangs: something blocks it, or the machine is overloaded.",
        "A proxy opens WebSockets by itself, and does not pass on what is in them.",
    )


def ping_refused(error: ServerError) -> Problem:
    """There is nothing in a ping that could be wrong."""
    if error.code != 4200:
        return refused(error)
    return Problem(
        f"the server answers even a ping with an error: {error}",
        "The rate limit of the application does not work: decay_seconds below rate_limiting in the server's "
        "config/reverb.php must be a number, but a variable is a text. Write "
        "(int) env('REVERB_APP_RATE_LIMIT_DECAY_SECONDS', 60) there, or take the variable out of its .env.",
        "The server fails at each message: see its log (storage/logs/laravel.log).",
        _RESTART,
    )


# --- channels --------------------------------------------------------------------------------------------------


def refused_signature(place: Place, error: ServerError, *, is_named: bool) -> Problem:
    """Our own signature, made with the secret, was refused."""
    if not is_auth_refusal(error):
        return refused(error, is_named=is_named)
    return Problem(
        f"the server does not accept the signature: {error}",
        place.check("app_secret", "app_key"),
        "REVERB_APP_SECRET must be the secret that belongs to REVERB_APP_KEY in the server's config/reverb.php.",
        _RESTART,
        code=ExitCode.REFUSED,
    )


def refused_endpoint(error: ServerError, *, is_other_key: bool, is_named: bool) -> Problem:
    """What the endpoint signed was refused."""
    if not is_auth_refusal(error):
        return refused(error, is_named=is_named)
    return Problem(
        f"the server does not accept what the endpoint has signed: {error}",
        "The endpoint signs for another application: REVERB_APP_KEY must be the same here and there."
        if is_other_key
        else None,
        "The Laravel application behind REVERB_AUTH_ENDPOINT must have the server's REVERB_APP_KEY and "
        "REVERB_APP_SECRET in its .env; then php artisan config:clear.",
        code=ExitCode.REFUSED,
    )


def refused(error: ServerError, *, is_named: bool = False) -> Problem:
    """``is_named`` is whether it is about a channel whose name is not our own."""
    if error.code == 4301 and "rate" in error.message.lower():
        return Problem(
            f"the server takes no more messages for now: {error}",
            "Raise REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS on the server.",
            code=ExitCode.REFUSED,
        )
    return Problem(
        f"the server refuses: {error}",
        "The channel's name is not one that the server takes: letters, digits and _ - = @ , . ; only."
        if is_named
        else None,
        "See what the server's log says.",
        code=ExitCode.REFUSED,
    )


def no_confirmation(seconds: float) -> Problem:
    return no_answer("confirmation", seconds, "The server hangs: something blocks it, or it does not reach Redis.")


def unsigned(channel: str) -> Problem:
    return Problem(
        f"{channel} wants a signature, and there is nothing to make one with",
        "Set REVERB_APP_SECRET, or REVERB_AUTH_ENDPOINT and REVERB_AUTH_TOKEN.",
        code=ExitCode.REFUSED,
    )


def no_channel_key() -> Problem:
    return Problem(
        "subscribed, but its events can't be decrypted",
        "REVERB_ENCRYPTION_MASTER_KEY must be what encryption_master_key_base64 is in Laravel's "
        "config/broadcasting.php.",
        code=ExitCode.REFUSED,
    )


def no_client_events(error: ServerError) -> Problem:
    if error.code != 4301 or "rate" in error.message.lower():
        return refused(error)
    return Problem(
        f"trigger() does not work: {error}",
        "Allow client events on the server: accept_client_events_from in config/reverb.php "
        "(REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=members). soketi: enableClientMessages.",
        "If no program triggers events, all is well: leave it as it is.",
        code=ExitCode.REFUSED,
    )


def no_second_connection(error: ReverbError) -> Problem:
    """Without one nobody sees whether client events arrive."""
    detail = f"not tried, because it needs a second connection: {error}"
    if error.code == 4004:
        return Problem(detail, *over_quota(error).causes, code=ExitCode.REFUSED)
    return Problem(
        detail,
        "The server, or the proxy in front of it, allows one connection for each address: nginx's limit_conn.",
        "It was restarted, or has crashed: see its log.",
        code=ExitCode.REFUSED,
    )


def client_event_lost(seconds: float) -> Problem:
    """It got lost without an error, with which servers tell that they don't allow any."""
    return Problem(
        f"a client event did not arrive at another connection within {plural(seconds, 'second')}",
        _SEVERAL,
        _REDIS,
        "Client events are not allowed on the server: accept_client_events_from in config/reverb.php "
        "(REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=members).",
        code=ExitCode.REFUSED,
    )


def endpoint(url: str, error: AuthenticationError) -> Problem:
    """The endpoint did not authorise, ``error`` says why not."""
    code = error.code
    causes: tuple[str, ...]
    if code is None:
        reason = str(error).rpartition(": ")[2]
        detail = f"{url} can't be asked: {reason}"
        causes = ("REVERB_AUTH_ENDPOINT is wrong, or the application is down.",)
        if "certificate" in str(error):
            causes = (
                "Its certificate must be one that this machine trusts, and for the host in REVERB_AUTH_ENDPOINT.",
            )
    elif 200 <= code < 300:
        detail = f"{url} answered with something else than an authorisation"
        if "page" in str(error):
            detail = f"{url} answered with a page, most likely to log in"
        causes = (
            "REVERB_AUTH_ENDPOINT must be the whole URL, with /broadcasting/auth or what is there instead.",
            f"The route wants a login with cookies; one for tokens is {_GUARD}, with REVERB_AUTH_TOKEN.",
        )
    else:
        detail = f"{url} answered with HTTP status {code}"
        causes = _ENDPOINT_CAUSES.get(code) or (
            (
                "It redirects: REVERB_AUTH_ENDPOINT has the wrong scheme or host, or the route wants a login: "
                "REVERB_AUTH_TOKEN.",
            )
            if 300 <= code < 400
            else ("The application has failed: see storage/logs/laravel.log there.",)
        )
    return Problem(detail, *causes, code=ExitCode.REFUSED, status=code)


_ENDPOINT_CAUSES = {
    401: (
        "REVERB_AUTH_TOKEN is missing, wrong, or has expired.",
        f"The route has another guard; one for tokens is {_GUARD}.",
    ),
    403: (
        "The callback of the channel in routes/channels.php says no to this user, or there is none for this name.",
        "REVERB_AUTH_TOKEN is another user's.",
    ),
    404: (
        "REVERB_AUTH_ENDPOINT is wrong: php artisan route:list shows where broadcasting/auth is.",
        "Broadcasting is not installed: php artisan install:broadcasting.",
    ),
    405: ("REVERB_AUTH_ENDPOINT is another route, which takes no POST.",),
    419: (
        "REVERB_AUTH_ENDPOINT is a route with CSRF protection, of the group web. Programs need one of the group "
        f"api, {_GUARD}, and REVERB_AUTH_TOKEN.",
    ),
    429: ("Too many requests: the route has a throttle.",),
}


def slow_endpoint(url: str, seconds: float) -> Problem:
    return Problem(
        f"{url} did not authorise within {plural(seconds, 'second')}",
        "The application is slow, or fails again and again: see storage/logs/laravel.log there.",
        "REVERB_AUTH_ENDPOINT is wrong.",
        code=ExitCode.REFUSED,
    )


# --- the HTTP API ----------------------------------------------------------------------------------------------


def clock_off(offset: float) -> Problem | None:
    """``offset`` is in seconds, ours minus the server's; None is what a clock may be off."""
    if abs(offset) <= _SIGNATURE_LIFETIME:
        return None
    return Problem(
        f"this machine is {describe_offset(offset)} the server; signed "
        f"requests are valid for {_SIGNATURE_LIFETIME} seconds",
        "Set this machine's clock by NTP (timedatectl set-ntp true); or the server's, if that is the wrong one.",
        code=ExitCode.REFUSED,
    )


def describe_offset(offset: float) -> str:
    seconds, where = abs(offset), "ahead of" if offset > 0 else "behind"
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} {where}"
    return f"{plural(round(seconds), 'second')} {where}"


def api(place: Place, error: ReverbError, *, is_clock_off: bool) -> Problem:
    config = place.config
    if not isinstance(error, APIError):
        return Problem(
            str(error),
            "The server, or the proxy in front of it, does not answer what is below /apps/: see its log.",
        )
    status, code = error.status, ExitCode.REFUSED
    path = f"{config.path}/apps/{config.app_id}/events"
    text = str(error).partition(f"with {status}: ")[2].rpartition("; ")[0] or "no reason given"
    detail = f"HTTP status {status} for {path}: {text}"
    if status == 401:
        return Problem(
            detail,
            "This machine's clock is off, see above." if is_clock_off else None,
            place.check("app_secret", "app_key", "app_id"),
            "REVERB_APP_SECRET must be the secret of the application REVERB_APP_ID in the server's "
            "config/reverb.php.",
            "A proxy changes the path: what is signed must arrive as it is"
            + (f", but for {config.path}, which is not signed." if config.path else "."),
            code=code,
        )
    if status == 404:
        app_id = (
            place.check("app_id"),
            f"REVERB_APP_ID={config.app_id} must be the id of the application in the server's config/reverb.php.",
        )
        proxy = (
            f"The proxy passes on {config.path}/app, but not {config.path}/apps: in nginx, "
            f"location ~ ^{config.path}/apps? with proxy_pass to Reverb.",
        )
        if _REVERB_NOT_FOUND in text:
            strips = f"The proxy changes what is below {config.path}/apps. {_STRIPS} replaces the location's."
            other_path = f"REVERB_PATH must be the server's REVERB_SERVER_PATH; it is {config.path or 'not set'}."
            return Problem(f"{detail}, which is Reverb's own answer", strips, other_path, code=code)
        is_from_server = "application" in text.lower() or re.search(r"\bapp\b", text.lower())
        return Problem(detail, *(app_id + proxy if is_from_server else proxy + app_id), code=code)
    if 300 <= status < 400:
        return Problem(detail, "It redirects: check REVERB_SCHEME, REVERB_HOST and REVERB_PORT.", code=code)
    if status in (502, 503, 504):
        return Problem(
            detail,
            "The proxy does not reach Reverb for what is below /apps/: nginx's proxy_pass there.",
            code=code,
        )
    if status == 403:
        return Problem(
            detail, "Something in front of the server refuses it: a firewall, or a rule of the proxy.", code=code
        )
    if status == 413:
        return Problem(
            detail,
            "The server takes very small requests only: max_request_size in config/reverb.php "
            "(REVERB_MAX_REQUEST_SIZE), nginx's client_max_body_size.",
            code=code,
        )
    if 200 <= status < 300:
        return Problem(
            f"HTTP status {status} for {path}, but not the answer of a Pusher-protocol server",
            f"The proxy passes on {config.path}/app, but not {config.path}/apps, so that the website answers: in "
            f"nginx, location ~ ^{config.path}/apps? with proxy_pass to Reverb.",
            code=code,
        )
    return Problem(detail, "The server has failed: see its log (storage/logs/laravel.log).", code=code)


def not_delivered(place: Place, seconds: float, seen: Set[bool]) -> Problem:
    """``seen`` is whether the HTTP API knows our subscription: all the answers that it gave."""
    other_app = f"REVERB_APP_ID={place.config.app_id} is another application's than REVERB_APP_KEY."
    causes = [other_app, _SEVERAL, _REDIS]
    if seen == {True}:
        causes = [_REDIS, _SEVERAL]
    elif len(seen) > 1:
        causes = [f"{_SEVERAL} Only some of them know our subscription."]
    return Problem(
        f"what was published over the HTTP API did not arrive within {plural(seconds, 'second')}",
        *causes,
        code=ExitCode.REFUSED,
    )
