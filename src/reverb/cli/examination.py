"""The steps of ``reverb doctor``: each looks at one thing, and what needs it comes after it."""

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
from .._visible import bare
from ..auth import ChannelAuth, load_aiohttp
from ..exceptions import AuthenticationError, ConfigurationError, ConnectionError, ReverbError
from . import diagnosis
from .diagnosis import Place, Problem, Refused
from .probe import (
    AddressInfo,
    Answer,
    Line,
    NotHTTPError,
    present_certificate,
    resolve,
    speaks,
    upgrade_key,
)

__all__ = ["Examination", "Step"]

T = TypeVar("T")

_LOOK_TIMEOUT = 3.0
"""Seconds at most for another look at what went wrong, behind a step."""
_PATIENCE = 2.0
"""Seconds for a TLS handshake before we look whether the other end speaks TLS at all."""
_QUESTIONS = 6
"""About the same thing, where a balancer may lead to one server or another."""
_EVENT = "client-reverb-doctor"
_DATE_PRECISION = 2.0
"""Seconds: a ``Date`` header is cut to whole ones, and was on its way."""
_PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080}


@dataclass(frozen=True)
class Step:
    name: str
    ok: bool | None
    """None where it was skipped."""
    seconds: float | None
    """How long it took; None where it was skipped."""
    detail: str
    causes: Sequence[str] = ()
    """Of a failure, the likeliest first."""
    exit_code: int = 0


class _Skipped(Exception):  # noqa: N818
    """A step that there is no way to make; says why."""


class _PassedOver(_Skipped):
    """A step without a result of its own, which holds up no other."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class _ServersOwn(Checked):
    """Settings of the server, which are here, too, where Laravel's ``.env`` is taken as it is."""

    server_path: str | None = setting(str, None)
    server_port: str | None = setting(str, None)


