"""The server as programs and tests know it: awaited, or from threads that wait."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import ssl
import threading
import warnings
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

from .._settings import variable_of
from ._app import App
from ._channels import Channels
from ._cluster import Cluster
from ._engine import Engine
from ._frames import TEXT, frame
from ._journal import Entry, Event, Journal
from ._websocket import Connection
from ._wire import encode

__all__ = ["BlockingServer", "Node", "ReverbServer"]

TIMEOUT: Final = 5.0
"""Seconds that the ``wait_for_…`` methods wait unless they are told otherwise."""
ANY: Final[Any] = object()
"""Stands for any data of an event."""

# What BlockingServer waits for may have to happen in the event loop that it would stop.
_IN_A_LOOP: Final = (
    "this would stop the event loop that it is called in. In asynchronous code, await the method of ReverbServer "
    "itself: the fixture reverb_server is one, and `async with ReverbServer()` gives one"
)
_NOT_RUNNING: Final = "the server is not running: use `with ReverbServer()`, or the fixture reverb_server"

T = TypeVar("T")


class Surface:
    """What can be asked and told without waiting, from any thread and any event loop."""

    def __init__(self, engine: Engine | Cluster) -> None:
        self._engine = engine

    @property
    def host(self) -> str:
        return self._engine.host

    @property
    def port(self) -> int:
        """The TCP port; 0 before the first start, if the system is to pick one."""
        return self._engine.port

    @property
    def app(self) -> App:
        """The first application, to which ``publish`` publishes."""
        return self._channels[0].app

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments that bring a ``ReverbClient`` to this server. Delays are short, for tests."""
        return {
            "host": self.host,
            "port": self.port,
            "scheme": "wss" if self._engine.is_secure else "ws",
            "path": self._engine.prefix or "/",
            "app_id": self.app.id,
            "app_key": self.app.key,
            "app_secret": self.app.secret,
            "reconnect_delay_min": 0.05,
            "reconnect_delay_max": 0.2,
        }

    @property
    def env(self) -> dict[str, str]:
        """The same as environment variables."""
        return {variable_of(name): str(value) for name, value in self.settings.items()}

    @property
    def events(self) -> list[Event]:
        """The events that were published and triggered: the last 10,000 of them, or the last 16 MB."""
        return self._at_once(lambda: self._engine.journal.events)

    @property
    def connections(self) -> list[Connection]:
        """The open connections, in the order in which they came to their node.

        Each has a ``socket_id`` and ``channels``.
        """
        return self._at_once(lambda: [each for node in self._engine.nodes for each in node.connections])

    @property
    def subscriptions(self) -> dict[str, list[str]]:
        """The socket ids of each channel's subscribers."""

        def collect() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for channels in self._channels:
                for channel in channels:
                    found.setdefault(channel.name, []).extend(each.socket_id for each in channel.members)
            return found

        return self._at_once(collect)

    def watch(self, watcher: Callable[[Entry], None]) -> None:
        """Have ``watcher`` called, in the server's thread, with whatever happens from now on."""
        self._engine.journal.watchers.append(watcher)

    def report(self) -> str:
        """Say what happened last, an entry a line."""
        return self._at_once(self._engine.journal.report)

    # What may go wrong.

    def drop(self) -> None:
        """End all connections, in bare TCP EOF."""
        self._of_nodes(lambda node: node.drop())

    def refuse(self, code: int) -> None:
        """Have new connections told this error instead of a greeting, until ``heal()``.

        As in Reverb, behind 4001 the connection is ended, behind other codes it stays open and nothing more comes.
        """
        self._of_nodes(lambda node: setattr(node.faults, "refused", code))

    def deny(self, channel: str) -> None:
        """Have subscriptions to the channel refused, however they are signed, until ``heal()``."""
        self._of_nodes(lambda node: node.faults.denied.add(channel))

    def silence(self) -> None:
        """Lose all that would be sent, and keep the connections, until ``heal()``."""
        self._of_nodes(lambda node: setattr(node.faults, "silent", True))

    def half_open(self, lost: Literal["both", "to_clients", "from_clients"] = "both") -> None:
        """Lose what is sent on the connections that there are, and keep them open, until ``heal()``.

        What is lost goes to the clients, comes from them, or both; the end of a connection is lost, too. So
        neither side learns what has become of the other. New connections are as ever.
        """
        if lost not in ("both", "to_clients", "from_clients"):
            raise ValueError(f'lost is {lost!r}, and can be "both", "to_clients" or "from_clients"')
        loses_input, loses_output = lost != "to_clients", lost != "from_clients"
        self._of_nodes(lambda node: node.half_open(loses_input=loses_input, loses_output=loses_output))

    def delay(self, seconds: float) -> None:
        """Have whatever is sent take so much longer, until ``heal()``."""
        self._of_nodes(lambda node: setattr(node.faults, "delay", seconds))

    def heal(self) -> None:
        """End what ``refuse``, ``deny``, ``silence`` and ``delay`` have begun, and all half-open connections."""
        self._of_nodes(lambda node: node.heal())

    def send_raw(self, data: bytes | str) -> None:
        """Send bytes as they are, without a frame, or a text in one, to all connections."""
        raw = frame(TEXT, data.encode()) if isinstance(data, str) else data
        self._of_nodes(lambda node: node.send_raw(raw))

    def reset(self) -> None:
        """End all connections and faults, and forget what happened."""

        def reset() -> None:
            for node in self._engine.nodes:
                node.heal()
                node.drop()
            self._engine.journal.clear()

        self._at_once(reset)

    # What should have gone right.

    def assert_triggered(self, channel: str, event: str, data: Any = ANY) -> None:
        """Fail unless a client has triggered the event on the channel, with these data if they are given."""
        self._assert_event(channel, event, data, triggered=True)

    def assert_published(self, channel: str, event: str, data: Any = ANY) -> None:
        """Fail unless the event was published to the channel, by the HTTP API or ``publish``."""
        self._assert_event(channel, event, data, triggered=False)

    def assert_not_triggered(self, channel: str, event: str) -> None:
        """Fail if a client has triggered the event on the channel."""
        found = [each for each in self.events if each.triggered and (each.channel, each.name) == (channel, event)]
        if found:
            raise AssertionError(f"{event} was triggered on {channel}: {found[0].data!r}. {self.report()}")

    def assert_subscribed(self, channel: str) -> None:
        """Fail unless somebody is subscribed to the channel."""
        if channel not in self.subscriptions:
            raise AssertionError(f"nobody is subscribed to {channel}. {self.report()}")

    def _assert_event(self, channel: str, name: str, data: Any, *, triggered: bool) -> None:
        events = [each for each in self.events if each.triggered == triggered]
        like = [each for each in events if (each.channel, each.name) == (channel, name)]
        if any(data is ANY or each.data == data for each in like):
            return
        verb = "triggered" if triggered else "published"
        if like:
            wanted = f"{name} was {verb} on {channel}, but not with {data!r}"
            seen = "\n".join(f"  with {each.data!r}" for each in like)
        else:
            wanted = f"{name} was not {verb} on {channel}"
            seen = "\n".join(f"  {each}" for each in events)
        seen = f"What was {verb}:\n{seen}" if seen else f"Nothing was {verb}."
        raise AssertionError(f"{wanted}. {seen}\nIf it may be on its way still, wait_for_event() first.")

    def _at_once(self, work: Callable[[], T]) -> T:
        """Do something in the server's thread, and return when it is done."""
        loop = self._engine.loop
        if loop is None or loop is _running_loop():
            return work()

        async def do() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), loop).result()

    @property
    def _channels(self) -> list[Channels]:
        """The channels of each application on each node."""
        return [channels for node in self._engine.nodes for channels in node.channels]

    def _of_nodes(self, work: Callable[[Engine], None]) -> None:
        """Do something to each node, in the server's thread."""

        def do() -> None:
            for node in self._engine.nodes:
                work(node)

        self._at_once(do)

    # What takes time, in the server's event loop.

    async def _restart(self, downtime: float) -> None:
        engine = self._engine
        await engine.close()
        engine.journal.note(f"{engine.name} is down")
        await asyncio.sleep(downtime)
        await engine.start()
        engine.journal.note(f"{engine.name} is back")

    async def _publish(self, channels: str | Sequence[str], event: str, data: Any) -> None:
        names = [channels] if isinstance(channels, str) else list(channels)
        text = data if isinstance(data, str) else encode(data)
        self._channels[0].publish(names, {"event": event, "data": text})
        if any(node.unread for node in self._engine.nodes):
            await asyncio.sleep(0)  # Who publishes in a loop leaves no turn for writing.

    async def _wait_for_subscription(self, channel: str, timeout: float) -> None:
        def found() -> bool | None:
            return any(node.has_subscriber(channel) for node in self._engine.nodes) or None

        await self._engine.journal.wait_for(found, f"nobody subscribed to {channel}", timeout)

    async def _wait_for_event(self, channel: str, event: str, timeout: float) -> Event:
        journal = self._engine.journal
        wanted = f"no {event} on {channel}"
        return await journal.wait_for(lambda: journal.take_event(channel, event), wanted, timeout)

    async def _wait_for_connections(self, count: int, timeout: float) -> None:
        def found() -> bool | None:
            return sum(len(node.connections) for node in self._engine.nodes) == count or None

        wanted = f"not {count} connection{'s' * (count != 1)}"
        await self._engine.journal.wait_for(found, wanted, timeout)


