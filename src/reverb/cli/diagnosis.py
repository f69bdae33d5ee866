"""What can be wrong, by what was seen, and what to do about it. Pure: looks at errors and answers, does nothing.

Causes stand in the order of their likelihood. Each names the setting to change: ours, ``REVERB_…``; the server's,
in Laravel's ``config/reverb.php`` and its ``.env``; or the proxy's in between, for which nginx stands.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Mapping, Set
from datetime import datetime, timezone
from typing import NamedTuple
from urllib.parse import urlsplit

from .. import ReverbConfig, _failures
from .._failures import Certificate, Failure, count_days
from .._protocol import ServerError, is_auth_refusal
from .._settings import Found, variable_of, where
from ..exceptions import APIError, AuthenticationError, ReverbError
from .probe import Answer
from .process import ExitCode
from .view import plural

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

__all__ = ["Place", "Problem", "Refused"]

_RESTART = "After changes of the server's .env: php artisan config:clear, then php artisan reverb:restart."
_SEVERAL = (
    "There are several servers that know nothing of each other: REVERB_SCALING_ENABLED=true on all of them, and "
    "one Redis for all."
)
_REDIS = "With REVERB_SCALING_ENABLED=true, the server does not reach Redis: REDIS_URL, REDIS_HOST."
_GUARD = "Broadcast::routes(['middleware' => ['auth:sanctum']])"
_TOKEN_ROUTE = f"/api/broadcasting/auth, made by {_GUARD} in routes/api.php"
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

    @classmethod
    def of(cls, failure: Failure, *first: str | None) -> Self:
        """What the client knows, too; ``first`` are causes that only we know to look for."""
        return cls(failure.seen, *first, *failure.causes)


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
            variable, value = variable_of(name), found.text
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


def no_answer(what: str, seconds: float, *causes: str | None) -> Problem:
    return Problem(f"no {what} within {plural(seconds, 'second')}", *causes)


def no_connection(place: Place, error: OSError) -> Problem:
    is_elsewhere = error.errno == errno.ECONNREFUSED and place.server_port not in (None, str(place.config.port))
    return Problem.of(
        _failures.no_connection(place.config, error),
        f"REVERB_SERVER_PORT is {place.server_port} here, so try REVERB_PORT={place.server_port}."
        if is_elsewhere
        else None,
    )


def describe_certificate(version: str | None, seen: Certificate) -> str:
    left = seen.not_after - datetime.now(timezone.utc)
    until = f"valid until {seen.not_after:%Y-%m-%d}"
    if left.days < _EXPIRES_SOON:
        until += f", only {count_days(left)} more"
    return f"{version}, certificate by {seen.issuer}, {until}"


# --- the upgrade -----------------------------------------------------------------------------------------------


def upgrade_refused(place: Place, answer: Answer, working_path: str | None) -> Problem:
    """An HTTP answer that is not 101. ``working_path`` is a ``REVERB_PATH`` with which it is."""
    failure = _failures.upgrade_refused(place.config, answer.status, answer.headers, answer.body)
    if working_path == "":
        return Problem(failure.seen, "REVERB_PATH must be empty: without it the server answers.")
    if working_path is not None:
        return Problem(
            failure.seen,
            _failures.strips_path(place.config),
            f"Until that is mended, REVERB_PATH={working_path} works.",
        )
    is_about_path = any(cause.startswith("REVERB_PATH") for cause in failure.causes)
    is_other = place.server_path is not None and place.server_path.strip("/") != place.config.path.strip("/")
    return Problem.of(
        failure,
        f"REVERB_SERVER_PATH is {place.server_path} here, so try REVERB_PATH={place.server_path}."
        if is_about_path and is_other
        else None,
    )


def not_through_proxy(error: ReverbError, failure: Failure | None) -> Problem:
    """``failure`` is what the client knows of ``error``."""
    more = "Without REVERB_PROXY, where that is possible, more can be seen."
    return Problem(str(error), more) if failure is None else Problem(failure.seen, *failure.causes, more)


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


def not_greeted(error: ReverbError, failure: Failure | None) -> Problem:
    """``failure`` is what the client knows of ``error``."""
    if error.code is not None and 4000 <= error.code < 4100:
        return Problem(str(error), "See what the server's log says.")
    return Problem.of(failure or _failures.not_greeted(str(error)))


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


def unsignable(channel: str) -> Problem:
    return Problem(
        f"{channel!r} can't be signed for",
        "A name that is to be signed has no colon and no control character: the signature would be good for "
        "something else, too.",
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


def endpoint(url: str, error: AuthenticationError, *, has_token: bool, is_token_read: bool | None) -> Problem:
    """The endpoint did not authorise, ``error`` says why not. ``is_token_read`` is whether it answers otherwise
    without a token, where that is known."""
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
    elif 200 <= code < 300 and "page" in str(error):
        detail = f"{url} answered with a page, most likely to log in"
        causes = (
            "REVERB_AUTH_ENDPOINT must be the whole URL, with /broadcasting/auth or what is there instead.",
            f"The route wants a login with cookies; one for tokens is {_TOKEN_ROUTE}.",
        )
    elif 200 <= code < 300:
        detail = f"{url} answered with HTTP status {code}, but not with an authorisation"
        causes = (
            "BROADCAST_CONNECTION (BROADCAST_DRIVER in older versions) must be reverb in the .env of the "
            "application: log and null answer with nothing, redis with true. Then php artisan config:clear.",
            "REVERB_AUTH_ENDPOINT must be the whole URL, with /broadcasting/auth or what is there instead.",
        )
    elif code == 403:
        detail = f"{url} answered with HTTP status 403"
        causes = _forbidden(url, has_token=has_token, is_token_read=is_token_read)
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
    is_outage = code is None or code >= 500
    exit_code = ExitCode.CONNECTION if is_outage else ExitCode.REFUSED
    return Problem(detail, *causes, code=exit_code, status=code)


def _forbidden(url: str, *, has_token: bool, is_token_read: bool | None) -> tuple[str, ...]:
    session_only = (
        f"The route looks at the session only, and not at REVERB_AUTH_TOKEN: so does Laravel's own "
        f"/broadcasting/auth, with its middleware web. Use one for tokens: {_TOKEN_ROUTE}."
    )
    no_token = f"REVERB_AUTH_TOKEN is not set, so nobody is logged in. A route for tokens is {_TOKEN_ROUTE}."
    callback = (
        "The callback of the channel in routes/channels.php says no to this user, or there is none for this name."
    )
    if not has_token:
        return no_token, callback
    if is_token_read is not None:
        return (callback, "REVERB_AUTH_TOKEN is another user's.") if is_token_read else (session_only, callback)
    is_stock = urlsplit(url).path.rstrip("/") == "/broadcasting/auth"
    return (session_only, callback) if is_stock else (callback, session_only)


_ENDPOINT_CAUSES = {
    401: (
        "REVERB_AUTH_TOKEN is missing, wrong, or has expired.",
        f"The route has another guard; one for tokens is {_TOKEN_ROUTE}.",
    ),
    404: (
        "REVERB_AUTH_ENDPOINT is wrong: php artisan route:list shows where broadcasting/auth is.",
        "Broadcasting is not installed: php artisan install:broadcasting.",
    ),
    405: ("REVERB_AUTH_ENDPOINT is another route, which takes no POST.",),
    419: (
        "REVERB_AUTH_ENDPOINT is a route with CSRF protection, of the group web. Programs need one of the group "
        f"api, {_TOKEN_ROUTE}, and REVERB_AUTH_TOKEN.",
    ),
    429: ("Too many requests: the route has a throttle.",),
}


def slow_endpoint(url: str, seconds: float) -> Problem:
    return Problem(
        f"{url} did not authorise within {plural(seconds, 'second')}",
        "The application is slow, or fails again and again: see storage/logs/laravel.log there.",
        "REVERB_AUTH_ENDPOINT is wrong.",
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
        if _failures.NOT_FOUND in text:
            strips = (
                f"The proxy changes what is below {config.path}/apps. {_failures.STRIPS} replaces the location's."
            )
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
