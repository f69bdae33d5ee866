"""A stream of NATS JetStream as the source of a publisher.

It needs the extra ``python-reverb[relay-nats]``, and imports nats-py when it opens the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from .._settings import SecretStr
from .._visible import visible
from ..exceptions import ConfigurationError
from ._log import EngineError
from ._publisher import Item, address_of

if TYPE_CHECKING:
    from nats.aio.client import Client

__all__ = ["NatsSource"]

_WAIT = 1.0
"""Seconds that a read waits for an entry."""
_TIMEOUT = 5.0
"""Seconds to wait for the connection, and for each answer."""
_LOOK_INTERVAL = 0.25
"""Seconds between two checks whether other consumers have acknowledged their messages."""
_PING_INTERVAL = 5
"""Seconds between two pings. The library closes a connection that does not answer two of them."""
_HEAD = 100
"""The largest size of a message without its data and its headers, in bytes."""
_NOT_ENABLED = frozenset({10039, 10076})
"""JetStream's error codes for: not enabled for this account, not enabled on this server."""


class _Handle(NamedTuple):
    reply: str
    subject: str
    headers: Mapping[str, str]
    data: bytes


class NatsSource:
    """Reads the messages of a JetStream stream with a durable pull consumer.

    The payload of a message is the event's data. The header ``event`` is the name of the event, and ``channel`` is
    the channel. Without the header ``channel``, the channel is the part of the subject after ``{stream}.``. The
    header ``socket_id`` is optional.

    A process that starts may find messages that another process has not acknowledged yet. It waits until they are
    acknowledged or delivered again, so that the next messages come after them.

    Args:
        url: The URL of the engine: ``nats://host:4222``, or ``tls://`` with TLS.
        group: The name of the durable consumer. Processes of the same group share the messages. The consumer is
            created if it is missing.
        stream: The name of the stream. If it is missing, it is created with the subjects ``{stream}.>``, and keeps
            a message until it is acknowledged.
        dead_letter: The name of the stream for messages that can't be published. Default: ``{stream}-dead``.
        claim_after: Seconds after which a message that is not acknowledged is delivered again. This is the
            ``ack_wait`` of a consumer that is created; an existing consumer keeps its own.

    Raises:
        ConfigurationError: The URL is not valid.
    """

    def __init__(
        self,
        url: str,
        *,
        group: str,
        stream: str = "reverb-publish",
        dead_letter: str | None = None,
        claim_after: float = 30.0,
    ) -> None:
        self.address, self._stream = "", stream  # repr() needs them if the next lines raise
        self._url = SecretStr(url)
        url = ""  # error reporters send variables of frames
        self.address = address_of(self._url, "nats", "tls")
        self.claim_after = claim_after
        self._group = group
        self._dead_letter = dead_letter or f"{stream}-dead"
        self._client: Client | None = None
        self._messages: Any = None
        self._waits_until = 0.0
        """Until this time, messages that were not acknowledged at the start come first."""

    def __repr__(self) -> str:
        return f"<NatsSource {self.address} {self._stream}>"

    async def open(self) -> None:
        await self.close()
        client = self._client = _client(self.address)
        with self._explained():
            await client.connect(
                self._url.get_secret_value(),
                name="reverb publish",
                allow_reconnect=False,
                connect_timeout=int(_TIMEOUT),
                ping_interval=_PING_INTERVAL,
                error_cb=_ignore,
            )
        with self._explained(), self._needs_jetstream():
            await self._make_stream(self._stream, f"{self._stream}.>", is_queue=True)
            await self._make_stream(self._dead_letter, self._dead_letter, is_queue=False)
            await self._make_consumer()
            jetstream = client.jetstream(timeout=_TIMEOUT)
            self._messages = await jetstream.pull_subscribe_bind(self._group, stream=self._stream)

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(Exception):  # the connection is already lost
                await client.close()

    async def read(self, most: int) -> list[Item]:
        with self._explained():
            if monotonic() < self._waits_until and (await self._messages.consumer_info()).num_ack_pending:
                await asyncio.sleep(_LOOK_INTERVAL)
                return []
            self._waits_until = 0.0
            try:
                messages = await self._messages.fetch(most, timeout=_WAIT)
            except asyncio.TimeoutError:
                messages = []
        if not messages and self._connected.is_closed:
            raise EngineError(f"{self.address} has closed the connection")
        return [self._item(each) for each in messages]

    async def hold(self, items: Sequence[Item]) -> None:
        with self._explained():
            for item in items:
                await self._connected.publish(item.handle.reply, b"+WPI")

    async def acknowledge(self, items: Sequence[Item]) -> None:
        with self._explained():
            await asyncio.gather(
                *(self._connected.request(item.handle.reply, b"", timeout=_TIMEOUT) for item in items)
            )

    async def bury(self, item: Item, reason: str) -> None:
        handle: _Handle = item.handle
        headers = {
            # Headers of NATS tell the server how to treat a message. They are not for the dead letter.
            **{name: value for name, value in handle.headers.items() if not name.startswith("Nats-")},
            "reason": visible(reason, None),
            "original_id": item.id,
            "stream": self._stream,
            "subject": handle.subject,
            "Nats-Msg-Id": f"{self._stream}-{item.id}",
        }
        data = handle.data
        size = len(data) + sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
        if size + _HEAD > self._connected.max_payload:
            headers["reason"] += "; its data is left out, as the message would be too large"
            data = b""
        jetstream = self._connected.jetstream(timeout=_TIMEOUT)
        with self._explained():
            await jetstream.publish(self._dead_letter, data, headers=headers)
        await self.acknowledge([item])

    async def lag(self) -> int | None:
        with self._explained():
            info = await self._messages.consumer_info()
        return int((info.num_pending or 0) + (info.num_ack_pending or 0))

    # --- parts -------------------------------------------------------------------------------------------------

    @property
    def _connected(self) -> Client:
        assert self._client is not None
        return self._client

    async def _make_stream(self, name: str, subject: str, *, is_queue: bool) -> None:
        from nats.js.api import RetentionPolicy, StreamConfig
        from nats.js.errors import NotFoundError

        manager = self._connected.jsm(timeout=_TIMEOUT)
        try:
            await manager.stream_info(name)
        except NotFoundError:
            retention = RetentionPolicy.WORK_QUEUE if is_queue else RetentionPolicy.LIMITS
            await manager.add_stream(StreamConfig(name=name, subjects=[subject], retention=retention))

    async def _make_consumer(self) -> None:
        from nats.js.api import AckPolicy, ConsumerConfig
        from nats.js.errors import NotFoundError

        manager = self._connected.jsm(timeout=_TIMEOUT)
        try:
            info = await manager.consumer_info(self._stream, self._group)
        except NotFoundError:
            config = ConsumerConfig(
                durable_name=self._group,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self.claim_after,
            )
            info = await manager.add_consumer(self._stream, config)
        if info.config.deliver_subject is not None or info.config.ack_policy != AckPolicy.EXPLICIT:
            raise ConfigurationError(
                f"can't use the consumer {self._group!r} of the stream {self._stream!r} at {self.address}: it "
                "must be a pull consumer with the ack policy explicit; name another group"
            )
        self.claim_after = info.config.ack_wait or self.claim_after
        if info.num_ack_pending:
            self._waits_until = monotonic() + self.claim_after + _LOOK_INTERVAL

    def _item(self, message: Any) -> Item:
        headers: Mapping[str, str] = message.headers or {}
        _, _, channel = message.subject.partition(f"{self._stream}.")
        return Item(
            str(message.metadata.sequence.stream),
            channel=headers.get("channel") or channel or None,
            event=headers.get("event"),
            data=message.data,
            socket_id=headers.get("socket_id") or None,
            handle=_Handle(message.reply, message.subject, headers, message.data),
        )

    @contextmanager
    def _needs_jetstream(self) -> Iterator[None]:
        from nats.js.errors import ServiceUnavailableError

        try:
            yield
        except ServiceUnavailableError as error:
            if error.err_code is not None and error.err_code not in _NOT_ENABLED:
                raise
            raise ConfigurationError(
                f"{self.address} has no JetStream: start nats-server with --jetstream, or enable it for the "
                "account"
            ) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn exceptions of the library into our own."""
        import nats.errors
        import nats.js.errors

        try:
            yield
        except nats.js.errors.BadRequestError as error:
            raise ConfigurationError(
                f"{self.address} refuses {self._stream!r} or its group {self._group!r}: {error.description}"
            ) from None
        except nats.errors.Error as error:
            if (
                isinstance(error, nats.errors.AuthorizationError)
                or "authorization violation" in str(error).lower()
            ):
                raise ConfigurationError(
                    f"{self.address} refuses the client: check user and password, or the token"
                ) from None
            raise EngineError(f"can't reach {self.address}: {error}") from None
        except ValueError as error:  # nats-py refuses a name
            raise ConfigurationError(f"{self.address}: {error}; name another stream or group") from None
        except (OSError, asyncio.TimeoutError) as error:
            raise EngineError(f"can't reach {self.address}: {error}") from None


def _client(address: str) -> Client:
    try:
        from nats.aio.client import Client
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f'{address} needs {error.name}. Install it: pip install "python-reverb[relay-nats]"'
        ) from None
    return Client()


async def _ignore(error: Exception) -> None:
    """Do nothing: each request raises its own errors."""
