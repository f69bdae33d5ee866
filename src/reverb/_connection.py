"""One WebSocket connection, from the TCP connect to the last byte. The only module that uses picows."""

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
from typing import Any
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
# picows logs every connect and disconnect at INFO. This module logs what matters of that.
_picows_log = logging.getLogger("reverb.connection.picows")
_picows_log.setLevel(logging.WARNING)

_CLOSE_TIMEOUT = 2.0
"""Seconds that the server has to answer our close frame."""
_ABORT_TIMEOUT = 0.5
"""Seconds that picows has to notice that we have ended its socket. Then we cancel the attempt to connect."""
_ATTEMPT_DELAY = 0.25
"""Seconds before the next address of a host is tried in parallel (RFC 8305 recommends 250 ms)."""
_ROUND_TRIP_INTERVAL = 60.0
"""Seconds after which a connection that is never silent is pinged, to measure its round trip."""
_LATENESS = 0.5
"""Seconds that our own timer may be late. If it is later, the silence may be ours and not the server's."""

_SIZES_KEPT = 500
"""Number of message sizes after which they are summed up: to append to a list takes half the time of adding."""
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
    """How far the attempt to connect has come."""

    NAME = "looking up the name of the host or the proxy"
    TCP = "connecting by TCP"
    PROXY = "talking to the proxy, and TLS through it"
    TLS = "TLS"
    UPGRADE = "requesting a WebSocket"
    ESTABLISHING = "waiting for pusher:connection_established"


class Traffic:
    """Counts the messages of a client over all its connections.

    Bytes are those of messages. What frames and TLS add is not counted, and neither are WebSocket pings and pongs.
    """

    def __init__(self) -> None:
        self._routed: tuple[int, int, list[int]] = (0, 0, [])
        """Number of events that went the fast path, their bytes, and the sizes that are not summed up yet. The
        tuple is always replaced, never changed, so that other threads see a consistent one."""
        self.messages = 0
        """Number of messages that went the slow path."""
        self.bytes_received = 0
        """Bytes of the messages that went the slow path."""
        self.bytes_sent = 0
        self.round_trip: float | None = None
        """Seconds from the last ping to its answer."""

    @property
    def routed(self) -> tuple[int, int]:
        """The number of events that went the fast path, and their bytes."""
        events, volume, sizes = self._routed
        return events + len(sizes), volume + sum(sizes)

    def sum_up(self) -> list[int]:
        """Sum up the sizes so far; return a new list for the sizes of events that go the fast path."""
        self._routed = (*self.routed, [])
        return self._routed[2]


