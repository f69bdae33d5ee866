"""Servers with several nodes: what they share, what they don't, and what programs see of it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reverb import BatchEvent, ConnectionError, Events, PresenceChannel, ReverbAPI, ReverbClient
from reverb.server import App, Node, ReverbServer
from tests.certificates import make_certificates
from tests.loops import every_loop
from tests.test_dispatch import Recorder
from tests.watching import until


@pytest.fixture
async def server() -> AsyncIterator[ReverbServer]:
    async with ReverbServer(nodes=2) as server:
        yield server


@pytest.fixture
def first(server: ReverbServer) -> Node:
    return server.nodes[0]


@pytest.fixture
def second(server: ReverbServer) -> Node:
    return server.nodes[1]


@asynccontextmanager
async def connected(*servers: Node, **settings: Any) -> AsyncIterator[list[ReverbClient]]:
    """A client of each of these."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ReverbClient(**server.settings, **settings)) for server in servers]


async def joined(client: ReverbClient, user_id: str, name: str = "presence-room") -> PresenceChannel:
    return await client.subscribe(name, {"user_id": user_id, "user_info": {}})


class TestEvents:
    @every_loop
    async def test_reach_all_nodes_once_and_in_one_order(
        self, server: ReverbServer, first: Node, second: Node
    ) -> None:
        heard = Recorder(), Recorder()
        async with (
            connected(first, second) as clients,
            ReverbAPI(**first.settings) as api_1,
            ReverbAPI(**second.settings) as api_2,
        ):
            for client, recorder in zip(clients, heard, strict=True):
                (await client.subscribe("news")).bind("e", recorder)
            await api_1.trigger("news", "e", 1)
            await api_2.trigger("news", "e", 2)
            await server.publish("news", "e", 3)
            await second.publish("news", "e", 4)
            await api_2.trigger_batch([BatchEvent("news", "e", 5), BatchEvent("news", "e", 6)])
            for recorder in heard:
                assert [data for _, data, _ in await recorder.wait_for(6)] == [1, 2, 3, 4, 5, 6]
            for client in clients:
                await client.ping()
        assert [len(recorder.calls) for recorder in heard] == [6, 6]
        assert [event.data for event in server.events] == [1, 2, 3, 4, 5, 6]

    async def test_client_events(self, first: Node, second: Node) -> None:
        heard = Recorder(), Recorder()
        async with connected(first, second) as (ann, bob):
            rooms = [await joined(ann, "ann"), await joined(bob, "bob")]
            for room, recorder in zip(rooms, heard, strict=True):
                room.bind("client-hi", recorder)
            await rooms[0].trigger("hi", {"n": 1})
            assert await heard[1].wait_for(1) == [("client-hi", {"n": 1}, "presence-room")]
            await ann.ping()
            assert heard[0].calls == []

    async def test_a_publisher_is_excluded_on_its_own_node_only(self, first: Node, second: Node) -> None:
        heard = Recorder()
        async with (
            connected(first) as (client,),
            ReverbAPI(**first.settings) as api_1,
            ReverbAPI(**second.settings) as api_2,
        ):
            (await client.subscribe("news")).bind("e", heard)
            await api_1.trigger("news", "e", "to its own node", socket_id=client.socket_id)
            await api_2.trigger("news", "e", "to the other node", socket_id=client.socket_id)
            assert await heard.wait_for(1) == [("e", "to the other node", "news")]

    async def test_each_node_caches_for_its_own_subscribers(self, first: Node, second: Node) -> None:
        async with connected(first, first, second) as (one, other, elsewhere):
            await one.subscribe("cache-c")
            await first.publish("cache-c", "e", 1)
            heard = Recorder()
            for count, client in enumerate([other, elsewhere], 1):
                client.bind("e", heard).bind(Events.CACHE_MISS, heard)
                await client.subscribe("cache-c")
                await heard.wait_for(count)
            assert heard.events == ["e", Events.CACHE_MISS]


class TestPresence:
    async def test_is_per_node(self, first: Node, second: Node) -> None:
        seen = Recorder()
        async with connected(first, second, second) as (ann, bob, cid), ReverbAPI(**first.settings) as api:
            room = await joined(ann, "ann")
            room.bind(Events.MEMBER_ADDED, seen).bind(Events.MEMBER_REMOVED, seen)
            assert (await joined(bob, "bob")).members.keys() == {"bob"}
            assert (await joined(cid, "cid")).members.keys() == {"bob", "cid"}
            assert room.members.keys() == {"ann"}
            assert await api.users("presence-room") == ["ann", "bob", "cid"]
            await cid.unsubscribe("presence-room")
            await cid.ping()
            await ann.ping()
            assert seen.calls == []
            assert await api.users("presence-room") == ["ann", "bob"]

    async def test_who_is_on_both_nodes(self, first: Node, second: Node) -> None:
        """Is listed once, and counted twice. PHP's list with a gap is an object."""
        async with connected(first, second) as (ann, too), ReverbAPI(**second.settings) as api:
            await joined(ann, "ann")
            await joined(too, "ann")
            assert await api.users("presence-room") == ["ann"]
            assert (await api.channel("presence-room", "user_count")).user_count == 2
            async with connected(first, second) as (bob, cid):
                await joined(bob, "bob")
                await joined(cid, "cid")
                assert await api.users("presence-room") == ["ann", "bob", "cid"]

    async def test_a_node_on_which_nobody_is_on_the_channel(self, first: Node, second: Node) -> None:
        """Answers 404, which is nobody."""
        async with connected(first) as (ann,), ReverbAPI(**second.settings) as api:
            await joined(ann, "ann")
            assert await api.users("presence-room") == []


