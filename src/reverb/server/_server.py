"""The server's public classes: :class:`ReverbServer` to await, :class:`BlockingServer` for synchronous code."""

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
"""Seconds that the ``wait_for_…`` methods wait by default."""
ANY: Final[Any] = object()
"""Any data of an event."""

# BlockingServer may wait for something that has to happen in the event loop that it would block.
_IN_A_LOOP: Final = (
    "this call would block the running event loop. In asynchronous code, await the method of ReverbServer: use "
    "the fixture reverb_server, or `async with ReverbServer()`"
)
_NOT_RUNNING: Final = "the server is not running: use `with ReverbServer()`, or the fixture reverb_server"

T = TypeVar("T")


class Controls:
    """What all servers have: properties and methods that return at once, from any thread and any event loop."""

    def __init__(self, engine: Engine | Cluster) -> None:
        self._engine = engine

    @property
    def host(self) -> str:
        """The IP address that the server listens on."""
        return self._engine.host

    @property
    def port(self) -> int:
        """The TCP port. It is 0 before the first start if the system picks the port."""
        return self._engine.port

    @property
    def app(self) -> App:
        """The first application. ``publish`` publishes to it."""
        return self._channels[0].app

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments with which a :class:`ReverbClient` connects to this server. Its reconnect delays are
        short, for tests."""
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
        """The ``settings`` as environment variables."""
        return {variable_of(name): str(value) for name, value in self.settings.items()}

    @property
    def events(self) -> list[Event]:
        """The events that were published or triggered: the last 10,000 events, or the last 16 MiB of them."""
        return self._at_once(lambda: self._engine.journal.events)

    @property
    def connections(self) -> list[Connection]:
        """The open connections, by node, in the order in which they connected.

        Each has a ``socket_id``, and ``channels``: the names of the channels that it is subscribed to.
        """
        return self._at_once(lambda: [each for node in self._engine.nodes for each in node.connections])

    @property
    def subscriptions(self) -> dict[str, list[str]]:
        """The socket ids of the subscribers, by channel."""

        def collect() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for channels in self._channels:
                for channel in channels:
                    found.setdefault(channel.name, []).extend(each.socket_id for each in channel.members)
            return found

        return self._at_once(collect)

    def watch(self, watcher: Callable[[Entry], None]) -> None:
        """Call a function for everything that happens on the server from now on.

        Args:
            watcher: The function. The server calls it in its own thread.
        """
        self._engine.journal.watchers.append(watcher)

    def report(self) -> str:
        """Return what happened last on the server, as text with one entry a line."""
        return self._at_once(self._engine.journal.report)

    # Faults.

    def drop(self) -> None:
        """Close all connections without a close frame."""
        self._of_nodes(lambda node: node.drop())

    def refuse(self, code: int) -> None:
        """Refuse new connections with an error, until ``heal()``.

        As in Reverb, the server closes the connection after error 4001. After other errors it leaves the
        connection open and sends nothing more.

        Args:
            code: The error code, such as 4001, 4004 or 4009.
        """
        self._of_nodes(lambda node: setattr(node.faults, "refused", code))

    def deny(self, channel: str) -> None:
        """Refuse subscriptions to a channel, even with a valid signature, until ``heal()``.

        Args:
            channel: The channel's name.
        """
        self._of_nodes(lambda node: node.faults.denied.add(channel))

    def silence(self) -> None:
        """Send nothing, but keep the connections open, until ``heal()``."""
        self._of_nodes(lambda node: setattr(node.faults, "silent", True))

    def half_open(self, lost: Literal["both", "to_clients", "from_clients"] = "both") -> None:
        """Lose everything that is sent on the present connections, and keep them open, until ``heal()``.

        The end of a connection is lost, too, so neither side learns that the other is gone. New connections are
        not affected.

        Args:
            lost: The direction that loses data: ``"to_clients"``, ``"from_clients"``, or ``"both"``, the default.

        Raises:
            ValueError: ``lost`` is something else.
        """
        if lost not in ("both", "to_clients", "from_clients"):
            raise ValueError(f'lost must be "both", "to_clients" or "from_clients", not {lost!r}')
        loses_input, loses_output = lost != "to_clients", lost != "from_clients"
        self._of_nodes(lambda node: node.half_open(loses_input=loses_input, loses_output=loses_output))

    def delay(self, seconds: float) -> None:
        """Delay everything that the server sends, until ``heal()``.

        Args:
            seconds: The delay in seconds.
        """
        self._of_nodes(lambda node: setattr(node.faults, "delay", seconds))

    def heal(self) -> None:
        """End the faults of ``refuse``, ``deny``, ``silence`` and ``delay``; close half-open connections."""
        self._of_nodes(lambda node: node.heal())

    def send_raw(self, data: bytes | str) -> None:
        """Send data to all connections.

        Args:
            data: Bytes are sent unchanged, without a WebSocket frame. A string is sent in a text frame.
        """
        raw = frame(TEXT, data.encode()) if isinstance(data, str) else data
        self._of_nodes(lambda node: node.send_raw(raw))

    def reset(self) -> None:
        """Close all connections, end all faults, and forget what happened."""

        def reset() -> None:
            for node in self._engine.nodes:
                node.heal()
                node.drop()
            self._engine.journal.clear()

        self._at_once(reset)

    # Assertions.

    def assert_triggered(self, channel: str, event: str, data: Any = ANY) -> None:
        """Fail unless a client has triggered an event on a channel.

        Args:
            channel: The channel's name.
            event: The event's name.
            data: The data that the event must have. By default, any data.

        Raises:
            AssertionError: No client has; the message says what happened.
        """
        self._assert_event(channel, event, data, triggered=True)

    def assert_published(self, channel: str, event: str, data: Any = ANY) -> None:
        """Fail unless an event was published to a channel, over the HTTP API or with ``publish``.

        Args:
            channel: The channel's name.
            event: The event's name.
            data: The data that the event must have. By default, any data.

        Raises:
            AssertionError: The event was not published; the message says what happened.
        """
        self._assert_event(channel, event, data, triggered=False)

    def assert_not_triggered(self, channel: str, event: str) -> None:
        """Fail if a client has triggered an event on a channel.

        Args:
            channel: The channel's name.
            event: The event's name.

        Raises:
            AssertionError: A client has; the message says what happened.
        """
        found = [each for each in self.events if each.triggered and (each.channel, each.name) == (channel, event)]
        if found:
            raise AssertionError(f"{event} was triggered on {channel}: {found[0].data!r}. {self.report()}")

    def assert_subscribed(self, channel: str) -> None:
        """Fail unless a client is subscribed to a channel.

        Args:
            channel: The channel's name.

        Raises:
            AssertionError: No client is; the message says what happened.
        """
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
        seen = f"Events that were {verb}:\n{seen}" if seen else f"No event was {verb}."
        raise AssertionError(f"{wanted}. {seen}\nIf the event may still arrive, call wait_for_event() first.")

    def _at_once(self, work: Callable[[], T]) -> T:
        """Call a function in the server's thread, and return its result."""
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
        """Call a function with each node, in the server's thread."""

        def do() -> None:
            for node in self._engine.nodes:
                work(node)

        self._at_once(do)

    # Coroutines, which run in the server's event loop.

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
            await asyncio.sleep(0)  # Otherwise a loop that publishes leaves no time to write.

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

        wanted = f"there are not {count} connection{'s' * (count != 1)}"
        await self._engine.journal.wait_for(found, wanted, timeout)


