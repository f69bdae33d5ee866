"""The calls of the HTTP API, without I/O: what is sent, when it is retried, what is returned and raised.

:class:`Calls` has a generator for each call. It yields the next step: an :class:`Attempt` to send, or seconds to
wait. The caller sends back the outcome of an attempt, which a method of the attempt returns:
:meth:`Attempt.answered`, or one of the methods for the reasons why there is no answer. :class:`ReverbAPI` carries
the steps out with aiohttp, :class:`SyncReverbAPI` with sockets.
"""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Generator, Iterable, Sequence
from time import monotonic
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

from . import __version__, _failures, _protocol, _rest
from ._failures import Failure
from ._rest import BatchEvent, BatchResult, ChannelInfo, Proxy, Request, Server
from ._settings import variable_of
from ._signatures import problem_of
from ._visible import bare
from .config import ReverbConfig
from .crypto import decode_key, derive_shared_secret, encrypt, require_nacl
from .exceptions import (
    APIError,
    BatchError,
    ConfigurationError,
    ConnectionError,
    ProtocolError,
    ReverbError,
    TimeoutError,
    plural,
)

log = logging.getLogger("reverb.http")

T = TypeVar("T")

KEEPALIVE = 5.0
"""Seconds to keep an idle connection. soketi closes it after 10; no request must be sent at that moment."""
_RETRY_DELAYS = (0.2, 0.4, 0.8)
"""Longest pauses in seconds before each retry. Each pause is random, between half of this and all of it."""


class Failed(NamedTuple):
    """The outcome of an attempt that failed."""

    error: ReverbError
    is_temporary: bool = False
    """Whether another attempt may succeed."""
    is_unexecuted: bool = False
    """Whether it is certain that the server has not executed the request."""


class Attempt:
    """A request to send once. It is signed when it is sent. The signature is never shown."""

    def __init__(self, calls: Calls, request: Request, deadline: float) -> None:
        self.request = request
        self.deadline = deadline
        """When the call times out, on the clock of :func:`time.monotonic`."""
        self._calls = calls

    @property
    def remaining(self) -> float:
        """Seconds until the deadline. Always more than 0, because libraries take 0 for "no limit"."""
        return max(self.deadline - monotonic(), 0.001)

    def target(self) -> str:
        """Return the signed path and query. They must be sent unchanged."""
        return self._calls.server.target(self.request, int(time.time()))

    def message(self, proxy: Proxy | None) -> bytes:
        """Return the whole HTTP/1.1 request, signed. With ``proxy``, it may be one for that proxy to forward."""
        server = self._calls.server
        return server.message(self.request, int(time.time()), None if server.scheme == "https" else proxy)

    # --- outcomes ----------------------------------------------------------------------------------------------

    def answered(self, status: int, body: bytes, flaw: str | None, retry_after: str | None) -> Any:
        """Return the JSON of an answer, or Failed if the answer is an error."""
        try:
            return self._calls.server.read(self.request, status, body, flaw, retry_after)
        except APIError as error:
            error = error.with_traceback(None)  # this frame holds the body, which may quote a signature
            return Failed(error, is_temporary=error.status in (502, 503, 504), is_unexecuted=error.status == 503)

    def timed_out(self) -> Failed:
        limit = f"{plural(self._calls.config.request_timeout, 'second')} (REVERB_REQUEST_TIMEOUT)"
        return Failed(TimeoutError(f"{self._address} did not answer {self.request} within {limit}"))

    def closed(self) -> Failed:
        """The program closed the API before there was an answer."""
        return Failed(ConnectionError(f"{self.request} to {self._address} was cancelled: close() was called"))

    def no_host(self) -> Failed:
        """The host, or the proxy's host, is not valid."""
        setting = "REVERB_HOST" if self._calls.proxy is None else "REVERB_HOST, REVERB_PROXY"
        return self._not_connected(f"the host is neither a name nor an IP address ({setting})", is_temporary=False)

    def no_name(self, error: OSError) -> Failed:
        return self._not_connected(_failures.no_name(self._calls.config.host, "REVERB_HOST", error))

    def no_proxy(self, error: OSError) -> Failed:
        return self._not_connected(_failures.no_proxy(bare(self._calls.proxy or ""), _failures.reason_of(error)))

    def not_through_proxy(self, status: int) -> Failed:
        failure = _failures.not_through_proxy(self._calls.config, f"it answered with {status}")
        return self._not_connected(failure, is_temporary=False)

    def no_connection(self, error: OSError) -> Failed:
        """The connection to the server failed: TCP, TLS, or its certificate."""
        config = self._calls.config
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._not_connected(_failures.bad_certificate(config.host, error), is_temporary=False)
        is_reset = config.scheme == "wss" and isinstance(error, ConnectionResetError)
        if isinstance(error, ssl.SSLError) or is_reset:
            return self._not_connected(_failures.no_tls(config, error), is_temporary=is_reset)
        return self._not_connected(_failures.no_connection(config, error))

    def not_http(self, why: str) -> Failed:
        return Failed(ConnectionError(f"{self._address} did not answer {self.request} with HTTP: {why}"))

    def hung_up(self, error: Exception) -> Failed:
        why = f"{self._address} closed the connection without an answer to {self.request}: {type(error).__name__}"
        return Failed(ConnectionError(why), is_temporary=True)

    @property
    def _address(self) -> str:
        return self._calls.server.address

    def _not_connected(self, failure: Failure | str, *, is_temporary: bool = True) -> Failed:
        why = failure if isinstance(failure, str) else failure.line
        error = ConnectionError(f"cannot connect to {self._address}: {why}")
        return Failed(error, is_temporary=is_temporary, is_unexecuted=not isinstance(failure, str))