async def test_the_api_asks_all_nodes(first: Node, second: Node) -> None:
    async with connected(first, second) as (one, two), ReverbAPI(**second.settings) as api:
        await one.subscribe("a")
        await two.subscribe("a")
        await one.subscribe("b")
        assert (await api.channel("a", "subscription_count")).subscription_count == 2
        found = await api.channels(info="subscription_count")
        assert {name: info.subscription_count for name, info in found.items()} == {"a": 2, "b": 1}
        assert list(await api.channels("b")) == ["b"]
        assert await api.connections() == 2
        assert (await api.channel("b")).occupied
        assert not (await api.channel("c")).occupied


class TestTerminating:
    async def test_where_all_have_a_user_id(self, server: ReverbServer, first: Node, second: Node) -> None:
        async with connected(*server.nodes, second, reconnect_enabled=False) as (ann, too, bob):
            await joined(ann, "ann")
            await joined(too, "ann")
            await joined(bob, "bob")
            async with ReverbAPI(**first.settings) as api:
                await api.terminate_user("ann")
                await until(lambda: not ann.is_connected and not too.is_connected)
                assert await bob.ping()
                assert await api.health()

    async def test_ends_the_node_that_has_a_connection_without_one(
        self, server: ReverbServer, first: Node, second: Node
    ) -> None:
        async with connected(*server.nodes, first, reconnect_enabled=False) as (reader, ann, other):
            await reader.subscribe("news")
            await joined(other, "other")
            await joined(ann, "ann")
            async with ReverbAPI(**first.settings) as api:
                await api.terminate_user("ann")  # is answered with 200 all the same
                await until(lambda: not reader.is_connected and not ann.is_connected and not other.is_connected)
                with pytest.raises(ConnectionError):
                    await api.health()
            assert "node 1 failed, and its process ended" in server.report()
            assert second.connections == []
            async with connected(second, server), ReverbAPI(**server.settings) as api:
                assert await api.health()
            await first.start()
            async with connected(first):
                pass


class TestFailover:
    @every_loop
    async def test_clients_come_back_on_another_node(
        self, server: ReverbServer, first: Node, second: Node
    ) -> None:
        back, news, room_of_cid = Recorder(), Recorder(), Recorder()
        async with connected(server, server, second) as (ann, bob, cid):
            (await ann.subscribe("news")).bind("e", news)
            rooms = [await joined(ann, "ann"), await joined(bob, "bob"), await joined(cid, "cid")]
            rooms[2].bind(Events.MEMBER_ADDED, room_of_cid)
            assert [sorted(room.members) for room in rooms] == [["ann", "bob"], ["ann", "bob"], ["cid"]]
            ann.bind(Events.RECONNECTED, back)
            await first.stop()
            assert first.connections == []
            assert first.subscriptions == {}
            await back.wait_for(1)
            await second.wait_for_subscription("news")
            await server.publish("news", "e", "after the failover")
            assert await news.wait_for(1) == [("e", "after the failover", "news")]
            await until(lambda: all(sorted(room.members) == ["ann", "bob", "cid"] for room in rooms))
            assert sorted(data["user_id"] for _, data, _ in room_of_cid.calls) == ["ann", "bob"]
            await second.wait_for_connections(3)

    async def test_a_rolling_restart(self, server: ReverbServer, first: Node, second: Node) -> None:
        async with connected(server) as (client,):
            back = Recorder()
            client.bind(Events.RECONNECTED, back)
            await client.subscribe("news")
            assert first.subscriptions.keys() == {"news"}
            ports = [node.port for node in server.nodes]
            for count, (restarted, other) in enumerate([(first, second), (second, first)], 1):
                await asyncio.gather(restarted.restart(downtime=0.5), other.wait_for_subscription("news"))
                await back.wait_for(count)
            assert [node.port for node in server.nodes] == ports
            lines = [re.split("  +", line)[-1] for line in server.report().splitlines()]
            assert [line for line in lines if line.startswith("node")] == [
                "node 1 is down",
                "node 1 is back",
                "node 2 is down",
                "node 2 is back",
            ]

    async def test_no_node_runs(self, server: ReverbServer, first: Node, second: Node) -> None:
        async with connected(server) as (client,):
            await client.subscribe("news")
            await first.stop()
            await second.stop()
            with pytest.raises(ConnectionError):
                await ReverbClient(**server.settings).connect()
            await second.start()
            await second.wait_for_subscription("news")

    async def test_a_restart_of_all(self, server: ReverbServer, first: Node) -> None:
        async with connected(server) as (client,):
            await client.subscribe("news")
            port = server.port
            await server.restart()
            assert server.port == port
            await first.wait_for_subscription("news")


