"""What a client counts, against servers that do what a script says."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from reverb import ReverbClient, Stats, _connection
from reverb._connection import Traffic

from .scripted import MISSING, TEXT, Peer, ScriptedServer, encode_frame, encode_message
from .test_client import connected, make_client
from .test_dispatch import Recorder
from .watching import until


def balance(stats: Stats) -> int:
    """Every event is one of these."""
    return stats.delivered + stats.queued + stats.unbound + stats.discarded + stats.dropped


def test_before_the_first_connection() -> None:
    stats = ReverbClient(app_key="key", host="127.0.0.1").stats
    assert stats == Stats(0, 0, 0, 0, 0, 0, None, 0, 0, None)
    assert stats.dropped == 0


def test_it_cannot_be_changed() -> None:
    stats = ReverbClient(app_key="key", host="127.0.0.1").stats
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.received = 1  # type: ignore[misc]


@pytest.mark.parametrize("together", [True, False])
async def test_every_event_is_counted_once(together: bool) -> None:
    """Whatever way it goes: the long one, because its name is new or it came in parts, or the fast one."""
    news = [encode_message(name, "{}", "news") for name in ("plain", "async", "both", "nobody's")]
    texts = [*news, *news, encode_message("elsewhere", "{}", "left"), *news]
    frames = [encode_frame(TEXT, text) for text in texts]
    cut = texts[0].encode()
    parts = [encode_frame(TEXT, cut[:9], fin=False), encode_frame(0, cut[9:])]

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        await peer.expect("client-go")
        if together:
            await peer.send_raw(b"".join([*frames, *parts, *frames]))
        else:
            for frame in (*frames, *parts, *frames):
                await peer.send_raw(frame)
        await peer.send("last", "{}", "news")
        await peer.wait_closed()

    async def wait(event: str, data: object, channel: str | None) -> None:
        await asyncio.sleep(0)

    async with ScriptedServer(script) as server, connected(server) as client:
        plain, last = Recorder(), Recorder()
        channel = await client.subscribe("news")
        channel.bind("plain", plain).bind("async", wait).bind("both", wait).bind("both", plain).bind("last", last)
        await until(lambda: client.stats.queued == 0)
        before = client.stats
        assert client._connection is not None
        client._connection.send_silent(b'{"event":"client-go"}')
        await last.wait_for(1)
        await until(lambda: client.stats.queued == 0)
        stats = client.stats
        messages = 2 * len(frames) + 2
        assert stats.received - before.received == messages
        assert stats.unbound - before.unbound == 6
        assert stats.delivered - before.delivered == messages - 6 - 2  # and two of a channel that we are not on
        expected = 2 * sum(map(len, texts)) + len(cut) + len(encode_message("last", "{}", "news"))
        assert stats.bytes_received - before.bytes_received == expected
        assert stats.bytes_sent - before.bytes_sent == len(b'{"event":"client-go"}')
        assert (stats.discarded, stats.dropped) == (0, 0)
        assert len(plain.calls) == 13


async def test_the_clients_own_events_are_delivered_too() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        client, everything = make_client(server), Recorder()
        client.bind("*", everything)
        async with client:
            assert await everything.wait_for(3)
            assert client.stats.delivered == len(everything.calls)
            assert (client.stats.received, client.stats.unbound) == (1, 0)


async def test_what_waits_and_what_is_given_up() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        for _ in range(10):
            await peer.send("slow", "{}", "news")
        await peer.wait_closed()

    async def never(event: str, data: object, channel: str | None) -> None:
        await asyncio.Event().wait()

    async with ScriptedServer(script) as server, connected(server, drain_timeout=0.01) as client:
        (await client.subscribe("news")).bind("slow", never)
        await until(lambda: client.stats.queued == 9)
        before = client.stats
        await client.unsubscribe("news")
        after = client.stats
        assert (after.queued, after.discarded, after.delivered) == (0, 9, before.delivered)
        assert balance(after) == balance(before)


async def test_it_goes_on_over_reconnects() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        for _ in range(50):
            await peer.send("e", "{}", "news")
        if peer.number == 1:
            await peer.expect("client-go")
            peer.reset()
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        async with make_client(server) as client:
            recorder = Recorder()
            channel = (await client.subscribe("news")).bind("e", recorder)
            await recorder.wait_for(50)
            assert client._connection is not None
            client._connection.send_silent(b'{"event":"client-go"}')
            await recorder.wait_for(100)
            assert channel.is_subscribed
            assert client.stats.reconnects == 1
            stats = client.stats
            assert stats.received == 104
            assert stats.uptime is not None
            assert 0 < stats.uptime < 30
        assert client.stats.uptime is None
        ended = client.stats
        assert (ended.received, ended.bytes_received) == (stats.received, stats.bytes_received)
        async with client:
            assert client.stats.received > ended.received
            assert client.stats.reconnects == 1  # asking for it is none


async def test_many_events_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes don't pile up, and the sums are right before and after, in any thread."""
    monkeypatch.setattr(_connection, "_SIZES_KEPT", 10)

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        for _ in range(500):
            await peer.send("e", "{}", "news")
        await peer.send("last", "{}", "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        seen: list[Stats] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.is_set():
                seen.append(client.stats)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            last = Recorder()
            (await client.subscribe("news")).bind("last", last)
            await last.wait_for(1)
        finally:
            ended.set()
            watcher.join()
        assert client.stats.received == 503
        received = [stats.received for stats in seen]
        assert received == sorted(received)


async def test_the_round_trip_of_a_ping() -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:ping")
        await asyncio.sleep(0.1)  # what is tested is time
        await peer.send("pusher:pong")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, ping_interval=0.2) as client:
        assert client.stats.round_trip is None
        await until(lambda: client.stats.round_trip is not None)
        assert client.stats.round_trip is not None
        assert 0.1 <= client.stats.round_trip < 5


