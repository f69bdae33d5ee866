"""The likely causes of each failure, and what to change. Pure: it looks at errors and answers, and does no I/O.

The most likely cause comes first. Each cause names the setting to change: of the client (``REVERB_…``), of the
server (``config/reverb.php`` and ``.env`` of Laravel), or of the proxy in between (nginx as the example).
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

__all__ = ["Context", "Problem", "Refused"]

_RESTART = "After you change the server's .env, run php artisan config:clear and php artisan reverb:restart."
_SEVERAL = (
    "There are several servers that do not share events: set REVERB_SCALING_ENABLED=true and the same Redis on "
    "all of them."
)
_REDIS = "REVERB_SCALING_ENABLED is true, but the server does not reach Redis: check REDIS_URL and REDIS_HOST."
_GUARD = "Broadcast::routes(['middleware' => ['auth:sanctum']])"
_TOKEN_ROUTE = f"/api/broadcasting/auth, made by {_GUARD} in routes/api.php"
_SIGNATURE_LIFETIME = 600
"""Seconds that a signed request of the HTTP API is valid."""
_EXPIRES_SOON = 14
"""Days."""


class Problem(Exception):  # noqa: N818 - the result of a step, not an error of this program
    """The failure of a step: what was seen, and its likely causes."""

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
        """The HTTP status that the problem is about."""

    @classmethod
    def of(cls, failure: Failure, *first: str | None) -> Self:
        """Make a problem of a failure that the client itself describes. ``first`` are more likely causes."""
        return cls(failure.seen, *first, *failure.causes)


class Refused(Exception):  # noqa: N818
    """The server answered with an error."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(str(error))
        self.error = error


class Context(NamedTuple):
    """What the causes depend on: the settings, where each was found, and settings of the server."""

    config: ReverbConfig
    found: Mapping[str, Found]
    server_path: str | None = None
    """``REVERB_SERVER_PATH``, if it is set on this machine."""
    server_port: str | None = None
    """``REVERB_SERVER_PORT``, if it is set on this machine."""

    @property
    def address(self) -> str:
        return self.config.address

    @property
    def is_tls(self) -> bool:
        return self.config.scheme == "wss"

    def check(self, *names: str) -> str | None:
        """Describe what looks wrong about the values of settings; None if nothing does."""
        for name in names:
            found = self.found.get(name)
            if found is None or found.value is None:
                continue
            variable, value = variable_of(name), found.text
            if value != value.strip() or value.startswith(('"', "'")):
                return f"{variable} begins or ends with a space or a quotation mark, which is part of the value."
            if found.hint:
                return f"{where(name, found)} {found.hint}."
            if found.differing:
                others = " and ".join(map(_name_source, found.differing))
                source = _name_source(found.source)
                return f"{variable} comes from {source}, and differs in {others}: check which value is right."
        return None


def _name_source(source: str) -> str:
    return {"argument": "the option", "environment": "the environment"}.get(source, ".env")


# --- to the server ---------------------------------------------------------------------------------------------


def no_answer(what: str, seconds: float, *causes: str | None) -> Problem:
    return Problem(f"no {what} within {plural(seconds, 'second')}", *causes)