class Connection(picows.WSListener):
    """A WebSocket to a Pusher-protocol server: receives and sends messages, and checks that the server is alive.

    Events go directly to the queues of ``dispatcher`` if these have a route. ``deliver`` gets all other messages,
    except for the server's pings, which are answered here. ``on_end`` is called once after the connection was
    established: when nothing can be sent any more, which is before the last byte. Every message that is sent is
    noted in ``requests``, so that errors can be matched with it.
    """

    socket_id: str
    """The server's id of this connection; part of the text that is signed for a channel."""
    activity_timeout: float | None
    """Seconds of silence after which the server wants a ping. None if it did not say."""

    opened_at: float
    """When ``pusher:connection_established`` arrived, on the clock of :func:`time.monotonic`."""
    alive_at: float
    """After the end: the last moment until which no event can have been missed."""

    on_ws_frame: OnFrame  # type: ignore[assignment]  # picows also calls an attribute

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
        """Why there is no connection, if :meth:`open` has found the cause."""
        self._stage = _Stage.NAME
        self._timed_out = False
        self.is_open = False
        """Whether messages can be sent: from ``pusher:connection_established`` until the connection begins to
        end."""
        self._is_closing = False
        self._loss: str | None = None
        self._fragments: bytearray | None = None
        """The parts of a message that have arrived. None if no message is incomplete."""
        self._last_received = self._reading_since = self._ping_sent_at = monotonic()
        self._last_error: ServerError | None = None
        self._last_error_at = 0.0
        self._last_sent = b""
        self._last_sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """The next check that the server is alive. At the end: when to stop waiting for a server that does not
        close."""
        self._interval = config.ping_interval
        """Seconds of silence after which we send a ping."""
        self._is_reading = True
        """Whether handlers keep up, so that we read."""
        self._is_probing = False
        """Whether we read although handlers don't keep up, to see whether the server is alive."""
        self._paused_at = 0.0
        self._writable: asyncio.Future[None] | None = None

    # --- opening -----------------------------------------------------------------------------------------------

    async def open(self, ssl_context: ssl.SSLContext | None) -> None:
        """Connect, and wait for ``pusher:connection_established``.

        Raises :class:`ConnectionError`, :class:`TimeoutError` or :class:`ProtocolError`. If there is no connection
        in the end, cancellation included, the socket is closed by then, or will be at once.
        """
        config = self._config
        loop = asyncio.get_running_loop()
        has_own_transports = not isinstance(loop, asyncio.BaseEventLoop)  # as uvloop
        connecting = spawn(
            picows.ws_connect(
                lambda: self,
                url_of(config),
                ssl_context=ssl_context,
                websocket_handshake_timeout=None,  # the timer below covers the whole attempt
                extra_headers=self._headers(),
                max_redirects=0,
                max_frame_size=_protocol.MAX_INCOMING_SIZE,
                disconnect_on_exception=False,
                enable_auto_pong=False,  # we count pings as signs of life
                proxy=None if config.proxy is None else config.proxy.get_secret_value(),
                socket_factory=self._open_socket,
                # If a TLS handshake ends early, aiofastnet 1.2 calls the loop's exception handler in a way that
                # logging can't print. The standard library's TLS raises. On uvloop, aiofastnet does not notice a
                # reset that arrives together with data: uvloop reports both once, and aiofastnet only reads the
                # data then.
                use_aiofastnet=False if config.scheme == "wss" or has_own_transports else None,
                logger_name=_picows_log,
            )
        )

        # asyncio's transports close the socket object. uvloop's close the descriptor alone: if the server resets
        # the connection before create_connection() has returned, the object keeps the number, and would later
        # close what has that number by then.
        def forget_descriptor(_: asyncio.Future[tuple[picows.WSTransport, picows.WSListener]]) -> None:
            if self._socket is not None and self._transport is None:
                self._socket.detach()

        if has_own_transports:
            connecting.add_done_callback(forget_descriptor)

        def time_out() -> None:
            self._timed_out = True
            abort()

        timer = loop.call_later(config.connect_timeout, time_out)

        def abort() -> None:
            nonlocal timer
            timer.cancel()
            if self._transport is not None:
                self._transport.disconnect(graceful=False)
            elif self._stage is _Stage.UPGRADE and self._socket is not None:
                # picows leaves the socket open if it is cancelled in the HTTP handshake, so end the socket.
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                timer = loop.call_later(_ABORT_TIMEOUT, connecting.cancel)
            else:
                connecting.cancel()

        try:
            await asyncio.wait({connecting})
            refusal = self._refusal(connecting) or await self._established
            if refusal is not None:
                raise refusal
        except BaseException:
            abort()
            await asyncio.wait({connecting})
            if not connecting.cancelled():
                connecting.exception()  # retrieved, so that asyncio does not log it
            if self._transport is not None:
                await self.wait_lost()
            raise
        finally:
            timer.cancel()
        if self.is_open:  # it may have ended right after it was established
            self._keep_alive()

    async def _open_socket(self, url: picows.WSParsedURL) -> socket.socket:
        """Connect to the host of ``url``, which is the proxy if there is one."""
        addresses = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        self._stage = _Stage.TCP
        self._socket = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_ATTEMPT_DELAY, socket_factory=lambda address: _Socket(*address[:3])
        )
        self._stage = _Stage.TLS if self._config.proxy is None else _Stage.PROXY
        return self._socket

    def _headers(self) -> Iterator[tuple[str, str]]:
        """Our own headers. picows reads them when it writes the request; TLS is established by then."""
        self._stage = _Stage.UPGRADE
        if self._config.origin is not None:
            yield "Origin", self._config.origin

    def _refusal(
        self, connecting: asyncio.Future[tuple[picows.WSTransport, picows.WSListener]]
    ) -> ReverbError | None:
        """Return why there is no WebSocket; None if there is one."""
        if self._timed_out:
            return self._timeout()
        try:
            _, listener = connecting.result()
        except picows.WSHandshakeError as error:
            self.failure, code = _explain_handshake(self._config, error)
            return ConnectionError(f"{self._config.address} refused the WebSocket: {self.failure.line}", code=code)
        except Exception as error:  # anything that the resolver, the socket, TLS, or a proxy raises
            self.failure = self._explain(error)
            refusal = ConnectionError(f"cannot connect to {self._config.address}: {self.failure.line}")
            refusal.__cause__ = _without_frames(error)
            return refusal
        if listener is None:
            self.failure = _failures.hung_up(self._config, may_be_tls=self._config.scheme == "ws")
            return ConnectionError(f"cannot connect to {self._config.address}: {self.failure.line}")
        return None

    def _explain(self, error: Exception) -> Failure:
        """Return what an error means at the present stage."""
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
        if self._stage is _Stage.ESTABLISHING:
            failure = _failures.not_established_in_time(seconds)
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
        """The URL of the proxy, without the password."""
        assert self._config.proxy is not None
        return bare(self._config.proxy.get_secret_value())

    def _lost_early(self) -> ConnectionError:
        """Return why the connection has ended before it was established."""
        lost = self._lost()
        if lost.code is not None or self._last_error is not None:
            return lost  # the server has said the reason
        self.failure = _failures.not_established(str(lost))
        return ConnectionError(f"cannot connect to {self._config.address}: {self.failure.line}")

    def _on_handshake_message(self, message: Message) -> None:
        data = _protocol.parse_data(message.data)
        if message.event == "pusher:error":
            error = _protocol.parse_error(data)
            self._finish_opening(ConnectionError(_explain_refusal(self._config, error), code=error.code))
        elif message.event == "pusher:connection_established":
            socket_id = data.get("socket_id") if isinstance(data, dict) else None
            if not _protocol.is_socket_id(socket_id):
                reason = "sent pusher:connection_established without a valid socket_id (digits, a dot, digits)"
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
        self._stage = _Stage.ESTABLISHING

    # on_ws_frame depends on the stage: _on_any_frame until the connection is established, then the fast path, and
    # _on_frame_while_closing at the end.

    def _receiver(self) -> OnFrame:
        """Return the function for the fast path of events to their handlers.

        A program that receives many events spends its time here. So this is one function, and a closure: a method
        costs a tenth more, and so does a call to a second function. It looks at the kind of a frame only if the
        frame may be something else than a whole text message: control frames have at most 125 bytes (RFC 6455,
        5.5), and a part of a message does not decode. The route of an event was found when its name came first.
        Unknown names and messages of the protocol go the slow path, ``deliver``.
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
                                queue.report_handler_error(message.event, route.bindings[0], error)
                            else:
                                if result is not None and isawaitable(result):
                                    queue.wait_for(result, message.event, route.bindings[0])
                        if is_last_of_read:
                            if len(sizes) > _SIZES_KEPT:
                                sizes = sum_up()
                            regulate()
                        return
                    # Not in the except block: the error would be the context of exceptions that handlers raise.
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
        self._dispatcher.regulate()  # this may be the last frame of a read with events
        if not self._is_closing:
            is_ready = self._established.done() and self._fragments is None
            self.on_ws_frame = self._receive if is_ready else self._on_any_frame

    def _whole_message(self, transport: picows.WSTransport, frame: picows.WSFrame) -> bytes | bytearray | None:
        """Handle a control frame or a part of a message; return a message when it is complete."""
        if frame.msg_type is _PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self.requests.sent_silent()
        elif frame.msg_type is _CLOSE:
            self._start_closing(alive_at=monotonic())
            code = frame.get_close_code() or picows.WSCloseCode.OK
            transport.send_close(code, frame.get_close_message())
            transport.disconnect()
        elif (broken := self._broken_rule(frame)) is not None:
            self._fail(f"the server broke the WebSocket protocol: {broken}", picows.WSCloseCode.PROTOCOL_ERROR)
        elif frame.msg_type in (_TEXT, _BINARY, _CONTINUATION):
            if self._fragments is None:
                if frame.msg_type is _CONTINUATION:
                    return None  # the empty end of a message that was taken already
                self._fragments = bytearray()
            self._fragments += frame.get_payload_as_memoryview()
            if len(self._fragments) > _protocol.MAX_INCOMING_SIZE:
                self._fail(
                    f"the server sent a message of more than {_protocol.MAX_INCOMING_SIZE} bytes",
                    picows.WSCloseCode.MESSAGE_TOO_BIG,
                )
            elif frame.fin:
                whole, self._fragments = self._fragments, None
                return whole
        return None

    def _broken_rule(self, frame: picows.WSFrame) -> str | None:
        """Return the rule that a frame breaks (RFC 6455, 5.2 and 5.4); None if it breaks none.

        Nothing after such a frame can be trusted: control frames and payload may be mixed up.
        """
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return "a frame with reserved bits"
        if frame.msg_type is _CONTINUATION:
            return (
                "a continuation frame without a message"
                if self._fragments is None and frame.payload_size
                else None
            )
        if frame.msg_type in (_TEXT, _BINARY) and self._fragments is not None:
            return "a new message inside another message"
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
        self._start_closing(alive_at=monotonic() if self._is_end_of_stream() else self._heard_at)
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
        self._ping_sent_at = monotonic()
        return self.requests.sent_ping()

    def send_silent(self, payload: bytes) -> None:
        """Send a message that the server answers only with an error, if at all: a client event, an unsubscribe,
        a pong."""
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
        """Pause or resume reading from the socket. While it is paused, TCP makes the server wait.

        While paused, the server's pings stay unread. Our pings continue; the server counts them as a sign of life.
        """
        if not self.is_open:
            return
        if reading is not self._is_reading:
            self._is_reading = reading
            if reading:
                self._last_received = self._reading_since = monotonic()  # we were not reading
            else:
                self._paused_at = monotonic()
            if not self._is_probing:
                self._set_socket_reading(reading)
            self._is_probing = False
        elif self._is_probing and self._dispatcher.is_flooded:
            self._stop_probing()

    def _set_socket_reading(self, reading: bool) -> None:
        assert self._transport is not None
        if reading:
            self._transport.underlying_transport.resume_reading()
        else:
            self._transport.underlying_transport.pause_reading()

    def _probe(self) -> None:
        self._is_probing = True
        self._set_socket_reading(True)

    def _stop_probing(self) -> None:
        self._is_probing = False
        self._paused_at = monotonic()
        self._set_socket_reading(False)

    # --- staying alive -----------------------------------------------------------------------------------------

    # While reading is paused, no answer can arrive. So after an interval of that we probe: we read until the
    # answer to a ping has arrived. Events before it are taken, up to the limit of Dispatcher.is_flooded. A server
    # that reaches that limit counts as alive.

    def _keep_alive(self) -> None:
        """Begin to send pings to a silent server, and to end the connection if it does not answer."""
        if self.activity_timeout is not None:
            self._interval = min(self._interval, self.activity_timeout)
        self._check_silence()

    def _check_silence(self) -> None:
        """Check how long the server has been silent, and plan the next check."""
        now, interval = monotonic(), self._interval
        if not self._is_reading:
            if now - self._paused_at < interval:
                self._wait(self._paused_at + interval - now, self._check_silence)
                return
            self.send_ping()  # this also shows the server that we are alive
            if self._dispatcher.is_flooded:
                self._wait(interval, self._check_silence)
            else:
                self._probe()
                self._wait(min(interval, self._config.pong_timeout), self._check_answer, now)
        elif now - self._last_received < interval:
            if not self.requests.open_pings and now - self._ping_sent_at >= _ROUND_TRIP_INTERVAL:
                self.send_ping()
            self._wait(self._last_received + interval - now, self._check_silence)
        else:
            self.send_ping()
            self._wait(min(interval, self._config.pong_timeout), self._check_answer, now)

    def _check_answer(self, pinged_at: float) -> None:
        """Check whether the server has sent anything since the ping at ``pinged_at``."""
        pong_timeout, silent_since = self._config.pong_timeout, pinged_at
        if self._is_probing and not self.requests.open_pings:
            self._stop_probing()  # the server has refused the ping, so it is alive
        if self._is_probing:
            silent_since = max(pinged_at, self._last_received)  # messages may have been sent long before
        elif self._last_received >= pinged_at or not self._is_reading:
            self._check_silence()
            return
        waited = monotonic() - silent_since
        if waited < pong_timeout:
            self._wait(pong_timeout - waited, self._check_answer, pinged_at)
        elif waited > pong_timeout + _LATENESS:
            # We are late (blocked loop, suspended machine): the answer may wait in the socket.
            self._wait(pong_timeout, self._check_answer, silent_since + waited)
        else:
            self._fail(f"no answer to a ping within {plural(pong_timeout, 'second')} (REVERB_PONG_TIMEOUT)")

    def _wait(self, seconds: float, then: Callable[..., None], *arguments: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, then, *arguments)

    def _on_pong(self) -> None:
        if self.requests.open_pings != 1:
            return  # if several are open, it may answer any of them
        if self._is_probing:
            self._stop_probing()
        elif self._ping_sent_at >= self._reading_since:  # otherwise it includes a pause in reading
            self._traffic.round_trip = monotonic() - self._ping_sent_at
        if self.is_open and self._timer is not None:  # saves an idle program one wake-up
            self._timer.cancel()
            self._check_silence()

    # --- the end -----------------------------------------------------------------------------------------------

    def _start_closing(self, *, alive_at: float) -> None:
        """The connection begins to end. Wait for the end, but not for long."""
        if self._is_closing:
            return
        self._is_closing = True
        self.on_ws_frame = self._on_frame_while_closing
        if self._timer is not None:
            self._timer.cancel()
        if not self.is_open:
            return
        self.is_open = False
        self.alive_at = alive_at
        assert self._transport is not None
        if not self._transport.is_disconnected:
            if not (self._is_reading or self._is_probing or self._transport.underlying_transport.is_closing()):
                self._set_socket_reading(True)  # otherwise we never read the server's close frame
            self._timer = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self._transport.disconnect, False)
        self._on_end()

    @property
    def _heard_at(self) -> float:
        """The last moment until which the server surely had us as a subscriber.

        That is now, unless we have sent something after its last message: that may have found the connection dead.
        """
        return monotonic() if self._last_sent_at <= self._last_received else self._last_received

    def _is_end_of_stream(self) -> bool:
        """Return whether the server has ended the stream of a connection that was alive.

        If not, the connection was reset or timed out, or it was reset after the end, as happens with TLS.
        """
        assert self._socket is not None
        # The address is empty unless one direction is still connected.
        return bool(self._socket.getpeername()) and not self.requests.open_pings

    def _fail(self, reason: str, code: picows.WSCloseCode = picows.WSCloseCode.GOING_AWAY) -> None:
        """End the connection without waiting for the server."""
        assert self._transport is not None
        self._loss = reason
        self._start_closing(alive_at=self._last_received)
        self._transport.send_close(code)
        self._transport.disconnect(graceful=False)

    def abort(self) -> None:
        """End the connection at once; send nothing to the server."""
        if self._transport is not None:
            self._start_closing(alive_at=self._heard_at)
            self._transport.disconnect(graceful=False)

    async def close(self) -> None:
        """Close with code 1000 and wait, for a limited time, until the server has closed, too.

        If this is cancelled, it does not wait.
        """
        if self._transport is None or self._transport.is_disconnected:
            return
        try:
            if self.is_open:
                self._start_closing(alive_at=self._heard_at)
                self._transport.send_close(picows.WSCloseCode.OK)
            await self.wait_lost()
        finally:
            self._transport.disconnect(graceful=False)

    async def wait_lost(self) -> ConnectionError:
        """Wait until the connection has ended; return the reason."""
        assert self._transport is not None
        try:
            await self._transport.wait_disconnected()
        except Exception as error:  # picows stopped because of an error
            self._loss = f"the server broke the WebSocket protocol: {error}"
        return self._lost()

    @property
    def close_code(self) -> int | None:
        """The code in the server's close frame. None if there was no code or no frame."""
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
            # Reverb sends no close codes; its last error is the reason.
            return ConnectionError(f"{lost}: {self._last_error}", code=self._last_error.code)
        return ConnectionError(f"{lost}: {self._loss or 'it ended without a close frame'}")