async def test_a_busy_connection_is_pinged_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection, "_ROUND_TRIP_INTERVAL", 0.1)
    pings: list[int] = []

    async def script(peer: Peer) -> None:
        async def chat() -> None:
            while True:
                await peer.send("busy", MISSING, "news")
                await asyncio.sleep(0.01)

        await peer.establish()
        chatting = asyncio.ensure_future(chat())
        try:
            while True:
                await peer.expect("pusher:ping")
                pings.append(1)
                if len(pings) == 1:
                    await peer.send("pusher:pong")
        finally:
            chatting.cancel()

    async with ScriptedServer(script) as server, connected(server, ping_interval=0.05, pong_timeout=30) as client:
        await until(lambda: client.stats.round_trip is not None)
        await until(lambda: len(pings) == 2)
        received = client.stats.received
        await until(lambda: client.stats.received > received + 25)
        assert len(pings) == 2  # a server that doesn't answer is not asked again


async def test_only_an_answer_to_a_single_ping_is_a_round_trip() -> None:
    """With two on the way, it can't be told which of them was answered: a ping can also be refused."""
    answer = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:ping")
        await peer.expect("pusher:ping")
        await peer.send("pusher:pong")
        await answer.wait()
        await peer.send("pusher:pong")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, ping_interval=30) as client:
        connection = client._connection
        assert connection is not None
        connection.send_ping()
        connection.send_ping()
        await until(lambda: client.stats.received == 2)
        assert client.stats.round_trip is None
        answer.set()
        await until(lambda: client.stats.round_trip is not None)


async def test_our_own_pause_is_no_round_trip() -> None:
    """A ping that is answered while reading pauses says nothing about the server."""

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:ping")
        await peer.send("pusher:pong")
        await peer.expect("client-resumed")
        await peer.send("done")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server, ping_interval=30) as client:
        done = Recorder()
        client.bind("done", done)
        connection = client._connection
        assert connection is not None
        connection.set_reading(False)
        connection.send_ping()
        connection.set_reading(True)
        connection.send_silent(b'{"event":"client-resumed"}')
        await done.wait_for(1)
        assert client.stats.received == 3
        assert client.stats.round_trip is None


def test_sums_outlive_what_they_are_of() -> None:
    traffic = Traffic()
    traffic.sum_up().extend([10, 20])
    assert traffic.routed == (2, 30)
    traffic.sum_up().append(5)
    assert traffic.routed == (3, 35)