class Examination:
    """Makes the steps one after another. ``begin`` is called with the name of each, ``report`` with what came out.

    Each is limited by the time that the setting for it gives. What is subscribed and published has a name that
    nobody else uses; the channels that are asked for are subscribed, and nothing is sent on them.
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
        own = _ServersOwn.from_env()
        self._config = config
        self._proxy = None if config.proxy is None else bare(config.proxy.get_secret_value())
        self._look_timeout = min(config.connect_timeout, _LOOK_TIMEOUT)
        self._place = Place(config, found, own.server_path, own.server_port)
        self._begin = begin
        self._report = report
        self._ssl_context = ssl_context
        self._done: set[str] = set()
        """Steps behind which others can be made."""
        self._missing: dict[str, str] = {}
        """For steps that could not be made, the one that holds them up."""
        self._took = 0.0
        self._addresses: list[AddressInfo] = []
        self._line: Line | None = None
        self._session: _Session | None = None
        self._refusal: ReverbError | None = None
        self._failure: Failure | None = None
        """What the connection knows of that."""
        self._is_token_read: bool | None = None
        self._greeted_in = 0.0
        self._published_at = 0.0
        self._offset: float | None = None
        """Seconds that our clock is ahead of the server's, which tells whole ones."""
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
            await self._step("greeting", self._check_greeting, needs=["Origin"])
            await self._step("ping", self._ping, needs=["greeting"])
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
        self._took = 0.0
        try:
            if missing is not None:
                self._missing[name] = missing
                raise _Skipped(f"needs {missing}")
            detail = await check()
        except _Skipped as why:
            step = Step(name, None, None, str(why))
            if isinstance(why, _PassedOver):
                self._done.add(name)
        except Problem as problem:
            step = Step(name, False, self._took, problem.detail, problem.causes, problem.code)
        else:
            step = Step(name, True, self._took, detail)
            self._done.add(name)
        self._report(step)

    async def _within(self, seconds: float | None, work: Awaitable[T]) -> T:
        """Do what a step is about; None is for what has a limit of its own. Its time counts; looking at what went
        wrong, behind it, doesn't."""
        began = monotonic()
        try:
            return await asyncio.wait_for(work, seconds)
        finally:
            self._took = monotonic() - began

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
        return f"{of}{host} is {', '.join(found)}" if found != [host] else f"{of}{host} is an address"

    async def _connect(self) -> str:
        seconds = self._config.connect_timeout
        try:
            self._line = await self._within(seconds, Line.open(self._addresses))
        except asyncio.TimeoutError:
            if self._proxy is not None:
                why = f"no answer {_failures.within(seconds)}"
                raise Problem.of(_failures.no_proxy(self._proxy, why)) from None
            raise Problem.of(_failures.black_hole(self._config, seconds)) from None
        except OSError as error:
            if self._proxy is not None:
                raise Problem.of(_failures.no_proxy(self._proxy, _failures.reason_of(error))) from None
            raise diagnosis.no_connection(self._place, error) from None
        return f"connected to {self._line.peer}"

    async def _start_tls(self) -> str:
        config = self._config
        if not self._place.is_tls:
            raise _PassedOver("REVERB_SCHEME is ws: nothing is encrypted")
        assert self._line is not None
        seconds = config.connect_timeout
        try:
            context = self._ssl_context or ssl.create_default_context()
            is_plain = await self._within(seconds, self._shake_hands(self._line, context))
        except ssl.SSLCertVerificationError as error:
            found = await self._look_at_certificate()
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

    async def _shake_hands(self, line: Line, context: ssl.SSLContext) -> bool:
        """Start TLS; or return true, as soon as the other end is known to speak plain HTTP. Reverb says nothing to
        TLS, and waits for more."""
        handshake = asyncio.ensure_future(line.start_tls(context, self._config.host))
        try:
            done, _ = await asyncio.wait({handshake}, timeout=_PATIENCE)
            if not done and await self._speaks("ws"):
                return True
            await handshake
            return False
        finally:
            handshake.cancel()
            await asyncio.wait({handshake})

    async def _look_at_certificate(self) -> Certificate | None:
        try:
            looking = present_certificate(self._addresses, self._config.host)
            return await asyncio.wait_for(looking, self._look_timeout)
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
            if not self._place.is_tls and await self._speaks("wss"):
                raise Problem.of(_failures.tls_on_plain(self._config)) from None
            raise Problem.of(_failures.hung_up(self._config, may_be_tls=False)) from None
        self._note_date(answer)
        if answer.status != 101:
            raise diagnosis.upgrade_refused(self._place, answer, await self._find_path(answer))
        if answer.headers.get("sec-websocket-accept") != accept:
            wrong = _failures.wrong_header(answer.headers) or "Sec-WebSocket-Accept"
            raise Problem.of(_failures.not_websocket(wrong, answer.headers))
        unusual = _failures.wrong_header(answer.headers)
        if unusual is not None:
            took = self._took
            refusal = await self._open_session()
            self._took = took
            if refusal is not None and refusal.code is None:
                raise Problem.of(_failures.not_websocket(unusual, answer.headers))
        by = answer.headers.get("server") or answer.headers.get("x-powered-by")
        return f"{self._config.path}/app/… is a WebSocket" + (f", by {by}" if by else "")

    async def _ask_for_upgrade(self, line: Line, config: ReverbConfig, key: str) -> Answer:
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
        """Try paths with which servers are found behind proxies that change them; return the first that works."""
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
        async with self._another_line() as line:
            config = replace(self._config, path=path)
            return (await self._ask_for_upgrade(line, config, upgrade_key()[0])).status

    async def _upgrade_by_proxy(self) -> str:
        """Through a proxy the layers can't be looked at one by one: they are tried at once."""
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
    async def _another_line(self) -> AsyncIterator[Line]:
        line = await Line.open(self._addresses)
        try:
            if self._place.is_tls:
                await line.start_tls(self._ssl_context or ssl.create_default_context(), self._config.host)
            yield line
        finally:
            line.close()

    # --- the application ---------------------------------------------------------------------------------------

    async def _open_session(self) -> ReverbError | None:
        """Connect as the client does; return why that was not possible."""
        try:
            session = _Session(self._config)
            await self._within(None, session.open(self._ssl_context))
            self._session = session
        except ReverbError as error:
            self._refusal, self._failure = error, session.connection.failure
        self._greeted_in = self._took
        return self._refusal

    async def _check_key(self) -> str:
        if self._session is None and self._refusal is None:
            await self._open_session()
        error = self._refusal
        self._took = self._greeted_in
        if error is None or error.code in (4004, 4009):
            return f"the server knows the application {self._config.app_key}"
        if error.code in (4001, 4003):
            raise diagnosis.wrong_key(self._place, error)
        raise _PassedOver("the server has not said")

    async def _check_origin(self) -> str:
        self._took = self._greeted_in
        if self._refusal is not None and self._refusal.code == 4009:
            raise diagnosis.wrong_origin(self._place, self._refusal, await self._find_origin())
        if self._refusal is not None and self._refusal.code != 4004:
            raise _PassedOver("the server has not said")
        return f"{self._config.origin} is allowed" if self._config.origin else "none is sent, and that is allowed"

    async def _find_origin(self) -> str | None:
        """Try what is most often allowed: the server's own name."""
        origin = f"{'https' if self._place.is_tls else 'http'}://{self._config.host}"
        try:
            config = replace(self._config, origin=origin, connect_timeout=self._look_timeout)
            session = _Session(config)
            await session.open(self._ssl_context)
            await session.close()
        except ReverbError:
            return None
        return origin

    async def _check_greeting(self) -> str:
        self._took = self._greeted_in
        if self._session is None:
            assert self._refusal is not None
            if self._refusal.code == 4004:
                raise diagnosis.over_quota(self._refusal)
            raise diagnosis.not_greeted(self._refusal, self._failure)
        theirs, ours = self._session.connection.activity_timeout, self._config.ping_interval
        if theirs is None:
            return f"no activity timeout; we ping after {ours:g} s of silence"
        return f"activity timeout {theirs:g} s; we ping after {min(theirs, ours):g} s of silence"

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
        return "the server accepts what REVERB_APP_SECRET signs"

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
            raise diagnosis.refused_signature(self._place, refused.error, is_named=is_named) from None

    async def _trigger(self) -> str:
        """A client event goes to all but its sender, so there has to be another connection to see it."""
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
        return "one went to another connection"

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
            complaint = asyncio.ensure_future(session.complaint())
            try:
                done, _ = await asyncio.wait({arrival, complaint}, return_when=asyncio.FIRST_COMPLETED)
                done.pop().result()
            finally:
                arrival.cancel()
                complaint.cancel()
                await asyncio.gather(arrival, complaint, return_exceptions=True)
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
                        f"{url} knows us, and rightly refuses the made-up {channel}; name a channel to check its "
                        "own"
                    )
                if self._config.auth_token is None:
                    raise _PassedOver(
                        f"{url} refuses the made-up {channel}, as it should; name a channel to check its own"
                    ) from None
            raise
        if self._session is None:
            return f"{url} signs for {channel}; whether the server takes that is not known"
        took = self._took
        await self._join(channel, auth, by_endpoint=True)
        self._took += took
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
        """Whether an endpoint that says 403 has looked at the token: without one, it then says something else."""
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
                auth, took, by_endpoint = await self._authorize_by_endpoint(channel), self._took, True
            elif config.app_secret is None:
                raise diagnosis.unsigned(channel)
            elif not is_signable(channel):
                raise diagnosis.unsignable(channel)
            else:
                auth = self._sign(channel)
        confirmation = await self._join(channel, auth, by_endpoint=by_endpoint)
        self._took += took
        if is_encrypted(channel) and (auth is None or auth.shared_secret is None):
            raise diagnosis.no_channel_key()
        if is_presence(channel):
            members = parse_members(parse_data(confirmation.data))
            return f"subscribed, {len(members)} here with us"
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
            raise _Skipped("the server does not tell the time")
        problem = diagnosis.clock_off(self._offset)
        if problem is not None:
            raise problem
        if abs(self._offset) < _DATE_PRECISION:
            return "as the server's"
        return f"{diagnosis.describe_offset(self._offset)} the server"

    async def _ask_for_health(self) -> Answer:
        async with self._another_line() as line:
            return await line.request(f"{self._config.path}/up", {"Host": self._host, "Connection": "close"})

    async def _publish(self) -> str:
        config = self._config
        missing = [name for name in ("app_id", "app_secret") if getattr(config, name) is None]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise _Skipped(" and ".join(map(variable_of, missing)) + f" {verb} not set")
        await load_aiohttp()  # takes a moment that is not the server's
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
                raise diagnosis.api(self._place, error, is_clock_off=is_off) from None
        return f"takes events for the application {config.app_id}"

    async def _receive(self) -> str:
        assert self._session is not None
        seconds = self._config.subscribe_timeout
        try:
            await self._within(seconds, self._session.expect(_EVENT, self._channel))
        except asyncio.TimeoutError:
            raise diagnosis.not_delivered(self._place, seconds, await self._ask_who_knows_us()) from None
        except ReverbError as error:
            raise diagnosis.lost(error) from None
        except Refused as refused:
            raise diagnosis.refused(refused.error) from None
        self._took = monotonic() - self._published_at
        return "what was published has arrived on the private channel"

    async def _ask_who_knows_us(self) -> set[bool]:
        """Ask several times whether our channel is occupied: each time another server may answer."""
        seen: set[bool] = set()
        with suppress(asyncio.TimeoutError, ReverbError):
            async with ReverbAPI(self._config, ssl_context=self._ssl_context) as api:
                for _ in range(_QUESTIONS):
                    info = await asyncio.wait_for(api.channel(self._channel), self._look_timeout)
                    seen.add(bool(info.occupied))
                    await api.close()  # a connection that is kept leads to the same server
        return seen


class _Session:
    """A connection on which one thing at a time is asked and answered."""

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
        """Wait for an event. Raises :class:`Refused` for an error, and :class:`ConnectionError`."""
        while True:
            message = await self._inbox.get()
            if not isinstance(message, Message):
                self._inbox.put_nowait(message)  # whoever asks next wants to know, too
                raise message
            if message.event in ("pusher:error", "pusher:subscription_error"):
                raise Refused(parse_error(parse_data(message.data)))
            if (message.event, message.channel) == (event, channel):
                return message

    async def complaint(self) -> None:
        """Wait for an error, which is raised, and for nothing else."""
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
