"""The steps of ``reverb doctor``. Each step checks one thing, and runs after the steps that it needs."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, time
from typing import TypeVar
from urllib.parse import urlsplit

from .. import EndpointAuthorizer, ReverbAPI, ReverbConfig, SecretAuthorizer, _failures
from .._connection import Connection, Traffic, url_of
from .._dispatch import Dispatcher
from .._failures import Certificate, Failure
from .._protocol import (
    Message,
    encode_channel_data,
    encode_client_event,
    is_encrypted,
    is_presence,
    is_signable,
    needs_auth,
    parse_data,
    parse_error,
    parse_members,
)
from .._settings import Checked, Found, setting, variable_of
from .._tasks import spawn
from .._visible import bare, visible
from ..auth import ChannelAuth, load_aiohttp
from ..exceptions import AuthenticationError, ConfigurationError, ConnectionError, ReverbError
from . import diagnosis
from .diagnosis import Context, Problem, Refused
from .probe import (
    AddressInfo,
    Answer,
    NotHTTPError,
    TcpConnection,
    fetch_certificate,
    resolve,
    speaks,
    upgrade_key,
)
from .redaction import Redaction
from .view import plural

__all__ = ["Examination", "Step"]

T = TypeVar("T")

_LOOK_TIMEOUT = 3.0
"""Seconds at most for each further check that finds the cause of a failed step."""
_SLOW_HANDSHAKE = 2.0
"""Seconds of a TLS handshake after which we check whether the server speaks plain HTTP."""
_REQUESTS = 6
"""How often we ask the same thing, because a load balancer may pass each request to another server."""
_EVENT = "client-reverb-doctor"
_DATE_PRECISION = 2.0
"""Seconds. A ``Date`` header has whole seconds only, and took time to arrive."""
_PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080}


@dataclass(frozen=True)
class Step:
    """The result of a step."""

    name: str
    ok: bool | None
    """Whether the step worked; None if it was skipped."""
    seconds: float | None
    """How long the step took; None if it was skipped."""
    detail: str
    causes: Sequence[str] = ()
    """The likely causes of a failure, the most likely first."""
    exit_code: int = 0
    """The exit code of the command if this is the first step that failed."""

    def redacted(self, redact: Callable[[str], str]) -> Step:
        """Return the step with texts from ``redact``, which hides secrets."""
        return replace(self, detail=redact(self.detail), causes=tuple(map(redact, self.causes)))


class _Skipped(Exception):  # noqa: N818
    """The step can't be made. The message says why."""


class _NoResult(_Skipped):
    """The step has no result of its own. Steps that need it run nevertheless."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class _ServerSettings(Checked):
    """Settings of the server. They are set here, too, if the client uses a copy of Laravel's ``.env``."""

    server_path: str | None = setting(str, None)
    server_port: str | None = setting(str, None)