class _Socket(socket.socket):
    """A connected socket, in the way that libraries below need it."""

    def getpeername(self) -> Any:
        """Return the peer's address; an empty one unless one direction is still connected.

        If this raised after a reset, picows 2.3 would connect again, and leave the socket open when that fails.
        """
        try:
            return super().getpeername()
        except OSError:
            return ()

    def close(self) -> None:
        """Close, and make the event loop forget the socket.

        aiofastnet 1.2 makes the loop read from a connection that broke while connecting, and closes it. The next
        socket with the same number, in any part of the program, would then fail with "No such file or directory".
        """
        if self.fileno() >= 0:
            # RuntimeError: asyncio's own transports remove the reader themselves, or the loop is closed.
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
    """Remove the frames of an error and its causes: those of picows contain the password of a proxy."""
    each: BaseException | None = error
    while each is not None:
        each = each.with_traceback(None)
        each = each.__cause__ or each.__context__
    return error


def _explain_handshake(config: ReverbConfig, error: picows.WSHandshakeError) -> tuple[Failure, int | None]:
    """Return what an answer other than a valid 101 means, and its status unless that is 101."""
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
        4004: "the application has reached its max_connections",
        4009: "set REVERB_ORIGIN to one of the server's allowed_origins",
    }
    hint = hints.get(error.code or 0)
    return f"{config.address} refused the connection: {error}" + (f"; {hint}" if hint else "")