def no_connection(context: Context, error: OSError) -> Problem:
    is_elsewhere = context.server_port not in (None, str(context.config.port))
    is_elsewhere = is_elsewhere and error.errno == errno.ECONNREFUSED
    return Problem.of(
        _failures.no_connection(context.config, error),
        f"REVERB_SERVER_PORT is {context.server_port} here, so try REVERB_PORT={context.server_port}."
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


def upgrade_refused(context: Context, answer: Answer, working_path: str | None) -> Problem:
    """Explain an HTTP answer other than 101. ``working_path`` is a ``REVERB_PATH`` that works."""
    failure = _failures.upgrade_refused(context.config, answer.status, answer.headers, answer.body)
    if working_path == "":
        return Problem(failure.seen, "REVERB_PATH must be empty: without it the server answers.")
    if working_path is not None:
        return Problem(
            failure.seen,
            _failures.strips_path(context.config),
            f"Until you correct that, REVERB_PATH={working_path} works.",
        )
    is_about_path = any(cause.startswith("REVERB_PATH") for cause in failure.causes)
    is_other = context.server_path is not None and context.server_path.strip("/") != context.config.path.strip("/")
    return Problem.of(
        failure,
        f"REVERB_SERVER_PATH is {context.server_path} here, so try REVERB_PATH={context.server_path}."
        if is_about_path and is_other
        else None,
    )


def not_through_proxy(error: ReverbError, failure: Failure | None) -> Problem:
    """``failure`` is what the client found out about ``error``."""
    more = "If you can, run this command without REVERB_PROXY, which hides details."
    return Problem(str(error), more) if failure is None else Problem(failure.seen, *failure.causes, more)


# --- the application -------------------------------------------------------------------------------------------


def wrong_key(context: Context, error: ReverbError) -> Problem:
    return Problem(
        f"the server knows no application with this key ({error.code})",
        context.check("app_key"),
        "REVERB_APP_KEY must be that of the server's .env: the key of an application in its config/reverb.php.",
        f"{context.address} may be another server than you expect: check REVERB_HOST and REVERB_PORT.",
        _RESTART,
    )


def wrong_origin(context: Context, error: ReverbError, accepted: str | None) -> Problem:
    ours = context.config.origin
    return Problem(
        f"the server does not allow {f'the Origin {ours}' if ours else 'connections without an Origin'} "
        f"({error.code})",
        f"Set REVERB_ORIGIN={accepted}: the server allows it." if accepted else None,
        None
        if accepted
        else "REVERB_ORIGIN must be a URL whose host the server allows, such as https://example.com.",
        "Or allow the origin on the server: allowed_origins in its config/reverb.php, which may read "
        "REVERB_ALLOWED_ORIGINS; * allows all.",
        _RESTART,
    )


def over_quota(error: ReverbError) -> Problem:
    return Problem(
        f"the application has reached its maximum number of connections ({error.code})",
        "Raise max_connections of the application in the server's config/reverb.php (REVERB_APP_MAX_CONNECTIONS).",
        "Programs that you no longer need may hold connections. Count them with reverb connections.",
    )


def no_first_message(error: ReverbError, failure: Failure | None) -> Problem:
    """``failure`` is what the client found out about ``error``."""
    if error.code is not None and 4000 <= error.code < 4100:
        return Problem(str(error), "See the server's log.")
    return Problem.of(failure or _failures.not_established(str(error)))


def lost(error: ReverbError) -> Problem:
    return Problem(
        str(error),
        "A proxy closed the connection: nginx's proxy_read_timeout must be longer than REVERB_PING_INTERVAL.",
        "The server was restarted or crashed: see its log.",
    )


def no_pong(seconds: float) -> Problem:
    return no_answer(
        "answer to a ping",
        seconds,
        "The server hangs: something blocks it, or its machine is overloaded.",
        "A proxy accepts the WebSocket itself, and does not pass its messages on to the server.",
    )


def ping_refused(error: ServerError) -> Problem:
    """Explain an error for a ping, which can't be wrong itself."""
    if error.code != 4200:
        return refused(error)
    return Problem(
        f"the server answers even a ping with an error: {error}",
        "The application's rate limit does not work: decay_seconds below rate_limiting in the server's "
        "config/reverb.php must be a number, but a variable of .env is a string. Write "
        "(int) env('REVERB_APP_RATE_LIMIT_DECAY_SECONDS', 60) there, or remove the variable from .env.",
        "The server fails at each message: see its log (storage/logs/laravel.log).",
        _RESTART,
    )


# --- channels --------------------------------------------------------------------------------------------------


def refused_signature(context: Context, error: ServerError, *, is_named: bool) -> Problem:
    """Explain why the server refused a signature that we made with the secret."""
    if not is_auth_refusal(error):
        return refused(error, is_named=is_named)
    return Problem(
        f"the server does not accept the signature: {error}",
        context.check("app_secret", "app_key"),
        "REVERB_APP_SECRET must be the secret that belongs to REVERB_APP_KEY in the server's config/reverb.php.",
        _RESTART,
        code=ExitCode.REFUSED,
    )


def refused_endpoint(error: ServerError, *, is_other_key: bool, is_named: bool) -> Problem:
    """Explain why the server refused the signature of the auth endpoint."""
    if not is_auth_refusal(error):
        return refused(error, is_named=is_named)
    return Problem(
        f"the server does not accept the signature of the auth endpoint: {error}",
        "The endpoint signs for another application: REVERB_APP_KEY must be the same here and in its application."
        if is_other_key
        else None,
        "The Laravel application behind REVERB_AUTH_ENDPOINT must have the server's REVERB_APP_KEY and "
        "REVERB_APP_SECRET in its .env. Then run php artisan config:clear there.",
        code=ExitCode.REFUSED,
    )


def refused(error: ServerError, *, is_named: bool = False) -> Problem:
    """``is_named`` tells whether the error is about a channel that the user named."""
    if error.code == 4301 and "rate" in error.message.lower():
        return Problem(
            f"the client has reached the server's rate limit: {error}",
            "Raise REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS on the server.",
            code=ExitCode.REFUSED,
        )
    return Problem(
        f"the server refuses: {error}",
        "The server does not accept the channel's name: use letters, digits and _ - = @ , . ; only."
        if is_named
        else None,
        "See the server's log.",
        code=ExitCode.REFUSED,
    )


def no_confirmation(seconds: float) -> Problem:
    return no_answer("confirmation", seconds, "The server hangs: something blocks it, or it can't reach Redis.")


def unsigned(channel: str) -> Problem:
    return Problem(
        f"{channel} needs a signature, and no secret and no auth endpoint is set",
        "Set REVERB_APP_SECRET, or REVERB_AUTH_ENDPOINT and REVERB_AUTH_TOKEN.",
        code=ExitCode.REFUSED,
    )


def unsignable(channel: str) -> Problem:
    return Problem(
        f"can't sign the channel name {channel!r}",
        "Choose a name without a colon and without control characters: a signature for such a name could be valid "
        "for another channel, too.",
        code=ExitCode.REFUSED,
    )


def no_channel_key() -> Problem:
    return Problem(
        "subscribed, but its events can't be decrypted",
        "REVERB_ENCRYPTION_MASTER_KEY must have the value of encryption_master_key_base64 in Laravel's "
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
        "If none of your programs triggers events, you need not change anything.",
        code=ExitCode.REFUSED,
    )


def no_second_connection(error: ReverbError) -> Problem:
    """Explain why there is no second connection, which the check of client events needs."""
    detail = f"not checked: this needs a second connection, which failed: {error}"
    if error.code == 4004:
        return Problem(detail, *over_quota(error).causes, code=ExitCode.REFUSED)
    return Problem(
        detail,
        "The server, or the proxy in front of it, allows one connection for each address: see nginx's limit_conn.",
        "The server was restarted or crashed: see its log.",
        code=ExitCode.REFUSED,
    )


def client_event_lost(seconds: float) -> Problem:
    """Explain why a client event did not arrive although the server sent no error."""
    return Problem(
        f"a client event did not arrive at another connection within {plural(seconds, 'second')}",
        _SEVERAL,
        _REDIS,
        "Client events are not allowed on the server: accept_client_events_from in config/reverb.php "
        "(REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=members).",
        code=ExitCode.REFUSED,
    )


def endpoint(url: str, error: AuthenticationError, *, has_token: bool, is_token_read: bool | None) -> Problem:
    """Explain why the auth endpoint did not authorise.

    ``is_token_read`` tells whether its answer without a token is another one; None if that is not known."""
    code = error.code
    causes: tuple[str, ...]
    if code is None:
        reason = str(error).rpartition(": ")[2]
        detail = f"can't reach {url}: {reason}"
        causes = ("REVERB_AUTH_ENDPOINT is wrong, or the application is down.",)
        if "certificate" in str(error):
            causes = (
                "This machine must trust the certificate, and it must be for the host in REVERB_AUTH_ENDPOINT.",
            )
    elif 200 <= code < 300 and "page" in str(error):
        detail = f"{url} answered with a web page, probably the login page"
        causes = (
            "REVERB_AUTH_ENDPOINT must be the full URL of the route, such as https://example.com/broadcasting/auth.",
            f"The route needs a login with cookies. A route for tokens is {_TOKEN_ROUTE}.",
        )
    elif 200 <= code < 300:
        detail = f"{url} answered with HTTP status {code}, but not with an authorisation"
        causes = (
            "BROADCAST_CONNECTION (BROADCAST_DRIVER in older versions) must be reverb in the .env of the "
            "application: log and null answer with nothing, redis with true. Then run php artisan config:clear.",
            "REVERB_AUTH_ENDPOINT must be the full URL of the route, such as https://example.com/broadcasting/auth.",
        )
    elif code == 403:
        detail = f"{url} answered with HTTP status 403"
        causes = _forbidden(url, has_token=has_token, is_token_read=is_token_read)
    else:
        detail = f"{url} answered with HTTP status {code}"
        causes = _ENDPOINT_CAUSES.get(code) or (
            (
                "It redirects: REVERB_AUTH_ENDPOINT has the wrong scheme or host, or the route needs a login with "
                "REVERB_AUTH_TOKEN.",
            )
            if 300 <= code < 400
            else ("The application failed: see its storage/logs/laravel.log.",)
        )
    is_outage = code is None or code >= 500
    exit_code = ExitCode.CONNECTION if is_outage else ExitCode.REFUSED
    return Problem(detail, *causes, code=exit_code, status=code)


def _forbidden(url: str, *, has_token: bool, is_token_read: bool | None) -> tuple[str, ...]:
    session_only = (
        f"The route reads the session only, and not REVERB_AUTH_TOKEN. Laravel's own /broadcasting/auth with the "
        f"middleware web does so. Use a route for tokens: {_TOKEN_ROUTE}."
    )
    no_token = f"REVERB_AUTH_TOKEN is not set, so no user is logged in. A route for tokens is {_TOKEN_ROUTE}."
    callback = (
        "The channel's callback in routes/channels.php refuses this user, or there is no callback for this name."
    )
    if not has_token:
        return no_token, callback
    if is_token_read is not None:
        other_user = "REVERB_AUTH_TOKEN belongs to another user."
        return (callback, other_user) if is_token_read else (session_only, callback)
    is_stock = urlsplit(url).path.rstrip("/") == "/broadcasting/auth"
    return (session_only, callback) if is_stock else (callback, session_only)


_ENDPOINT_CAUSES = {
    401: (
        "REVERB_AUTH_TOKEN is missing or wrong, or has expired.",
        f"The route has another guard. A route for tokens is {_TOKEN_ROUTE}.",
    ),
    404: (
        "REVERB_AUTH_ENDPOINT is wrong: php artisan route:list shows the path of broadcasting/auth.",
        "Broadcasting is not installed: php artisan install:broadcasting.",
    ),
    405: ("REVERB_AUTH_ENDPOINT is another route, which does not accept POST.",),
    419: (
        "REVERB_AUTH_ENDPOINT is a route with CSRF protection, from the group web. Programs need a route from the "
        f"group api, {_TOKEN_ROUTE}, and REVERB_AUTH_TOKEN.",
    ),
    429: ("There were too many requests: the route has the middleware throttle.",),
}


def slow_endpoint(url: str, seconds: float) -> Problem:
    return Problem(
        f"{url} did not authorise within {plural(seconds, 'second')}",
        "The application is slow or keeps failing: see its storage/logs/laravel.log.",
        "REVERB_AUTH_ENDPOINT is wrong.",
    )


# --- the HTTP API ----------------------------------------------------------------------------------------------


def clock_off(offset: float) -> Problem | None:
    """Return the problem if the clocks differ too much, or None. ``offset`` is our time minus the server's."""
    if abs(offset) <= _SIGNATURE_LIFETIME:
        return None
    return Problem(
        f"this machine's clock is {describe_offset(offset)} the server; signed requests are valid for "
        f"{_SIGNATURE_LIFETIME} seconds",
        "Set this machine's clock with NTP (timedatectl set-ntp true), or the server's clock if that is wrong.",
        code=ExitCode.REFUSED,
    )


def describe_offset(offset: float) -> str:
    seconds, where = abs(offset), "ahead of" if offset > 0 else "behind"
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} {where}"
    return f"{plural(round(seconds), 'second')} {where}"