class Node(Surface):
    """A server that runs in an event loop: its methods may be awaited in any other one, too."""

    @property
    def blocking(self) -> BlockingServer:
        """This server for synchronous code, while it runs in another thread."""
        return BlockingServer(self._engine)

    async def start(self) -> None:
        """Listen; raise OSError if the port is taken."""
        await self._in_its_loop(self._engine.start())

    async def stop(self) -> None:
        """End every connection in bare TCP EOF, as Reverb does, and stop listening."""
        await self._in_its_loop(self._engine.close())

    async def restart(self, downtime: float = 0.0) -> None:
        """Stop, and start again on the same port after ``downtime`` seconds."""
        await self._in_its_loop(self._restart(downtime))

    async def publish(self, channels: str | Sequence[str], event: str, data: Any = None) -> None:
        """Publish an event to a channel, or to several. ``data`` other than a string are sent as JSON."""
        await self._in_its_loop(self._publish(channels, event, data))

    async def wait_for_subscription(self, channel: str, timeout: float = TIMEOUT) -> None:
        """Wait until somebody is subscribed to the channel; raise TimeoutError, which tells what happened.

        Subscribers whose connection is half open don't count.
        """
        await self._in_its_loop(self._wait_for_subscription(channel, timeout))

    async def wait_for_event(self, channel: str, event: str, timeout: float = TIMEOUT) -> Event:
        """Wait until the event was published to the channel, or triggered on it; return it.

        Each event is returned once: of several, the oldest that was not returned yet. Raises TimeoutError, which
        tells what happened.
        """
        return await self._in_its_loop(self._wait_for_event(channel, event, timeout))

    async def wait_for_connections(self, count: int, timeout: float = TIMEOUT) -> None:
        """Wait until there are ``count`` connections, no more and no less; raise TimeoutError, which tells what
        happened."""
        await self._in_its_loop(self._wait_for_connections(count, timeout))

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:
        return self._engine.loop

    async def _in_its_loop(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        if loop is None or loop is asyncio.get_running_loop():
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


class ReverbServer(Node):
    """Serves applications on ``ws://{host}:{port}{path}/app/{key}`` and the HTTP API below ``{path}/apps/{id}``.

    For development and tests, not for the open network: a ``host`` that is no loopback address gets a
    ``RuntimeWarning``. With ``port`` 0 the system picks a free one, which ``port`` tells once the server runs and
    which it keeps when started again. ``path`` is a prefix such as ``/ws``. With an ``ssl_context``, wss and https
    are spoken. ``max_request_size`` is in bytes, of a request to the HTTP API with its head. ``host``, ``port``,
    ``path`` and ``max_request_size`` are named as in Laravel's ``config/reverb.php``.

    Only tests want these: ``tick`` is the time in seconds between two looks for silent connections, and ``strict``
    gives the answers that the Pusher protocol describes, with close codes and ``pusher:subscription_error``, where
    Reverb has its own way. With more than one of ``nodes`` it is Reverb with scaling behind a balancer: so many
    servers, each with an address of its own, pass events on to each other and know the members of their own; the
    address of the whole leads to the first of them that runs.

    ``async with`` runs the server in the present event loop, ``with`` in a thread of its own; the latter gives a
    :class:`BlockingServer`. All methods may be called from any thread.
    """

    def __init__(
        self,
        apps: Sequence[App] = (App(),),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "",
        ssl_context: ssl.SSLContext | None = None,
        max_request_size: int = 10_000,
        tick: float = 60.0,
        strict: bool = False,
        nodes: int = 1,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"there must be at least one node, not {nodes}")
        if not _is_loopback(host):
            message = (
                f"{host!r} is no loopback address: others can reach this server, which is made for tests only"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        # The name may stand for two addresses, and port 0 for a different port on each.
        address = "127.0.0.1" if host == "localhost" else host
        journal = Journal()
        engines = [
            Engine(
                apps,
                name="the server" if nodes == 1 else f"node {number}",
                host=address,
                port=port if nodes == 1 else 0,
                prefix=f"/{path.strip('/')}" if path.strip("/") else "",
                ssl_context=ssl_context,
                max_request_size=max_request_size,
                tick=tick,
                strict=strict,
                journal=journal,
            )
            for number in range(1, nodes + 1)
        ]
        super().__init__(
            engines[0] if nodes == 1 else Cluster(engines, host=address, port=port, ssl_context=ssl_context)
        )
        self._thread: _LoopThread | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Each node by itself: its address, its connections and members, and what may go wrong with it."""
        return tuple(Node(node) for node in self._engine.nodes)

    async def stop(self) -> None:
        await self._in_its_loop(self._engine.stop())

    async def __aenter__(self) -> ReverbServer:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> BlockingServer:
        thread = _LoopThread()
        try:
            thread.run(self._engine.start())
        except BaseException:
            thread.end()
            raise
        self._thread = thread
        return self.blocking

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self._engine.stop())
            finally:
                thread.end()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop | None:
        return self._engine.loop if self._thread is None else self._thread.loop


class BlockingServer(Surface):
    """A server that runs in another thread, for synchronous code: its methods return when they are done.

    Those that a ``ReverbServer`` has to be awaited for raise RuntimeError where an event loop is running.
    """

    @property
    def nodes(self) -> tuple[BlockingServer, ...]:
        """As :attr:`ReverbServer.nodes`."""
        return tuple(BlockingServer(node) for node in self._engine.nodes)

    def start(self) -> None:
        """As :meth:`ReverbServer.start`."""
        self._wait(self._engine.start())

    def stop(self) -> None:
        """As :meth:`ReverbServer.stop`."""
        self._wait(self._engine.close())

    def restart(self, downtime: float = 0.0) -> None:
        """As :meth:`ReverbServer.restart`."""
        self._wait(self._restart(downtime))

    def publish(self, channels: str | Sequence[str], event: str, data: Any = None) -> None:
        """As :meth:`ReverbServer.publish`."""
        self._wait(self._publish(channels, event, data))

    def wait_for_subscription(self, channel: str, timeout: float = TIMEOUT) -> None:
        """As :meth:`ReverbServer.wait_for_subscription`."""
        self._wait(self._wait_for_subscription(channel, timeout))

    def wait_for_event(self, channel: str, event: str, timeout: float = TIMEOUT) -> Event:
        """As :meth:`ReverbServer.wait_for_event`."""
        return self._wait(self._wait_for_event(channel, event, timeout))

    def wait_for_connections(self, count: int, timeout: float = TIMEOUT) -> None:
        """As :meth:`ReverbServer.wait_for_connections`."""
        self._wait(self._wait_for_connections(count, timeout))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._engine.loop
        if loop is None or _running_loop() is not None:
            work.close()
            raise RuntimeError(_NOT_RUNNING if _running_loop() is None else _IN_A_LOOP)
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="reverb-server", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