class Examination:
    """Makes the steps one after another. Calls ``begin`` with the name of each step, then ``report`` with its
    result.

    The setting for its timeout limits each step. Events are sent on a channel with a random name only. The
    channels of the caller are subscribed, and nothing is sent on them.
    """

    def __init__(
        self,
        config: ReverbConfig,
        found: Mapping[str, Found],
        begin: Callable[[str], None],
        report: Callable[[Step], None],
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        server = _ServerSettings.from_env()
        self._config = config
        self._proxy = None if config.proxy is None else bare(config.proxy.get_secret_value())
        self._look_timeout = min(config.connect_timeout, _LOOK_TIMEOUT)
        self._context = Context(config, found, server.server_path, server.server_port)
        self._begin = begin
        self._report = report
        self._redact = Redaction(found)
        self._ssl_context = ssl_context
        self._done: set[str] = set()
        """The steps after which the steps that need them can run."""
        self._missing: dict[str, str] = {}
        """For each step that could not run, the step that failed before it."""
        self._seconds = 0.0
        self._addresses: list[AddressInfo] = []
        self._line: TcpConnection | None = None
        self._session: _Session | None = None
        self._refusal: ReverbError | None = None
        self._failure: Failure | None = None
        """What the connection found out about ``_refusal``."""
        self._is_token_read: bool | None = None
        self._connect_seconds = 0.0
        self._published_at = 0.0
        self._offset: float | None = None
        """Seconds by which our clock is ahead of the server's."""
        name = secrets.token_hex(4)
        self._channel = f"private-reverb-doctor-{name}"
        self._user = {"user_id": f"reverb-doctor-{name}", "user_info": {}}

    async def run(self, channels: Sequence[str]) -> None:
        try:
            line = ["TCP"] if self._proxy is not None else ["TCP", "TLS"]
            await self._step("DNS", self._resolve)
            await self._step("TCP", self._connect, needs=["DNS"])
            if self._proxy is None:
                await self._step("TLS", self._start_tls, needs=["TCP"])
            await self._step("HTTP upgrade", self._upgrade, needs=line)
            await self._step("app key", self._check_key, needs=["HTTP upgrade"])
            await self._step("Origin", self._check_origin, needs=["app key"])
            await self._step("first message", self._check_first_message, needs=["Origin"])
            await self._step("ping", self._ping, needs=["first message"])
            await self._step("private channel", self._subscribe_privately, needs=["ping"])
            await self._step("client events", self._trigger, needs=["private channel"])
            await self._step("auth endpoint", lambda: self._ask_endpoint(channels))
            await self._step("clock", self._compare_clocks, needs=line)
            await self._step("HTTP API", self._publish, needs=line)
            await self._step("delivery", self._receive, needs=["private channel", "HTTP API"])
            for channel in dict.fromkeys(channels):
                await self._step(channel, partial(self._subscribe, channel), needs=["ping"])
        finally:
            if self._line is not None:
                self._line.close()
            if self._session is not None:
                await self._session.close()

    async def _step(self, name: str, check: Callable[[], Awaitable[str]], needs: Sequence[str] = ()) -> None:
        missing = next((self._missing.get(each, each) for each in needs if each not in self._done), None)
        self._begin(name)
        self._seconds = 0.0
        try:
            if missing is not None:
                self._missing[name] = missing
                raise _Skipped(f"needs {missing}")
            detail = await check()
        except _Skipped as why:
            step = Step(name, None, None, str(why))
            if isinstance(why, _NoResult):
                self._done.add(name)
        except Problem as problem:
            step = Step(name, False, self._seconds, problem.detail, problem.causes, problem.code)
        else:
            step = Step(name, True, self._seconds, detail)
            self._done.add(name)
        self._report(step.redacted(self._redact))

    async def _within(self, seconds: float | None, work: Awaitable[T]) -> T:
        """Do the work of a step, and measure its time. None means that the work has its own time limit.

        Checks that find the cause of a failure run outside, so that they don't count."""
        began = monotonic()
        try:
            return await asyncio.wait_for(work, seconds)
        finally:
            self._seconds = monotonic() - began

    # --- to the server -----------------------------------------------------------------------------------------

    async def _resolve(self) -> str:
        host, port, variable = self._config.host, self._config.port, "REVERB_HOST"
        if self._proxy is not None:
            proxy = urlsplit(self._proxy)
            host, variable = proxy.hostname or "", "REVERB_PROXY"
            port = proxy.port or _PROXY_PORTS[proxy.scheme]
        seconds = self._config.connect_timeout
        try:
            self._addresses = await self._within(seconds, resolve(host, port))
        except asyncio.TimeoutError:
            raise Problem.of(_failures.slow_name(host, seconds)) from None
        except (OSError, UnicodeError) as error:
            raise Problem.of(_failures.no_name(host, variable, error)) from None
        found = list(dict.fromkeys(str(address[0]) for *_, address in self._addresses))
        of = "the proxy " if self._proxy is not None else ""
        return f"{of}{host} is {', '.join(found)}" if found != [host] else f"{of}{host} is an IP address"

    async def _connect(self) -> str:
        seconds = self._config.connect_timeout
        try:
            self._line = await self._within(seconds, TcpConnection.open(self._addresses))
        except asyncio.TimeoutError:
            if self._proxy is not None:
                why = f"no answer {_failures.within(seconds)}"
                raise Problem.of(_failures.no_proxy(self._proxy, why)) from None
            raise Problem.of(_failures.black_hole(self._config, seconds)) from None
        except OSError as error:
            if self._proxy is not None:
                raise Problem.of(_failures.no_proxy(self._proxy, _failures.reason_of(error))) from None
            raise diagnosis.no_connection(self._context, error) from None
        return f"connected to {self._line.peer}"

    async def _start_tls(self) -> str:
        config = self._config
        if not self._context.is_tls:
            raise _NoResult("REVERB_SCHEME is ws, so the connection is not encrypted")
        assert self._line is not None
        seconds = config.connect_timeout
        try:
            context = self._ssl_context or ssl.create_default_context()
            is_plain = await self._within(seconds, self._try_tls(self._line, context))
        except ssl.SSLCertVerificationError as error:
            found = await self._fetch_certificate()
            raise Problem.of(_failures.bad_certificate(config.host, error, found)) from None
        except asyncio.TimeoutError:
            is_plain = await self._speaks("ws")
            failure = _failures.silent_on_tls(config, seconds, may_be_plain=False)
            raise Problem.of(_failures.plain_on_tls(config) if is_plain else failure) from None
        except OSError as error:  # ssl.SSLError is one
            is_plain = await self._speaks("ws")
            failure = _failures.no_tls(config, error)
            raise Problem.of(_failures.plain_on_tls(config) if is_plain else failure) from None
        if is_plain:
            raise Problem.of(_failures.plain_on_tls(config))
        return diagnosis.describe_certificate(self._line.tls.version(), Certificate.of(self._line.tls))

    async def _try_tls(self, line: TcpConnection, context: ssl.SSLContext) -> bool:
        """Start TLS. Return True instead if the server speaks plain HTTP.

        Reverb without TLS does not answer a TLS handshake, and waits for more."""
        handshake = asyncio.ensure_future(line.start_tls(context, self._config.host))
        try:
            done, _ = await asyncio.wait({handshake}, timeout=_SLOW_HANDSHAKE)
            if not done and await self._speaks("ws"):
                return True
            await handshake
            return False
        finally:
            handshake.cancel()
            await asyncio.wait({handshake})

    async def _fetch_certificate(self) -> Certificate | None:
        try:
            fetching = fetch_certificate(self._addresses, self._config.host)
            return await asyncio.wait_for(fetching, self._look_timeout)
        except (asyncio.TimeoutError, OSError, EOFError):
            return None

    async def _speaks(self, scheme: str) -> bool:
        return await speaks(scheme, self._addresses, self._config.host, self._look_timeout)

    async def _upgrade(self) -> str:
        if self._proxy is not None:
            return await self._upgrade_by_proxy()
        assert self._line is not None
        seconds = self._config.connect_timeout
        key, accept = upgrade_key()
        try:
            answer = await self._within(seconds, self._ask_for_upgrade(self._line, self._config, key))
        except asyncio.TimeoutError:
            raise Problem.of(_failures.upgrade_unanswered(self._config, seconds)) from None
        except NotHTTPError as error:
            raise Problem.of(_failures.not_http(self._config, error.start)) from None
        except (EOFError, OSError):
            if not self._context.is_tls and await self._speaks("wss"):
                raise Problem.of(_failures.tls_on_plain(self._config)) from None
            raise Problem.of(_failures.hung_up(self._config, may_be_tls=False)) from None
        self._note_date(answer)
        if answer.status != 101:
            raise diagnosis.upgrade_refused(self._context, answer, await self._find_path(answer))
        if answer.headers.get("sec-websocket-accept") != accept:
            wrong = _failures.wrong_header(answer.headers) or "Sec-WebSocket-Accept"
            raise Problem.of(_failures.not_websocket(wrong, answer.headers))
        unusual = _failures.wrong_header(answer.headers)
        if unusual is not None:
            took = self._seconds
            refusal = await self._open_session()
            self._seconds = took
            if refusal is not None and refusal.code is None:
                raise Problem.of(_failures.not_websocket(unusual, answer.headers))
        by = answer.headers.get("server") or answer.headers.get("x-powered-by")
        return f"{self._config.path}/app/… is a WebSocket" + (f", by {visible(by, 60)}" if by else "")

    async def _ask_for_upgrade(self, line: TcpConnection, config: ReverbConfig, key: str) -> Answer:
        url = urlsplit(url_of(config))
        headers = {
            "Host": self._host,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }
        if config.origin is not None:
            headers["Origin"] = config.origin
        return await line.request(f"{url.path}?{url.query}", headers)

    async def _find_path(self, answer: Answer) -> str | None:
        """Try other paths, for a proxy that changes the path. Return the first one that works, or None."""
        if answer.status != 404:
            return None
        ours = self._config.path
        paths = [""] if ours else []
        if _failures.is_not_found(answer.status, answer.body):
            paths.append(f"{ours}/app")
        for path in paths:
            with suppress(asyncio.TimeoutError, OSError, EOFError, NotHTTPError):
                if await asyncio.wait_for(self._try_path(path), self._look_timeout) == 101:
                    return path
        return None

    async def _try_path(self, path: str) -> int:
        async with self._connect_again() as line:
            config = replace(self._config, path=path)
            return (await self._ask_for_upgrade(line, config, upgrade_key()[0])).status

    async def _upgrade_by_proxy(self) -> str:
        """Connect through the proxy. It hides the layers, so they are checked all at once."""
        error = await self._open_session()
        if error is not None and not (error.code or 0) >= 4000:
            raise diagnosis.not_through_proxy(error, self._failure)
        return f"{self._config.path}/app/… is a WebSocket, through the proxy"

    @property
    def _host(self) -> str:
        config = self._config
        is_usual = config.port == {"ws": 80, "wss": 443}[config.scheme]
        return config.address.rpartition(":")[0] if is_usual else config.address

    @asynccontextmanager
    async def _connect_again(self) -> AsyncIterator[TcpConnection]:
        line = await TcpConnection.open(self._addresses)
        try:
            if self._context.is_tls:
                await line.start_tls(self._ssl_context or ssl.create_default_context(), self._config.host)
            yield line
        finally:
            line.close()

    # --- the application ---------------------------------------------------------------------------------------

    async def _open_session(self) -> ReverbError | None:
        """Connect as the client does. Return the error, or None if it worked."""
        try:
            session = _Session(self._config)
            await self._within(None, session.open(self._ssl_context))
            self._session = session
        except ReverbError as error:
            self._refusal, self._failure = error, session.connection.failure
        self._connect_seconds = self._seconds
        return self._refusal

    async def _check_key(self) -> str:
        if self._session is None and self._refusal is None:
            await self._open_session()
        error = self._refusal
        self._seconds = self._connect_seconds
        if error is None or error.code in (4004, 4009):
            return f"the server knows the application {self._config.app_key}"
        if error.code in (4001, 4003):
            raise diagnosis.wrong_key(self._context, error)
        raise _NoResult("the server did not say")

    async def _check_origin(self) -> str:
        self._seconds = self._connect_seconds
        if self._refusal is not None and self._refusal.code == 4009:
            raise diagnosis.wrong_origin(self._context, self._refusal, await self._find_origin())
        if self._refusal is not None and self._refusal.code != 4004:
            raise _NoResult("the server did not say")
        return f"{self._config.origin} is allowed" if self._config.origin else "the client sends none; allowed"

    async def _find_origin(self) -> str | None:
        """Try the origin that servers allow most often: their own host name."""
        origin = f"{'https' if self._context.is_tls else 'http'}://{self._config.host}"
        try:
            config = replace(self._config, origin=origin, connect_timeout=self._look_timeout)
            session = _Session(config)
            await session.open(self._ssl_context)
            await session.close()
        except ReverbError:
            return None
        return origin

    async def _check_first_message(self) -> str:
        self._seconds = self._connect_seconds
        if self._session is None:
            assert self._refusal is not None
            if self._refusal.code == 4004:
                raise diagnosis.over_quota(self._refusal)
            raise diagnosis.no_first_message(self._refusal, self._failure)
        theirs, ours = self._session.connection.activity_timeout, self._config.ping_interval
        if theirs is None:
            return f"no activity timeout; the client pings after {ours:g} s without a message"
        return f"activity timeout {theirs:g} s; the client pings after {min(theirs, ours):g} s without a message"

    async def _ping(self) -> str:
        assert self._session is not None
        try:
            await self._within(self._config.pong_timeout, self._session.ping())
        except asyncio.TimeoutError:
            raise diagnosis.no_pong(self._config.pong_timeout) from None
        except ReverbError as error:
            raise diagnosis.lost(error) from None
        except Refused as refused:
            raise diagnosis.ping_refused(refused.error) from None
        return "answered with a pong"

    # --- channels ----------------------------------------------------------------------------------------------

    async def _subscribe_privately(self) -> str:
        if self._config.app_secret is None:
            raise _Skipped("REVERB_APP_SECRET is not set")
        await self._join(self._channel, self._sign(self._channel))
        return "the server accepts signatures made with REVERB_APP_SECRET"

    def _sign(self, channel: str) -> ChannelAuth:
        assert self._session is not None
        data = encode_channel_data(channel, self._user) if is_presence(channel) else None
        signer = SecretAuthorizer.from_credentials(self._config)
        return signer.authorize(self._session.connection.socket_id, channel, data)

    async def _join(self, channel: str, auth: ChannelAuth | None, *, by_endpoint: bool = False) -> Message:
        assert self._session is not None
        seconds, is_named = self._config.subscribe_timeout, channel != self._channel
        try:
            return await self._within(seconds, self._session.subscribe(channel, auth))
        except asyncio.TimeoutError:
            raise diagnosis.no_confirmation(seconds) from None
        except ReverbError as error:
            raise diagnosis.lost(error) from None
        except Refused as refused:
            if by_endpoint:
                assert auth is not None
                is_other_key = not auth.auth.startswith(f"{self._config.app_key}:")
                raise diagnosis.refused_endpoint(
                    refused.error, is_other_key=is_other_key, is_named=is_named
                ) from None
            raise diagnosis.refused_signature(self._context, refused.error, is_named=is_named) from None

    async def _trigger(self) -> str:
        """Send a client event, and receive it on another connection: the sender does not get it."""
        assert self._session is not None
        seconds = self._config.subscribe_timeout
        try:
            await self._within(seconds, self._trigger_to_another(self._session))
        except asyncio.TimeoutError:
            raise diagnosis.client_event_lost(seconds) from None
        except ReverbError as error:
            raise diagnosis.lost(error) from None
        except Refused as refused:
            raise diagnosis.no_client_events(refused.error) from None
        return "one arrived at a second connection"

    async def _trigger_to_another(self, session: _Session) -> None:
        other = _Session(self._config)
        try:
            await other.open(self._ssl_context)
        except ReverbError as error:
            raise diagnosis.no_second_connection(error) from None
        try:
            signer = SecretAuthorizer.from_credentials(self._config)
            await other.subscribe(self._channel, signer.authorize(other.connection.socket_id, self._channel))
            session.connection.send_silent(encode_client_event(_EVENT, self._channel, {}))
            arrival = asyncio.ensure_future(other.expect(_EVENT, self._channel))
            refusal = asyncio.ensure_future(session.expect_error())
            try:
                done, _ = await asyncio.wait({arrival, refusal}, return_when=asyncio.FIRST_COMPLETED)
                done.pop().result()
            finally:
                arrival.cancel()
                refusal.cancel()
                await asyncio.gather(arrival, refusal, return_exceptions=True)
        finally:
            await other.close()

    async def _ask_endpoint(self, channels: Sequence[str]) -> str:
        if self._config.auth_endpoint is None:
            raise _Skipped("REVERB_AUTH_ENDPOINT is not set")
        url = bare(self._config.auth_endpoint.get_secret_value())
        channel = next(filter(needs_auth, channels), self._channel)
        try:
            auth = await self._authorize_by_endpoint(channel)
        except Problem as problem:
            if channel is self._channel and problem.status == 403:
                if self._is_token_read:
                    return (
                        f"{url} accepts the token, and refuses the random name {channel}, as it should; to check "
                        "one of your channels, name it"
                    )
                if self._config.auth_token is None:
                    raise _NoResult(
                        f"{url} refuses the random name {channel}, as it should; to check one of your channels, "
                        "name it"
                    ) from None
            raise
        if self._session is None:
            return f"{url} signs for {channel}; whether the server accepts the signature is not known"
        took = self._seconds
        await self._join(channel, auth, by_endpoint=True)
        self._seconds += took
        return f"{url} signs for {channel}, and the server accepts it"

    async def _authorize_by_endpoint(self, channel: str) -> ChannelAuth:
        config = self._config
        assert config.auth_endpoint is not None
        url, seconds = config.auth_endpoint.get_secret_value(), config.subscribe_timeout
        token = None if config.auth_token is None else config.auth_token.get_secret_value()
        socket_id = "1.1" if self._session is None else self._session.connection.socket_id
        try:
            return await self._within(seconds, EndpointAuthorizer(url, token=token)(socket_id, channel))
        except asyncio.TimeoutError:
            raise diagnosis.slow_endpoint(bare(url), seconds) from None
        except AuthenticationError as error:
            self._is_token_read = None
            if error.code == 403 and token is not None:
                self._is_token_read = await self._reads_tokens(url, socket_id, channel)
            raise diagnosis.endpoint(
                bare(url), error, has_token=token is not None, is_token_read=self._is_token_read
            ) from None

    async def _reads_tokens(self, url: str, socket_id: str, channel: str) -> bool | None:
        """Return whether an endpoint that answers 403 reads the token; None if that is not known.

        If it does, it answers a request without a token with another status."""
        try:
            await asyncio.wait_for(EndpointAuthorizer(url)(socket_id, channel), self._look_timeout)
        except AuthenticationError as error:
            if error.code in (401, 403) or 300 <= (error.code or 0) < 400:
                return error.code != 403
        except asyncio.TimeoutError:
            pass
        return None

    async def _subscribe(self, channel: str) -> str:
        config = self._config
        auth, took, by_endpoint = None, 0.0, False
        if needs_auth(channel):
            if config.auth_endpoint is not None:
                auth, took, by_endpoint = await self._authorize_by_endpoint(channel), self._seconds, True
            elif config.app_secret is None:
                raise diagnosis.unsigned(channel)
            elif not is_signable(channel):
                raise diagnosis.unsignable(channel)
            else:
                auth = self._sign(channel)
        confirmation = await self._join(channel, auth, by_endpoint=by_endpoint)
        self._seconds += took
        if is_encrypted(channel) and (auth is None or auth.shared_secret is None):
            raise diagnosis.no_channel_key()
        if is_presence(channel):
            members = parse_members(parse_data(confirmation.data))
            return f"subscribed; {plural(len(members), 'member')}, the doctor included"
        return "subscribed"

    # --- the HTTP API ------------------------------------------------------------------------------------------

    def _note_date(self, answer: Answer) -> None:
        if answer.date is not None:
            self._offset = time() - answer.date.timestamp()

    async def _compare_clocks(self) -> str:
        if self._offset is None and self._proxy is None:
            with suppress(asyncio.TimeoutError, OSError, EOFError, NotHTTPError):
                self._note_date(await self._within(self._config.connect_timeout, self._ask_for_health()))
        if self._offset is None:
            raise _Skipped("the server's answers have no Date")
        problem = diagnosis.clock_off(self._offset)
        if problem is not None:
            raise problem
        if abs(self._offset) < _DATE_PRECISION:
            return "same time as the server"
        return f"{diagnosis.describe_offset(self._offset)} the server"

    async def _ask_for_health(self) -> Answer:
        async with self._connect_again() as line:
            return await line.request(f"{self._config.path}/up", {"Host": self._host, "Connection": "close"})

    async def _publish(self) -> str:
        config = self._config
        missing = [name for name in ("app_id", "app_secret") if getattr(config, name) is None]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise _Skipped(" and ".join(map(variable_of, missing)) + f" {verb} not set")
        await load_aiohttp()  # the import must not count as time of the server
        try:
            api = ReverbAPI(config, ssl_context=self._ssl_context)
        except ConfigurationError as error:
            raise _Skipped(str(error)) from None
        self._published_at = monotonic()
        async with api:
            try:
                await self._within(None, api.trigger(self._channel, _EVENT, {"published": True}))
            except ReverbError as error:
                is_off = self._offset is not None and diagnosis.clock_off(self._offset) is not None
                raise diagnosis.api(self._context, error, is_clock_off=is_off) from None
        return f"accepts events for the application {config.app_id}"

    async def _receive(self) -> str:
        assert self._session is not None
        seconds = self._config.subscribe_timeout
        try:
            await self._within(seconds, self._session.expect(_EVENT, self._channel))
        except asyncio.TimeoutError:
            raise diagnosis.not_delivered(self._context, seconds, await self._ask_for_subscription()) from None
        except ReverbError as error:
            raise diagnosis.lost(error) from None
        except Refused as refused:
            raise diagnosis.refused(refused.error) from None
        self._seconds = monotonic() - self._published_at
        return "the published event arrived on the private channel"

    async def _ask_for_subscription(self) -> set[bool]:
        """Ask the HTTP API several times whether our channel is occupied. Each time, another server may answer."""
        seen: set[bool] = set()
        with suppress(asyncio.TimeoutError, ReverbError):
            async with ReverbAPI(self._config, ssl_context=self._ssl_context) as api:
                for _ in range(_REQUESTS):
                    info = await asyncio.wait_for(api.channel(self._channel), self._look_timeout)
                    seen.add(bool(info.occupied))
                    await api.close()  # a kept connection would reach the same server again
        return seen


class _Session:
    """A connection for one request at a time."""

    def __init__(self, config: ReverbConfig) -> None:
        self.connection = Connection(
            config,
            Dispatcher(config.max_pending_bytes, lambda: None),
            Traffic(),
            lambda message, size: self._inbox.put_nowait(message),
            lambda: None,
        )
        self._inbox: asyncio.Queue[Message | ConnectionError] = asyncio.Queue()
        self._end: asyncio.Task[None]

    async def open(self, ssl_context: ssl.SSLContext | None) -> None:
        await self.connection.open(ssl_context)
        self._end = spawn(self._watch())

    async def _watch(self) -> None:
        self._inbox.put_nowait(await self.connection.wait_lost())

    async def expect(self, event: str | None, channel: str | None = None) -> Message:
        """Wait for an event. Raises :class:`Refused` for an error of the server, or :class:`ConnectionError`."""
        while True:
            message = await self._inbox.get()
            if not isinstance(message, Message):
                self._inbox.put_nowait(message)  # the next caller has to raise it, too
                raise message
            if message.event in ("pusher:error", "pusher:subscription_error"):
                raise Refused(parse_error(parse_data(message.data)))
            if (message.event, message.channel) == (event, channel):
                return message

    async def expect_error(self) -> None:
        """Wait for an error of the server, and raise it."""
        await self.expect(None)

    async def ping(self) -> None:
        self.connection.send_ping()
        await self.expect("pusher:pong")

    async def subscribe(self, channel: str, auth: ChannelAuth | None) -> Message:
        self.connection.send_subscribe(
            channel, None if auth is None else auth.auth, None if auth is None else auth.channel_data
        )
        return await self.expect("pusher_internal:subscription_succeeded", channel)

    async def close(self) -> None:
        await self.connection.close()
        await self._end