Call: TypeAlias = Generator[Attempt | float, Any, T]
"""A call that returns a ``T``. It yields attempts, and seconds to wait; it is sent the outcomes of attempts."""


class Calls:
    """The calls of the HTTP API, with these settings. Their arguments are those of :class:`ReverbAPI`."""

    def __init__(self, config: ReverbConfig) -> None:
        self.config = config
        self.server = _server(config)
        self.proxy = _proxy(config)

    @property
    def application(self) -> str:
        return f"{self.server.address} application {self.server.app_id}"

    def trigger(
        self,
        channels: str | Iterable[str],
        event: str,
        data: Any,
        socket_id: str | None,
        info: str | None,
        idempotent: bool,
    ) -> Call[dict[str, ChannelInfo]]:
        names = [channels] if isinstance(channels, str) else list(channels)
        request = self.server.trigger(names, event, self._text(names, event, data), socket_id, info)
        answer = yield from self._call(request, idempotent)
        return self.server.convert(request, answer, _rest.Infos).by_channel()

    def trigger_batch(self, events: Iterable[BatchEvent], idempotent: bool) -> Call[BatchResult]:
        encoded = ((event, self._text([event.channel], event.event, event.data)) for event in events)
        infos: list[ChannelInfo] = []
        for request, size in list(self.server.batches(encoded)):
            try:
                answer = yield from self._call(request, idempotent)
                infos += self.server.convert(request, answer, _rest.Infos).in_order(size)
            except ReverbError as error:
                message = f"the server accepted {plural(len(infos), 'event')}, then a request failed: {error}"
                raise BatchError(message, accepted=len(infos), code=error.code) from error
        return BatchResult(len(infos), infos)

    def send_to_user(self, user_id: str, event: str, data: Any, idempotent: bool) -> Call[None]:
        yield from self.trigger(f"#server-to-user-{user_id}", event, data, None, None, idempotent)

    def channels(self, prefix: str | None, info: str | None) -> Call[dict[str, ChannelInfo]]:
        request = self.server.get("/channels", filter_by_prefix=prefix, info=info)
        return self.server.convert(request, (yield from self._call(request)), _rest.Infos).by_channel()

    def channel(self, name: str, info: str | None) -> Call[ChannelInfo]:
        request = self.server.get(f"/channels/{_rest.quote_name(name)}", info=info)
        return self.server.convert(request, (yield from self._call(request)), ChannelInfo)

    def users(self, name: str) -> Call[list[str]]:
        request = self.server.get(f"/channels/{_rest.quote_name(name)}/users")
        return self.server.convert(request, (yield from self._call(request)), _rest.Users).ids()

    def connections(self) -> Call[int]:
        request = self.server.get("/connections")
        return self.server.convert(request, (yield from self._call(request)), _rest.Connections).connections

    def health(self) -> Call[bool]:
        request = Request("GET", "/up", is_signed=False)
        return self.server.convert(request, (yield from self._call(request)), _rest.Health).health == "OK"

    def terminate_user(self, user_id: str) -> Call[None]:
        yield from self._call(self.server.post(f"/users/{_rest.quote_name(user_id)}/terminate_connections", b"{}"))

    def _text(self, channels: Sequence[str], event: str, data: Any) -> str:
        """Return the text that an event carries, encrypted for an encrypted channel."""
        text = _rest.encode_data(event, data)
        encrypted = next(filter(_protocol.is_encrypted, channels), None)
        if encrypted is None:
            return text
        if len(channels) > 1:
            raise ProtocolError(
                f"{event!r} can't be published on {encrypted!r} and other channels in one call: each encrypted "
                "channel has its own key, so it needs its own call"
            )
        if self.config.encryption_master_key is None:
            raise ConfigurationError(f"REVERB_ENCRYPTION_MASTER_KEY is missing: {encrypted!r} needs it")
        require_nacl()
        master_key = decode_key(self.config.encryption_master_key.get_secret_value())
        assert master_key is not None  # the settings are checked
        return encrypt(text, derive_shared_secret(encrypted, master_key))

    def _call(self, request: Request, idempotent: bool = False) -> Call[Any]:
        """Yield attempts until there is an answer, or a retry has no purpose; return the answer's JSON."""
        deadline = monotonic() + self.config.request_timeout
        may_repeat = idempotent or request.is_read
        for delay in (*_RETRY_DELAYS, None):
            outcome = yield Attempt(self, request, deadline)
            if not isinstance(outcome, Failed):
                return outcome
            if delay is None or not (outcome.is_temporary and (may_repeat or outcome.is_unexecuted)):
                break
            pause = random.uniform(delay / 2, delay)  # noqa: S311 (spreads attempts, keeps no secret)
            if monotonic() + pause >= deadline:
                break
            fields = {"reverb_address": self.server.address}
            log.info("%s; retrying in %.1f seconds", outcome.error, pause, extra=fields)
            yield pause
        raise outcome.error


def _server(config: ReverbConfig) -> Server:
    missing = [
        f"  {variable_of(name)} is missing: the HTTP API needs it"
        for name in ("app_id", "app_secret")
        if not getattr(config, name)
    ]
    if missing:
        raise ConfigurationError("\n".join(["invalid settings:", *missing]))
    assert config.app_id is not None
    assert config.app_secret is not None
    problem = problem_of(config.app_key, config.app_secret.get_secret_value())
    if problem is not None:
        raise ConfigurationError(problem)
    return Server(
        scheme={"ws": "http", "wss": "https"}[config.scheme],
        address=config.address,
        prefix=quote(config.path),
        app_id=_rest.quote_name(config.app_id),
        key=config.app_key,
        secret=config.app_secret.get_secret_value(),
        max_request_size=config.max_request_size,
        headers={"Content-Type": "application/json", "User-Agent": f"python-reverb/{__version__}"},
    )


def _proxy(config: ReverbConfig) -> str | None:
    if config.proxy is None:
        return None
    if config.proxy.get_secret_value().startswith("socks5:"):
        raise ConfigurationError("REVERB_PROXY: the HTTP API supports http:// and https:// proxies only")
    return config.proxy.get_secret_value()