class TestKit:
    async def test_faults_are_of_a_node_or_of_all(self, server: ReverbServer, first: Node, second: Node) -> None:
        first.deny("private-x")
        first.refuse(4001)
        async with connected(second) as (client,):
            await client.subscribe("private-x")
        with pytest.raises(ConnectionError, match="4001"):
            await ReverbClient(**first.settings).connect()
        server.heal()
        async with connected(first) as (client,):
            await client.subscribe("private-x")
        server.refuse(4001)
        for node in server.nodes:
            with pytest.raises(ConnectionError, match="4001"):
                await ReverbClient(**node.settings).connect()

    async def test_a_line_to_one_node_is_half_open(self, server: ReverbServer, first: Node, second: Node) -> None:
        patience = {"ping_interval": 0.1, "pong_timeout": 0.2}
        async with connected(first, second, **patience) as (client, other):
            await client.subscribe("news")
            await other.subscribe("news")
            outages = Recorder()
            for each in (client, other):
                each.bind(Events.RECONNECTED, outages)
            socket_id = other.socket_id
            first.half_open()
            await outages.wait_for(1)
            assert other.socket_id == socket_id

    async def test_connections_and_subscriptions(self, server: ReverbServer, first: Node, second: Node) -> None:
        async with connected(second, first) as (two, one):
            await one.subscribe("x")
            await two.subscribe("x")
            assert server.subscriptions == {"x": [one.socket_id, two.socket_id]}
            assert first.subscriptions == {"x": [one.socket_id]}
            assert [each.socket_id for each in server.connections] == [one.socket_id, two.socket_id]
            assert [each.socket_id for each in second.connections] == [two.socket_id]
            server.drop()
            assert server.connections == []

    def test_from_a_synchronous_test(self) -> None:
        before = threading.enumerate()
        with ReverbServer(nodes=2) as server:
            first, second = server.nodes

            async def program() -> None:
                async with ReverbClient(**server.settings) as client:
                    await client.subscribe("news")
                    with pytest.raises(ConnectionError, match="4001"):
                        await client.listen()

            thread = threading.Thread(target=lambda: asyncio.run(asyncio.wait_for(program(), 10)), daemon=True)
            thread.start()
            first.wait_for_subscription("news")
            first.stop()
            second.wait_for_subscription("news")
            assert first.connections == []
            first.start()
            second.restart(downtime=0.5)
            first.wait_for_subscription("news")
            second.stop()
            first.refuse(4001)
            first.drop()
            thread.join(10)
        assert threading.enumerate() == before

    async def test_nodes_live_in_the_servers_thread(self) -> None:
        """Also when they are started by another one."""
        server = ReverbServer(nodes=2)
        with server:
            first, _ = server.nodes
            await first.stop()
            await asyncio.to_thread(lambda: asyncio.run(first.start()))
            async with connected(first):
                await first.wait_for_connections(1)

    async def test_a_server_by_itself_is_one_node(self) -> None:
        async with ReverbServer() as server:
            (node,) = server.nodes
            assert node.settings == server.settings

    async def test_again_in_another_loop(self) -> None:
        server = ReverbServer(nodes=2)
        await server.start()
        await server.stop()

        async def again() -> None:
            async with server, connected(server, *server.nodes):
                assert len(server.connections) == 3

        await asyncio.to_thread(lambda: asyncio.run(again()))

    async def test_its_settings_are_those_of_all_nodes(self, tmp_path: Path) -> None:
        certificates = make_certificates(tmp_path)
        app = App(id="i", key="k", secret="s")
        async with ReverbServer([app], nodes=3, path="/ws", ssl_context=certificates.server) as server:
            assert len({node.port for node in server.nodes} | {server.port}) == 4
            for each in (server, *server.nodes):
                async with ReverbClient(**each.settings, ssl_context=certificates.client) as client:
                    await client.subscribe("private-x")

    async def test_the_port_is_taken(self, server: ReverbServer) -> None:
        before = threading.enumerate()
        other = ReverbServer(nodes=2, port=server.port)
        with pytest.raises(OSError, match=str(server.port)):
            await other.start()
        with pytest.raises(OSError, match=str(server.port)):
            other.__enter__()
        assert threading.enumerate() == before

    async def test_started_twice(self, server: ReverbServer) -> None:
        with pytest.raises(RuntimeError, match="started already"):
            await server.start()

    def test_no_nodes(self) -> None:
        with pytest.raises(ValueError, match="at least one node, not 0"):
            ReverbServer(nodes=0)


@pytest.mark.reverb_server(nodes=2)
async def test_the_fixture(reverb_server: ReverbServer, reverb_client: ReverbClient) -> None:
    first, second = reverb_server.nodes
    await reverb_client.subscribe("news")
    await first.stop()
    await second.wait_for_subscription("news")
