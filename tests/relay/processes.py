"""Relays, a Reverb and the engines as processes, and the engines' logs as a consumer reads them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Protocol

import msgspec
from typing_extensions import Self

from reverb.relay._log import Entry
from tests.integration.servers import free_ports

from .engines import DEADLINE, Redis, Valkey
from .nats_server import Nats

STREAM = "reverb"

_SERVE = """\
import asyncio, sys
from reverb.server import ReverbServer

async def serve():
    async with ReverbServer(port=int(sys.argv[1])):
        await asyncio.Event().wait()

asyncio.run(serve())
"""


class Engine(Protocol):
    """An engine of the tests."""

    port: int

    @property
    def url(self) -> str: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...


ENGINES: dict[str, Callable[[Path], Engine]] = {"valkey": Valkey, "redis": Redis, "nats": Nats}


class Process:
    """One program of Python in a process of its own; its errors go to a file."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the process does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def send_signal(self, number: signal.Signals) -> None:
        # Not with the process's own method: that asks first whether it has ended, behind asyncio's back.
        os.kill(self.pid, number)

    async def end(self, how: signal.Signals) -> int:
        """Send a signal, and wait for the end; return the exit code."""
        self.send_signal(how)
        return await self.wait()

    async def wait(self) -> int:
        assert self._process is not None, "the process does not run"
        return await asyncio.wait_for(self._process.wait(), DEADLINE)

    async def _run(self, *arguments: str, env: dict[str, str]) -> asyncio.StreamReader:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REVERB_")}
        with self.log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment | env,
                cwd=self.log.parent,
            )
        assert self._process.stdout is not None
        return self._process.stdout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.is_running:
            await self.end(signal.SIGKILL)


class ReverbProcess(Process):
    """The embedded server, always on the same port."""

    host = "127.0.0.1"

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        (self.port,) = free_ports(1)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "app_id": "app-id",
            "app_key": "app-key",
            "app_secret": "app-secret",
            "host": self.host,
            "port": self.port,
            "scheme": "ws",
        }

    async def start(self) -> None:
        await self._run("-c", _SERVE, str(self.port), env={})
        end = monotonic() + DEADLINE
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(self.host, self.port)
                writer.close()
                await writer.wait_closed()
                return
            if not self.is_running or monotonic() > end:
                raise AssertionError(f"Reverb did not start: {self.log.read_text()}")
            await asyncio.sleep(0.01)


class RelayProcess(Process):
    """``reverb relay`` with the addresses that it is given, and what it says about itself."""

    def __init__(self, log: Path, channels: list[str], *, to: str, port: int, lease: float) -> None:
        super().__init__(log)
        self.status: dict[str, Any] = {}
        """What it said last."""
        self.said_at = 0.0
        """When, by the monotonic clock."""
        self.takeovers = 0
        """Of all its lives."""
        self._arguments = [
            *("-m", "reverb", "relay", *channels),
            *("--to", to),
            *("--stream", STREAM),
            *("--lease", str(lease)),
            "--json",
        ]
        self._environment = {
            "REVERB_APP_KEY": "app-key",
            "REVERB_APP_SECRET": "app-secret",
            "REVERB_HOST": ReverbProcess.host,
            "REVERB_PORT": str(port),
            "REVERB_SCHEME": "ws",
            "REVERB_RECONNECT_DELAY_MIN": "0.1",
            "REVERB_RECONNECT_DELAY_MAX": "1",
        }
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        with self.log.open("a") as log:
            log.write("--- started\n")
        self.status = {}
        out = await self._run(*self._arguments, env=self._environment)
        self._reading = asyncio.ensure_future(self._read(out))

    async def _read(self, out: asyncio.StreamReader) -> None:
        seen = 0
        async for line in out:
            with suppress(msgspec.DecodeError):  # a line that was not finished
                self.status = msgspec.json.decode(line)
                self.said_at = monotonic()
                self.takeovers += self.status["takeovers"] - seen
                seen = self.status["takeovers"]
        self.status = {}

    async def wait(self) -> int:
        code = await super().wait()
        if self._reading is not None:
            await self._reading
        return code


async def read_log(engine: Engine) -> list[Entry]:
    """Return the whole log, with the engine's own client and by the words of the documentation."""
    return await (_read_jetstream(engine) if isinstance(engine, Nats) else _read_stream(engine))


async def follow_log(engine: Engine) -> AsyncGenerator[Entry, None]:
    """Yield the entries that come from now on, at once."""
    following = _follow_jetstream(engine) if isinstance(engine, Nats) else _follow_stream(engine)
    async with aclosing(following):
        async for entry in following:
            yield entry


async def _read_stream(engine: Engine) -> list[Entry]:
    from redis.asyncio import Redis as Client

    entries: list[Entry] = []
    async with Client.from_url(engine.url, decode_responses=True) as client:
        start = "-"
        while True:
            page: Any = await client.xrange(STREAM, start, count=1000)
            entries += [_entry(fields["data"].encode(), fields["writer"], fields) for _, fields in page]
            if len(page) < 1000:
                return entries
            start = f"({page[-1][0]}"


async def _read_jetstream(engine: Engine) -> list[Entry]:
    import nats
    from nats.js.api import AckPolicy, ConsumerConfig

    entries: list[Entry] = []
    client = await nats.connect(engine.url)
    try:
        jetstream = client.jetstream()
        subject = f"{STREAM}.>"
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True)
        consumer = await jetstream.pull_subscribe(subject, stream=STREAM, config=config)
        left = (await consumer.consumer_info()).num_pending
        while left:
            for message in await consumer.fetch(min(left, 1000), timeout=DEADLINE):
                fields = message.headers or {}
                entries.append(_entry(message.data, fields["Nats-Msg-Id"], fields))
                left -= 1
        await consumer.unsubscribe()
    finally:
        await client.close()
    return entries


async def _follow_stream(engine: Engine) -> AsyncGenerator[Entry, None]:
    from redis.asyncio import Redis as Client

    async with Client.from_url(engine.url, decode_responses=True) as client:
        newest: Any = await client.xrevrange(STREAM, count=1)
        last = newest[0][0] if newest else "0"
        while True:
            found: Any = await client.xread({STREAM: last}, count=1000, block=1000)
            for _, page in found or ():
                for identity, fields in page:
                    yield _entry(fields["data"].encode(), fields["writer"], fields)
                    last = identity


async def _follow_jetstream(engine: Engine) -> AsyncGenerator[Entry, None]:
    import nats
    from nats.js.api import DeliverPolicy

    client = await nats.connect(engine.url)
    try:
        messages = await client.jetstream().subscribe(
            f"{STREAM}.>", stream=STREAM, ordered_consumer=True, deliver_policy=DeliverPolicy.NEW
        )
        async for message in messages.messages:
            fields = message.headers or {}
            yield _entry(message.data, fields["Nats-Msg-Id"], fields)
    finally:
        await client.close()


def _entry(data: bytes, writer: str, fields: dict[str, str]) -> Entry:
    epoch, number = map(int, writer.split("-"))
    return Entry(
        channel=fields["channel"],
        event=fields["event"],
        data=data,
        user_id=fields.get("user_id"),
        received_at=int(fields["received_at"]),
        sent_after=int(fields["sent_after"]),
        epoch=epoch,
        number=number,
        again=fields.get("again") == "1",
    )