class Node(Controls):
    """A server to await, from any event loop; or one node of a :class:`ReverbServer`."""

    @property
    def blocking(self) -> BlockingServer:
        """This server for synchronous code, while it runs in another thread."""
        return BlockingServer(self._engine)

    async def start(self) -> None:
        """Start the server.

        Raises:
            OSError: The port is in use.
        """
        await self._in_its_loop(self._engine.start())

    async def stop(self) -> None:
        """Stop the server, and close every connection without a close frame, as Reverb does."""
        await self._in_its_loop(self._engine.close())

    async def restart(self, downtime: float = 0.0) -> None:
        """Stop the server, and start it again on the same port.

        Args:
            downtime: Seconds between the two. The default is 0.
        """
        await self._in_its_loop(self._restart(downtime))

    async def publish(self, channels: str | Sequence[str], event: str, data: Any = None) -> None:
        """Publish an event.

        Args:
            channels: The name of a channel, or several names.
            event: The event's name.
            data: Any JSON value. A string is sent unchanged.
        """
        await self._in_its_loop(self._publish(channels, event, data))

    async def wait_for_subscription(self, channel: str, timeout: float = TIMEOUT) -> None:
        """Wait until a client is subscribed to a channel. Clients with a half-open connection do not count.

        Args:
            channel: The channel's name.
            timeout: Seconds to wait. The default is 5.

        Raises:
            TimeoutError: No client is subscribed; the message says what happened.
        """
        await self._in_its_loop(self._wait_for_subscription(channel, timeout))

    async def wait_for_event(self, channel: str, event: str, timeout: float = TIMEOUT) -> Event:
        """Wait until an event is published to a channel, or triggered on it.

        Args:
            channel: The channel's name.
            event: The event's name.
            timeout: Seconds to wait. The default is 5.

        Returns:
            The oldest such event that was not returned before: each event is returned once.

        Raises:
            TimeoutError: There is no such event; the message says what happened.
        """
        return await self._in_its_loop(self._wait_for_event(channel, event, timeout))

    async def wait_for_connections(self, count: int, timeout: float = TIMEOUT) -> None:
        """Wait until there are exactly so many connections.

        Args:
            count: The number of connections.
            timeout: Seconds to wait. The default is 5.

        Raises:
            TimeoutError: There are more or fewer; the message says what happened.
        """
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
    """A Reverb-compatible server for development and tests.

    **Security: it is not for networks that others can reach.** It serves applications on
    ``ws://{host}:{port}{path}/app/{key}``, and their HTTP API below ``{path}/apps/{id}``.

    ``async with`` runs the server in the running event loop. ``with`` runs it in a thread of its own, and returns
    a :class:`BlockingServer`. You can call all methods from any thread.

    ``host``, ``port``, ``path`` and ``max_request_size`` have the names of Laravel's ``config/reverb.php``.

    Args:
        apps: The applications. By default there is one, with the defaults of :class:`App`.
        host: The IP address to listen on. The default is ``127.0.0.1``. An address that others can reach causes a
            ``RuntimeWarning``.
        port: The TCP port. With 0, the default, the system picks a free one; the attribute ``port`` has it once
            the server runs. It stays the same when the server starts again.
        path: A path prefix, such as ``/ws``. By default there is none.
        ssl_context: A context with a certificate, for wss and https. By default, the server does not use TLS.
        max_request_size: Bytes that a request to the HTTP API may have, headers included. The default is 10,000.
        tick: Seconds between two checks for silent connections. The default is 60.
        strict: Whether the server behaves as the Pusher protocol describes where Reverb does not: it sends close
            codes and ``pusher:subscription_error``. The default is False.
        nodes: Number of servers. With more than one, they work as Reverb with scaling behind a load balancer: each
            has its own address, knows its own members, and passes events on to the others. The address of the
            whole leads to the first node that runs. The default is 1.


    Raises:
        ValueError: ``nodes`` is less than 1.
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
            message = f"{host!r} is not a loopback address: others can reach this server, which is for tests only"
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
        """The nodes. Each has its own address, connections and faults."""
        return tuple(Node(node) for node in self._engine.nodes)

    async def stop(self) -> None:
        """Stop the server, and close every connection without a close frame, as Reverb does.

        Afterwards, you can start it in another event loop.
        """
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


class BlockingServer(Controls):
    """A server that runs in another thread, for synchronous code.

    The methods that you await on a :class:`ReverbServer` block here until they are done. They raise
    ``RuntimeError`` in a thread with a running event loop.
    """

    @property
    def nodes(self) -> tuple[BlockingServer, ...]:
        """The nodes; see :attr:`ReverbServer.nodes`."""
        return tuple(BlockingServer(node) for node in self._engine.nodes)

    def start(self) -> None:
        """Start the server; see :meth:`ReverbServer.start`."""
        self._wait(self._engine.start())

    def stop(self) -> None:
        """Stop the server; see :meth:`ReverbServer.stop`."""
        self._wait(self._engine.close())

    def restart(self, downtime: float = 0.0) -> None:
        """Stop the server, and start it again on the same port; see :meth:`ReverbServer.restart`."""
        self._wait(self._restart(downtime))

    def publish(self, channels: str | Sequence[str], event: str, data: Any = None) -> None:
        """Publish an event; see :meth:`ReverbServer.publish`."""
        self._wait(self._publish(channels, event, data))

    def wait_for_subscription(self, channel: str, timeout: float = TIMEOUT) -> None:
        """Wait until a client is subscribed to a channel; see :meth:`ReverbServer.wait_for_subscription`."""
        self._wait(self._wait_for_subscription(channel, timeout))

    def wait_for_event(self, channel: str, event: str, timeout: float = TIMEOUT) -> Event:
        """Wait until an event is published or triggered; see :meth:`ReverbServer.wait_for_event`."""
        return self._wait(self._wait_for_event(channel, event, timeout))

    def wait_for_connections(self, count: int, timeout: float = TIMEOUT) -> None:
        """Wait until there are exactly so many connections; see :meth:`ReverbServer.wait_for_connections`."""
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
