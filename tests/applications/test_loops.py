"""Programs with event loops of their own choice."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from reverb import ReverbClient
from reverb.server import ReverbServer
from tests.loops import LoopFactory, available, make_eager_loop
from tests.watching import client_tasks, until

DEADLINE = 20.0
COUNT = 100


class Program:
    """A thread with an event loop and a client, which answers every question on the other's channel."""

    def __init__(self, server: ReverbServer, name: str, other: str, make_loop: LoopFactory) -> None:
        self.heard: list[Any] = []
        self.error: BaseException | None = None
        self.subscribed = threading.Event()
        self._server = server
        self._name = name
        self._other = other
        self._make_loop = make_loop
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        loop = self._make_loop()
        try:
            loop.run_until_complete(self._live())
        except BaseException as error:
            self.error = error
        finally:
            loop.close()

    async def _live(self) -> None:
        async with ReverbClient(**self._server.settings) as client:
            own = await client.subscribe(f"private-{self._name}")
            other = await client.subscribe(f"private-{self._other}")
            other.bind("client-said", self._hear)
            other.bind("*", ignore)
            client.bind("*", ignore)
            self.subscribed.set()
            await self._server.wait_for_event("start", "start", DEADLINE)
            for number in range(COUNT):
                await own.trigger("client-said", {"number": number})
                if number % 10 == 0:
                    await client.ping()
            await until(lambda: len(self.heard) == COUNT, DEADLINE)
        assert client_tasks() == set()

    async def _hear(self, event: str, data: Any, channel: str | None) -> None:
        await asyncio.sleep(0)
        self.heard.append(data["number"])


def ignore(event: str, data: Any, channel: str | None) -> None:
    """One handler for both clients."""


def test_two_clients_in_two_threads(reverb_server: ReverbServer) -> None:
    """One on asyncio, one on uvloop, and the server in a third thread."""
    loops = available()
    if "uvloop" not in loops:
        pytest.skip("uvloop is not installed")
    programs = [
        Program(reverb_server, "a", "b", loops["asyncio"]),
        Program(reverb_server, "b", "a", loops["uvloop"]),
    ]
    for program in programs:
        program.thread.start()
    for program in programs:
        assert program.subscribed.wait(DEADLINE), program.error
    for _ in programs:
        reverb_server.blocking.publish("start", "start")
    for program in programs:
        program.thread.join(DEADLINE)
        assert not program.thread.is_alive()
        assert program.error is None
        assert program.heard == list(range(COUNT))
    reverb_server.blocking.wait_for_connections(0)


def test_eager_tasks_for_the_whole_life_of_a_program(reverb_server: ReverbServer) -> None:
    """As in Home Assistant: the loop is told when it is made, before anything runs."""
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")
    heard: list[Any] = []

    async def main() -> None:
        async with ReverbClient(**reverb_server.settings) as client:
            orders = await client.subscribe("private-orders")
            orders.bind("order.shipped", lambda event, data, channel: heard.append(data))
            orders.bind("order.shipped", later(heard))
            await orders.trigger("seen", {"id": 7})
            await reverb_server.wait_for_event("private-orders", "client-seen")
            await reverb_server.publish("private-orders", "order.shipped", 1)
            await until(lambda: heard == [1, -1])
            await reverb_server.restart()
            await reverb_server.wait_for_subscription("private-orders")
            await reverb_server.publish("private-orders", "order.shipped", 2)
            await until(lambda: heard == [1, -1, 2, -2])
            waiting = asyncio.create_task(orders.wait_for("order.shipped", timeout=5))
            await asyncio.sleep(0)
            await reverb_server.publish("private-orders", "order.shipped", 3)
            assert (await waiting).data == 3
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=make_eager_loop) as runner:
        runner.run(main())
    reverb_server.blocking.wait_for_connections(0)


def later(heard: list[Any]) -> Callable[..., Any]:
    async def handle(event: str, data: Any, channel: str | None) -> None:
        await asyncio.sleep(0)
        heard.append(-data)

    return handle
