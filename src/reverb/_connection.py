"""One WebSocket connection, from the TCP connect to the last byte. The only module that knows picows."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from inspect import isawaitable
from time import monotonic
from urllib.parse import quote, urlencode

import aiohappyeyeballs
import picows

from . import __version__, _failures, _protocol
from ._dispatch import HANDLER_ERRORS, Dispatcher
from ._failures import Failure
from ._protocol import Message, ServerError
from ._subscriptions import PendingRequests, Request
from ._tasks import spawn
from ._visible import bare, visible
from .config import ReverbConfig
from .exceptions import ConnectionError, ProtocolError, ReverbError, TimeoutError, plural

log = logging.getLogger("reverb.connection")
# picows reports every connect and disconnect at INFO; what matters of it is said here.
_picows_log = logging.getLogger("reverb.connection.picows")
_picows_log.setLevel(logging.WARNING)

_CLOSE_TIMEOUT = 2.0
"""Seconds that the server gets to answer our close frame."""
_ATTEMPT_DELAY = 0.25
"""Seconds before the next address of a host is tried beside the last one (RFC 8305 recommends 250 ms)."""
_ROUND_TRIP_INTERVAL = 60.0
"""Seconds after which a connection that is never silent is asked all the same, so that its round trip is known."""
_LATENESS = 0.5
"""Seconds that our own timer may be late before silence is blamed on us and not on the server."""

_SIZES_KEPT = 500
"""Sizes of messages after which they are summed up: appending to a list takes half the time of counting."""
_MAX_CONTROL_SIZE = 125
"""Largest payload of a control frame, in bytes (RFC 6455, 5.5)."""

Deliver = Callable[[Message, int], None]
"""Takes a message and its size in bytes."""
OnFrame = Callable[[picows.WSTransport, picows.WSFrame], None]

_TEXT = picows.WSMsgType.TEXT
_BINARY = picows.WSMsgType.BINARY
_CONTINUATION = picows.WSMsgType.CONTINUATION
_PING = picows.WSMsgType.PING
_CLOSE = picows.WSMsgType.CLOSE


class _Stage(Enum):
    """How far the opening of a connection has come."""

    NAME = "looking up the host, or the proxy"
    TCP = "connecting to that"
    PROXY = "asking the proxy; TLS, if there is any, behind it"
    TLS = "TLS"
    UPGRADE = "asking for a WebSocket"
    GREETING = "waiting for the server's greeting"


class Traffic:
    """What went over the connections of a client, one after another. Bytes are those of messages: what frames and
    TLS add to them is not counted, and neither are pings and pongs of WebSocket itself."""

    def __init__(self) -> None:
        self._routed: tuple[int, int, list[int]] = (0, 0, [])
        """Events that went the fast way, their bytes, and the sizes of those that are not summed up yet. Always
        replaced, never changed, so that other threads see it whole."""
        self.messages = 0
        """Messages that went the long way, …"""
        self.bytes_received = 0
        """… and their bytes."""
        self.bytes_sent = 0
        self.round_trip: float | None = None
        """Seconds from the last ping to its answer."""

    @property
    def routed(self) -> tuple[int, int]:
        """The number of events that went the fast way, and their bytes."""
        events, volume, sizes = self._routed
        return events + len(sizes), volume + sum(sizes)

    def sum_up(self) -> list[int]:
        """Return a new list for the sizes of events that go the fast way, and sum up those in the last one."""
        self._routed = (*self.routed, [])
        return self._routed[2]


class Connection(picows.WSListener):
    """A WebSocket to a Pusher-protocol server: messages in and out, and whether the other side is alive.

    Events go straight to the queues of ``dispatcher`` where these know them. ``deliver`` gets every other message
    of the server but its pings, which are answered here. ``on_end`` is called once after the server's greeting:
    when nothing can be sent any more, which is before the last byte. What is sent is also noted in ``answers``, so
    that errors can be matched with what caused them.
    """

    socket_id: str
    """The server's name for this connection; part of what channel signatures sign."""
    activity_timeout: float | None
    """Seconds of silence after which the server wants to be asked; None where it did not say."""

    opened_at: float
    """When the server had said ``pusher:connection_established``, on the clock of :func:`time.monotonic`."""
    alive_at: float
    """The last moment up to which nothing can have been missed, once the connection has ended."""

    on_ws_frame: OnFrame  # type: ignore[assignment]  # picows calls what is there, a method or not

    def __init__(
        self,
        config: ReverbConfig,
        dispatcher: Dispatcher,
        traffic: Traffic,
        deliver: Deliver,
        on_end: Callable[[], None],
    ) -> None:
        self.requests = PendingRequests()
        self._traffic = traffic
        self._config = config
        self._dispatcher = dispatcher
        self._deliver = deliver
        self._on_end = on_end
        self._receive = self._receiver()
        self.on_ws_frame = self._on_any_frame
        self._transport: picows.WSTransport | None = None
        self._socket: socket.socket | None = None
        self._established: asyncio.Future[ReverbError | None] = asyncio.get_running_loop().create_future()
        self.failure: Failure | None = None
        """Why there is no connection, where :meth:`open` has found that out."""
        self._stage = _Stage.NAME
        self._timed_out = False
        self.is_open = False
        """Whether messages can be sent: from the server's greeting until an end is in sight."""
        self._is_ending = False
        self._loss: str | None = None
        self._fragments: bytearray | None = None
        """What has come of a message in parts; None while none is on the way."""
        self._last_received = self._reading_since = self._pinged_at = monotonic()
        self._last_error: ServerError | None = None
        self._last_error_at = 0.0
        self._last_sent = b""
        self._last_sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """The next thing to do about keeping alive or, at the end, about a server that does not close."""
        self._interval = config.ping_interval
        """Seconds of silence after which we ask whether the server is there."""
        self._is_reading = True
        """Whether the handlers have room for what comes."""
        self._is_looking = False
        """Whether we read although they have not, to see whether the server is there."""
        self._paused_at = 0.0
        self._writable: asyncio.Future[None] | None = None

    # --- opening -----------------------------------------------------------------------------------------------

    async def open(self, ssl_context: ssl.SSLContext | None) -> None:
        """Connect, and wait for ``pusher:connection_established``.

        Raises :class:`ConnectionError`, :class:`TimeoutError` or :class:`ProtocolError`. However it ends without a
        connection, cancellation included, its socket is closed by then, or about to be.
        """
        config = self._config
        connecting = spawn(
            picows.ws_connect(
                lambda: self,
                url_of(config),
                ssl_context=ssl_context,
                websocket_handshake_timeout=None,  # the timer below covers all of it
                extra_headers=self._headers(),
                max_redirects=0,
                max_frame_size=_protocol.MAX_INCOMING_SIZE,
                disconnect_on_exception=False,
                enable_auto_pong=False,  # pings are signs of life, so we want to see them
                proxy=None if config.proxy is None else config.proxy.get_secret_value(),
                socket_factory=self._open_socket,
                # aiofastnet 1.2 reports a TLS handshake that is cut short through the loop's exception handler,
                # in a way that logging can't print; the standard library's TLS just raises.
                use_aiofastnet=False if config.scheme == "wss" else None,
                logger_name=_picows_log,
            )
        )

        def abort() -> None:
            # Cancelled in the HTTP handshake, picows would leave the socket open: that is ended from below.
            if self._transport is not None:
                self._transport.disconnect(graceful=False)
            elif self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            else:
                connecting.cancel()

        def time_out() -> None:
            self._timed_out = True
            abort()

        timer = asyncio.get_running_loop().call_later(config.connect_timeout, time_out)
        try:
            await asyncio.wait({connecting})
            refusal = self._refusal(connecting) or await self._established
            if refusal is not None:
                raise refusal
        except BaseException:
            abort()
            await asyncio.wait({connecting})
            if not connecting.cancelled():
                connecting.exception()  # known already, or no longer of interest
            if self._transport is not None:
                await self.wait_lost()
            raise
        finally:
            timer.cancel()
        if self.is_open:  # its end may have come right behind the greeting
            self._keep_alive()

    async def _open_socket(self, url: picows.WSParsedURL) -> socket.socket:
        """``url`` is that of the proxy, where there is one."""
        addresses = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        self._stage = _Stage.TCP
        self._socket = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_ATTEMPT_DELAY, socket_factory=lambda address: _Socket(*address[:3])
        )
        self._stage = _Stage.TLS if self._config.proxy is None else _Stage.PROXY
        return self._socket

    def _headers(self) -> Iterator[tuple[str, str]]:
        """Headers of our own. picows asks for them when it writes the request; TLS is up by then."""
        self._stage = _Stage.UPGRADE
        if self._config.origin is not None:
            yield "Origin", self._config.origin

    def _refusal(
        self, connecting: asyncio.Future[tuple[picows.WSTransport, picows.WSListener]]
    ) -> ReverbError | None:
        """Why there is no WebSocket, or None when there is one."""
        if self._timed_out:
            return self._timeout()
        try:
            _, listener = connecting.result()
        except picows.WSHandshakeError as error:
            self.failure, code = _explain_handshake(self._config, error)
            return ConnectionError(f"{self._config.address} refused the WebSocket: {self.failure.line}", code=code)
        except Exception as error:  # whatever the resolver, the socket, TLS, or a proxy came up with
            self.failure = self._explain(error)
            refusal = ConnectionError(f"cannot connect to {self._config.address}: {self.failure.line}")
            refusal.__cause__ = _without_frames(error)
            return refusal
        if listener is None:
            self.failure = _failures.hung_up(self._config, may_be_tls=self._config.scheme == "ws")
            return ConnectionError(f"cannot connect to {self._config.address}: {self.failure.line}")
        return None

    def _explain(self, error: Exception) -> Failure:
        """What an error, at the stage that we have come to, means."""
        config, stage = self._config, self._stage
        if stage in (_Stage.NAME, _Stage.TCP):
            if not isinstance(error, OSError | UnicodeError):
                return Failure(str(error) or type(error).__name__, ())
            if config.proxy is not None:
                return _failures.no_proxy(self._proxy, _failures.reason_of(error))
            if stage is _Stage.TCP and isinstance(error, OSError):
                return _failures.no_connection(config, error)
            return _failures.no_name(config.host, "REVERB_HOST", error)
        if stage is _Stage.PROXY and (self._proxy.startswith("https:") or not isinstance(error, ssl.SSLError)):
            return _failures.not_through_proxy(config, visible(_failures.reason_of(error)))
        if isinstance(error, ssl.SSLCertVerificationError):
            return _failures.bad_certificate(config.host, error)
        if isinstance(error, ssl.SSLError) or stage is _Stage.TLS:
            return _failures.no_tls(config, error)
        return _failures.hung_up(config, may_be_tls=config.scheme == "ws")

    def _timeout(self) -> TimeoutError:
        config, seconds = self._config, self._config.connect_timeout
        if self._stage is _Stage.GREETING:
            failure = _failures.not_greeted_in_time(seconds)
        elif self._stage is _Stage.UPGRADE:
            failure = _failures.upgrade_unanswered(config, seconds)
        elif self._stage is _Stage.TLS:
            failure = _failures.silent_on_tls(config, seconds, may_be_plain=True)
        elif config.proxy is not None:
            why = f"no answer {_failures.within(seconds)}"
            is_there = self._stage is _Stage.PROXY
            failure = (
                _failures.not_through_proxy(config, why) if is_there else _failures.no_proxy(self._proxy, why)
            )
        elif self._stage is _Stage.TCP:
            failure = _failures.black_hole(config, seconds)
        else:
            failure = _failures.slow_name(config.host, seconds)
        self.failure = failure
        return TimeoutError(f"cannot connect to {config.address}: {failure.line}")

    @property
    def _proxy(self) -> str:
        """The proxy's URL as it may be shown."""
        assert self._config.proxy is not None
        return bare(self._config.proxy.get_secret_value())

    def _lost_early(self) -> ConnectionError:
        """Why the connection has ended before the server's greeting."""
        lost = self._lost()
        if lost.code is not None or self._last_error is not None:
            return lost  # the server has said why
        self.failure = _failures.not_greeted(str(lost))
        return ConnectionError(f"cannot connect to {self._config.address}: {self.failure.line}")

    def _on_handshake_message(self, message: Message) -> None:
        data = _protocol.parse_data(message.data)
        if message.event == "pusher:error":
            error = _protocol.parse_error(data)
            self._finish_opening(ConnectionError(_explain_refusal(self._config, error), code=error.code))
        elif message.event == "pusher:connection_established":
            socket_id = data.get("socket_id") if isinstance(data, dict) else None
            if not _protocol.is_socket_id(socket_id):
                reason = "established a connection without a socket id: digits, a dot, digits"
                self._finish_opening(ProtocolError(f"{self._config.address} {reason}"))
                return
            self.socket_id = socket_id
            timeout = data.get("activity_timeout")
            self.activity_timeout = timeout if isinstance(timeout, int | float) and timeout > 0 else None
            self.opened_at = monotonic()
            self.is_open = True
            self._finish_opening(None)

    def _finish_opening(self, refusal: ReverbError | None) -> None:
        if not self._established.done():
            self._established.set_result(refusal)

    @property
    def is_laravel_reverb(self) -> bool:
        """Whether the server says in the handshake that it is Laravel Reverb."""
        response = None if self._transport is None else self._transport.response
        return response is not None and "Laravel Reverb" in response.headers.get("X-Powered-By", "")

    # --- what picows calls -------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        self._stage = _Stage.GREETING

    # on_ws_frame is what fits the moment: any frame until the greeting, then the fast way, and little at the end.

    def _receiver(self) -> OnFrame:
        """Return the fast way of events to their handlers.

        This is where a program that receives much spends its time, so it is one function, and a closure: a method
        costs a tenth more, and so does a call to a second function. What a frame is, is only looked at where it
        can be anything but a whole text message: control frames have at most 125 bytes (RFC 6455, 5.5), and a part
        of a message does not decode. What is known of an event's name was found out when it came first; what is
        unknown, and messages of the protocol, go the long way, ``deliver``.
        """
        queues, regulate = self._dispatcher.queues, self._dispatcher.regulate
        decode, decode_json, parse_data, decode_errors = (
            _protocol.decode_unchecked,
            _protocol.decode_json,
            _protocol.parse_data,
            _protocol.DECODE_ERRORS,
        )
        on_any_frame, deliver = self._on_any_frame, self._on_message
        sum_up = self._traffic.sum_up
        sizes = sum_up()

        def on_ws_frame(transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            nonlocal sizes
            payload = frame.get_payload_as_bytes()
            size = len(payload)
            if size > _MAX_CONTROL_SIZE or frame.msg_type is _TEXT:
                try:
                    message = decode(payload)
                except decode_errors:
                    pass
                else:
                    is_last_of_read = frame.last_in_buffer
                    if is_last_of_read:
                        self._last_received = monotonic()
                    try:
                        queue = queues[message.channel]
                        route = queue.routes[message.event]
                    except KeyError:
                        pass
                    else:
                        sizes.append(size)
                        plain = route.plain
                        if plain is None or queue.is_busy:
                            queue.take(route, message, size)
                        else:
                            data = message.data
                            if type(data) is str:
                                try:
                                    data = decode_json(data)
                                except decode_errors:
                                    data = parse_data(data)
                            try:
                                result = plain(message.event, data, message.channel)
                            except HANDLER_ERRORS as error:
                                queue.report(message.event, route.bindings[0], error)
                            else:
                                if result is not None and isawaitable(result):
                                    queue.wait_for(result, message.event, route.bindings[0])
                        if is_last_of_read:
                            if len(sizes) > _SIZES_KEPT:
                                sizes = sum_up()
                            regulate()
                        return
                    # Not where the error is caught: it would be the context of what handlers raise.
                    deliver(message, size)
                    if is_last_of_read:
                        regulate()
                    return
            on_any_frame(transport, frame)

        return on_ws_frame

    def _on_any_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self._last_received = monotonic()
        payload = self._whole_message(transport, frame)
        if payload is not None:
            try:
                message = _protocol.decode(payload)
            except ProtocolError as error:
                address = self._config.address
                log.warning(
                    "skipped a message of %d bytes from %s: %s",
                    len(payload),
                    address,
                    error,
                    extra={"reverb_address": address},
                )
            else:
                self._on_message(message, len(payload))
        self._dispatcher.regulate()  # this may be the last frame of a read that brought events before it
        if not self._is_ending:
            is_ready = self._established.done() and self._fragments is None
            self.on_ws_frame = self._receive if is_ready else self._on_any_frame

    def _whole_message(self, transport: picows.WSTransport, frame: picows.WSFrame) -> bytes | bytearray | None:
        """Handle a control frame or a part of a message; return a message when it is whole."""
        if frame.msg_type is _PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self.requests.sent_silent()
        elif frame.msg_type is _CLOSE:
            self._stop_using(alive_at=monotonic())
            code = frame.get_close_code() or picows.WSCloseCode.OK
            transport.send_close(code, frame.get_close_message())
            transport.disconnect()
        elif (broken := self._broken_rule(frame)) is not None:
            self._abandon(f"the server broke the WebSocket protocol: {broken}", picows.WSCloseCode.PROTOCOL_ERROR)
        elif frame.msg_type in (_TEXT, _BINARY, _CONTINUATION):
            if self._fragments is None:
                if frame.msg_type is _CONTINUATION:
                    return None  # the empty rest of a message that was complete, and taken, before
                self._fragments = bytearray()
            self._fragments += frame.get_payload_as_memoryview()
            if len(self._fragments) > _protocol.MAX_INCOMING_SIZE:
                self._abandon(
                    f"the server sent a message of more than {_protocol.MAX_INCOMING_SIZE} bytes",
                    picows.WSCloseCode.MESSAGE_TOO_BIG,
                )
            elif frame.fin:
                whole, self._fragments = self._fragments, None
                return whole
        return None

    def _broken_rule(self, frame: picows.WSFrame) -> str | None:
        """What a frame does that it must not (RFC 6455, 5.2 and 5.4). Behind it nothing can be trusted: frames and
        what is in them may have changed places, and signs of life come out of that, too."""
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return "a frame with reserved bits"
        if frame.msg_type is _CONTINUATION:
            return "a continuation of nothing" if self._fragments is None and frame.payload_size else None
        if frame.msg_type in (_TEXT, _BINARY) and self._fragments is not None:
            return "a message in the middle of another"
        return None

    def _on_frame_while_closing(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is _CLOSE:
            transport.disconnect()

    def _on_message(self, message: Message, size: int) -> None:
        self._traffic.messages += 1
        self._traffic.bytes_received += size
        if message.channel is None:
            if not self._established.done():
                self._on_handshake_message(message)
                return
            if message.event == "pusher:ping":
                if self.is_open:
                    self.send_silent(_protocol.PONG)
                return
            if message.event == "pusher:error":
                self._last_error = _protocol.parse_error(_protocol.parse_data(message.data))
                self._last_error_at = monotonic()
            elif message.event == "pusher:pong":
                self._on_pong()
        self._deliver(message, size)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._stop_using(alive_at=monotonic() if self._is_end_of_stream() else self._heard_at)
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        if not self._established.done():
            self._finish_opening(self._timeout() if self._timed_out else self._lost_early())

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    # --- sending -----------------------------------------------------------------------------------------------

    def send_subscribe(self, channel: str, auth: str | None, channel_data: str | None) -> Request:
        self._send(_protocol.encode_subscribe(channel, auth, channel_data))
        return self.requests.sent_subscribe(channel)

    def send_signin(self, auth: str, user_data: str) -> Request:
        self._send(_protocol.encode_signin(auth, user_data))
        return self.requests.sent_subscribe(_protocol.SIGNIN)

    def send_ping(self) -> Request:
        self._send(_protocol.PING)
        self._pinged_at = monotonic()
        return self.requests.sent_ping()

    def send_silent(self, payload: bytes) -> None:
        """Send something that is not answered unless with an error: a client event, an unsubscribe, a pong."""
        self._send(payload)
        self.requests.sent_silent()

    @property
    def is_congested(self) -> bool:
        """Whether the socket's buffer is full."""
        return self._writable is not None

    async def drain(self) -> None:
        """Wait while the socket's buffer is full."""
        while self._writable is not None:
            await asyncio.shield(self._writable)

    def _send(self, payload: bytes) -> None:
        if not self.is_open or self._transport is None:
            raise ConnectionError(f"the connection to {self._config.address} is closed")
        self._transport.send(_TEXT, payload)
        self._traffic.bytes_sent += len(payload)
        self._last_sent = payload
        self._last_sent_at = monotonic()

    # --- reading at the pace of the handlers -------------------------------------------------------------------

    def set_reading(self, reading: bool) -> None:
        """Pause or resume reading from the socket; while paused, TCP makes the server wait.

        While paused, pings of the server stay unread; ours, which go on, count as life there.
        """
        if not self.is_open:
            return
        if reading is not self._is_reading:
            self._is_reading = reading
            if reading:
                self._last_received = self._reading_since = monotonic()  # the silence was ours
            else:
                self._paused_at = monotonic()
            if not self._is_looking:
                self._read_on(reading)
            self._is_looking = False
        elif self._is_looking and self._dispatcher.is_flooded:
            self._stop_looking()

    def _read_on(self, reading: bool) -> None:
        assert self._transport is not None
        if reading:
            self._transport.underlying_transport.resume_reading()
        else:
            self._transport.underlying_transport.pause_reading()

    def _look(self) -> None:
        self._is_looking = True
        self._read_on(True)

    def _stop_looking(self) -> None:
        self._is_looking = False
        self._paused_at = monotonic()
        self._read_on(False)

    # --- staying alive -----------------------------------------------------------------------------------------

    # Who does not read hears no answer. So when reading has been paused for an interval, we look: we read on until
    # the server's answer to a ping is there. What comes before it is taken, up to the limit of
    # Dispatcher.is_flooded; a server that fills that up is alive for the time being.

    def _keep_alive(self) -> None:
        """Begin to ask a silent server whether it is there, and to end the connection if it does not answer."""
        if self.activity_timeout is not None:
            self._interval = min(self._interval, self.activity_timeout)
        self._watch()

    def _watch(self) -> None:
        """See how long the server has been silent, and when to look again."""
        now, interval = monotonic(), self._interval
        if not self._is_reading:
            if now - self._paused_at < interval:
                self._wait(self._paused_at + interval - now, self._watch)
                return
            self.send_ping()  # also to show that we are alive
            if self._dispatcher.is_flooded:
                self._wait(interval, self._watch)
            else:
                self._look()
                self._wait(min(interval, self._config.pong_timeout), self._check, now)
        elif now - self._last_received < interval:
            if not self.requests.open_pings and now - self._pinged_at >= _ROUND_TRIP_INTERVAL:
                self.send_ping()
            self._wait(self._last_received + interval - now, self._watch)
        else:
            self.send_ping()
            self._wait(min(interval, self._config.pong_timeout), self._check, now)

    def _check(self, asked_at: float) -> None:
        """See whether the server, which was asked at that time, has said anything since."""
        pong_timeout, silent_since = self._config.pong_timeout, asked_at
        if self._is_looking and not self.requests.open_pings:
            self._stop_looking()  # the server has refused to answer, so it is there
        if self._is_looking:
            silent_since = max(asked_at, self._last_received)  # what came may have been sent long before
        elif self._last_received >= asked_at or not self._is_reading:
            self._watch()
            return
        waited = monotonic() - silent_since
        if waited < pong_timeout:
            self._wait(pong_timeout - waited, self._check, asked_at)
        elif waited > pong_timeout + _LATENESS:
            # We are late, so the answer may be waiting to be read: blocked loop, suspended machine.
            self._wait(pong_timeout, self._check, silent_since + waited)
        else:
            self._abandon(f"no answer to a ping within {plural(pong_timeout, 'second')} (REVERB_PONG_TIMEOUT)")

    def _wait(self, seconds: float, then: Callable[..., None], *arguments: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, then, *arguments)

    def _on_pong(self) -> None:
        if self.requests.open_pings != 1:
            return  # with several open it could be the answer to either
        if self._is_looking:
            self._stop_looking()
        elif self._pinged_at >= self._reading_since:  # else a pause in reading is part of it
            self._traffic.round_trip = monotonic() - self._pinged_at
        if self.is_open and self._timer is not None:  # an idle program need not wake up once more to check for it
            self._timer.cancel()
            self._watch()

    # --- the end -----------------------------------------------------------------------------------------------

    def _stop_using(self, *, alive_at: float) -> None:
        """An end is in sight. It is waited for, but not for long."""
        if self._is_ending:
            return
        self._is_ending = True
        self.on_ws_frame = self._on_frame_while_closing
        if self._timer is not None:
            self._timer.cancel()
        if not self.is_open:
            return
        self.is_open = False
        self.alive_at = alive_at
        assert self._transport is not None
        if not self._transport.is_disconnected:
            if not (self._is_reading or self._is_looking or self._transport.underlying_transport.is_closing()):
                self._read_on(True)  # or the server's close frame would never be read
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self._transport.disconnect, False)
        self._on_end()

    @property
    def _heard_at(self) -> float:
        """The last moment up to which the server is known to have had us: now, unless something that we sent after
        its last message may be what found the line dead."""
        return monotonic() if self._last_sent_at <= self._last_received else self._last_received

    def _is_end_of_stream(self) -> bool:
        """Whether the server has ended the stream, on a line that was alive. If not, it was reset, or timed out;
        or it was reset behind the end, as happens with TLS."""
        assert self._socket is not None
        try:
            self._socket.getpeername()  # of a socket that is connected, in one direction at least
        except OSError:
            return False
        return not self.requests.open_pings

    def _abandon(self, reason: str, code: picows.WSCloseCode = picows.WSCloseCode.GOING_AWAY) -> None:
        """Give the connection up without waiting for the server."""
        assert self._transport is not None
        self._loss = reason
        self._stop_using(alive_at=self._last_received)
        self._transport.send_close(code)
        self._transport.disconnect(graceful=False)

    def abort(self) -> None:
        """End at once, without a word to the server."""
        if self._transport is not None:
            self._stop_using(alive_at=self._heard_at)
            self._transport.disconnect(graceful=False)

    async def close(self) -> None:
        """Close with code 1000 and wait, for a moment, until the server has closed too. Cancelled, it does not
        wait for that."""
        if self._transport is None or self._transport.is_disconnected:
            return
        try:
            if self.is_open:
                self._stop_using(alive_at=self._heard_at)
                self._transport.send_close(picows.WSCloseCode.OK)
            await self.wait_lost()
        finally:
            self._transport.disconnect(graceful=False)

    async def wait_lost(self) -> ConnectionError:
        """Wait until the connection is gone; return the reason."""
        assert self._transport is not None
        try:
            await self._transport.wait_disconnected()
        except Exception as error:  # picows found something it can't go on with
            self._loss = f"the server broke the WebSocket protocol: {error}"
        return self._lost()

    @property
    def close_code(self) -> int | None:
        """The code in the server's close frame; None where there was no code, or no frame."""
        handshake = self._transport.close_handshake if self._transport is not None else None
        if handshake is None or handshake.recv is None:
            return None
        return handshake.recv.code.value or None

    def _lost(self) -> ConnectionError:
        lost = f"lost the connection to {self._config.address}"
        handshake = self._transport.close_handshake if self._transport is not None else None
        if handshake is not None and handshake.recv is not None:
            code = self.close_code
            reason = f"the server closed it with code {code}" if code else "the server closed it without a code"
            if handshake.recv.reason:
                reason += f": {handshake.recv.reason}"
            if code == picows.WSCloseCode.MESSAGE_TOO_BIG.value and self._last_sent:
                reason += (
                    f"; the last message sent was {_protocol.describe(self._last_sent)} with "
                    f"{len(self._last_sent)} bytes (REVERB_MAX_MESSAGE_SIZE is {self._config.max_message_size})"
                )
            return ConnectionError(f"{lost}: {reason}", code=code)
        if self._last_error is not None and self._last_error_at >= self._last_received:
            # Reverb sends no close codes; its last words are the reason.
            return ConnectionError(f"{lost}: {self._last_error}", code=self._last_error.code)
        return ConnectionError(f"{lost}: {self._loss or 'it ended without a close frame'}")


class _Socket(socket.socket):
    """A socket that the event loop has forgotten when it is closed.

    aiofastnet 1.2 has the loop read from a connection that broke while it was being made, and closes it. The next
    socket with the same number, of whoever in the program, would then fail with "No such file or directory".
    """

    def close(self) -> None:
        if self.fileno() >= 0:
            # RuntimeError: asyncio's own transports look after that themselves, and so does a loop that is closed.
            with suppress(NotImplementedError, RuntimeError):
                asyncio.get_running_loop().remove_reader(self.fileno())
        super().close()


def url_of(config: ReverbConfig) -> str:
    query = urlencode(
        {
            "protocol": _protocol.PROTOCOL_VERSION,
            "client": "python-reverb",
            "version": __version__,
        }
    )
    return f"{config.scheme}://{config.address}{quote(config.path)}/app/{quote(config.app_key, safe='')}?{query}"


def _without_frames(error: BaseException) -> BaseException:
    """Drop the frames that an error keeps, and those behind it: in picows' own stands the password of a proxy."""
    each: BaseException | None = error
    while each is not None:
        each = each.with_traceback(None)
        each = each.__cause__ or each.__context__
    return error


def _explain_handshake(config: ReverbConfig, error: picows.WSHandshakeError) -> tuple[Failure, int | None]:
    """What an answer that is no good 101 means, and its status unless that is 101."""
    raw = error.raw_header or b""
    answer = _failures.parse_head(raw)
    if answer is None:
        return _failures.not_http(config, raw), None
    status, headers = answer
    if status != 101:
        body = error.raw_body or b""
        if headers.get("transfer-encoding", "").lower().endswith("chunked"):
            body = _failures.join_chunks(body)
        return _failures.upgrade_refused(config, status, headers, body.decode(errors="replace")), status
    if isinstance(error, picows.WSInvalidHeaderError):
        return _failures.not_websocket(error.name, headers), None
    return Failure(visible(str(error)), ()), None


def _explain_refusal(config: ReverbConfig, error: ServerError) -> str:
    hints = {
        4001: "check REVERB_APP_KEY",
        4004: "the application's max_connections is used up",
        4009: "set REVERB_ORIGIN to one of the server's allowed_origins",
    }
    hint = hints.get(error.code or 0)
    return f"{config.address} refused the connection: {error}" + (f"; {hint}" if hint else "")