def api(context: Context, error: ReverbError, *, is_clock_off: bool) -> Problem:
    config = context.config
    if not isinstance(error, APIError):
        return Problem(
            str(error),
            "The server, or the proxy in front of it, does not answer requests below /apps/: see its log.",
        )
    status, code = error.status, ExitCode.REFUSED
    path = f"{config.path}/apps/{config.app_id}/events"
    text = str(error).partition(f"with {status}: ")[2].rpartition("; ")[0] or "no reason given"
    detail = f"HTTP status {status} for {path}: {text}"
    if status == 401:
        return Problem(
            detail,
            "This machine's clock is wrong, see the step clock." if is_clock_off else None,
            context.check("app_secret", "app_key", "app_id"),
            "REVERB_APP_SECRET must be the secret of the application REVERB_APP_ID in the server's "
            "config/reverb.php.",
            "A proxy changes the path: the signed path must reach the server unchanged"
            + (f". {config.path} is not part of the signed path." if config.path else "."),
            code=code,
        )
    if status == 404:
        app_id = (
            context.check("app_id"),
            f"REVERB_APP_ID={config.app_id} must be the id of the application in the server's config/reverb.php.",
        )
        proxy = (
            f"The proxy passes {config.path}/app on to Reverb, but not {config.path}/apps. In nginx, write "
            f"location ~ ^{config.path}/apps? with proxy_pass to Reverb.",
        )
        if _failures.NOT_FOUND in text:
            strips = (
                f"The proxy changes paths below {config.path}/apps. {_failures.STRIPS} replaces the location's."
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
            "The proxy does not reach Reverb for requests below /apps/: check nginx's proxy_pass there.",
            code=code,
        )
    if status == 403:
        return Problem(
            detail, "A firewall, or a rule of the proxy in front of the server, refuses the request.", code=code
        )
    if status == 413:
        return Problem(
            detail,
            "The server or the proxy accepts very small requests only: raise max_request_size in "
            "config/reverb.php (REVERB_MAX_REQUEST_SIZE), or nginx's client_max_body_size.",
            code=code,
        )
    if 200 <= status < 300:
        return Problem(
            f"HTTP status {status} for {path}, but not the answer of a Pusher-protocol server",
            f"The proxy passes {config.path}/app on to Reverb, but not {config.path}/apps, so the website "
            f"answers. In nginx, write location ~ ^{config.path}/apps? with proxy_pass to Reverb.",
            code=code,
        )
    return Problem(detail, "The server failed: see its log (storage/logs/laravel.log).", code=code)


def not_delivered(context: Context, seconds: float, seen: Set[bool]) -> Problem:
    """``seen`` has the different answers of the HTTP API to whether our channel is occupied."""
    other_app = f"REVERB_APP_ID={context.config.app_id} and REVERB_APP_KEY belong to different applications."
    causes = [other_app, _SEVERAL, _REDIS]
    if seen == {True}:
        causes = [_REDIS, _SEVERAL]
    elif len(seen) > 1:
        causes = [f"{_SEVERAL} Only some of them know our subscription."]
    return Problem(
        f"the event published over the HTTP API did not arrive within {plural(seconds, 'second')}",
        *causes,
        code=ExitCode.REFUSED,
    )
