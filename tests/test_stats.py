"""What a client counts, against servers that do what a script says."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from reverb import AuthenticationError, ReverbClient, Stats, _connection
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
    assert stats == Stats(0, 0, 0, 0, 0, 0, None, 0, 0, None, 0, 0)


def test_it_cannot_be_changed() -> None:
    stats = ReverbClient(app_key="key", host="127.0.0.1").stats
    with pytest.raises(AttributeError):
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
        await go.wait()
        if together:
            await peer.send_raw(b"".join([*frames, *parts, *frames]))
        else:
            for frame in (*frames, *parts, *frames):
                await peer.send_raw(frame)
        await peer.send("last", "{}", "news")
        await peer.wait_closed()

    async def wait(event: str, data: object, channel: str | None) -> None:
        await asyncio.sleep(0)

    go = asyncio.Event()
    async with ScriptedServer(script) as server, connected(server) as client:
        plain, last = Recorder(), Recorder()
        channel = await client.subscribe("news")
        channel.bind("plain", plain).bind("async", wait).bind("both", wait).bind("both", plain).bind("last", last)
        await until(lambda: client.stats.queued == 0)
        before = client.stats
        go.set()
        await last.wait_for(1)
        await until(lambda: client.stats.queued == 0)
        stats = client.stats
        messages = 2 * len(frames) + 2
        assert stats.received - before.received == messages
        assert stats.unbound - before.unbound == 6
        assert stats.delivered - before.delivered == messages - 6 - 2  # and two of a channel that we are not on
        expected = 2 * sum(map(len, texts)) + len(cut) + len(encode_message("last", "{}", "news"))
        assert stats.bytes_received - before.bytes_received == expected
        assert stats.bytes_sent == before.bytes_sent
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
            await go.wait()
            peer.reset()
        await peer.wait_closed()

    go = asyncio.Event()
    async with ScriptedServer(script) as server:
        async with make_client(server) as client:
            recorder = Recorder()
            channel = (await client.subscribe("news")).bind("e", recorder)
            await recorder.wait_for(50)
            go.set()
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
        assert 0.09 < client.stats.round_trip < 5  # uvloop's timers are up to 1 ms early


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

    async with ScriptedServer(script) as server, connected(server, ping_interval=0.5, pong_timeout=30) as client:
        await until(lambda: client.stats.round_trip is not None)
        await until(lambda: len(pings) == 2)
        received = client.stats.received
        await until(lambda: client.stats.received > received + 80)
        assert len(pings) == 2  # a server that doesn't answer is not asked again


async def test_what_is_sent_is_counted() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-news")
        seen.append(json.dumps(await peer.expect("client-go"), separators=(",", ":")).encode())
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        channel = await client.subscribe("private-news")
        before = client.stats.bytes_sent
        await channel.trigger("go", {"n": 1})
        await until(lambda: seen)
        assert client.stats.bytes_sent - before == len(seen[0])


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
        pings = [asyncio.ensure_future(client.ping()) for _ in range(2)]
        await asyncio.wait(pings, return_when=asyncio.FIRST_COMPLETED)
        assert client.stats.round_trip is None
        answer.set()
        await asyncio.wait(pings)
        assert client.stats.round_trip is not None


# --- channels that are missing ---------------------------------------------------------------------------------


async def test_what_is_missing() -> None:
    """Channels that the program has, whatever they are missing for, and no others."""
    back, refuse = asyncio.Event(), True

    async def script(peer: Peer) -> None:
        if peer.number == 2:
            await back.wait()
        await peer.establish(f"1.{peer.number}")
        while True:
            name = (await peer.expect("pusher:subscribe"))["data"]["channel"]
            if name == "private-b" and refuse:
                await peer.send("pusher:subscription_error", {"error": "no", "status": 403}, name)
            else:
                await peer.confirm(name)

    async with ScriptedServer(script) as server:
        client = make_client(server)
        async with client:
            await client.subscribe("a")
            with pytest.raises(AuthenticationError):
                await client.subscribe("private-b")
            assert client.stats.missing == 0  # nobody was given it
            refuse = False
            await client.subscribe("private-b")
            assert client.stats.missing == 0
            refuse = True
            server.peers[0].reset()
            await until(lambda: server.connections == 2)
            late = asyncio.ensure_future(client.subscribe("late"))
            await asyncio.sleep(0)
            assert client.stats.missing == 2
            back.set()
            await late
            await until(lambda: client.stats.missing == 1)
            assert not client.channels["private-b"].is_subscribed
            await client.unsubscribe("private-b")
            assert client.stats.missing == 0
        assert client.stats.missing == 2  # they come back with another connect()


def test_sums_outlive_what_they_are_of() -> None:
    traffic = Traffic()
    traffic.sum_up().extend([10, 20])
    assert traffic.routed == (2, 30)
    traffic.sum_up().append(5)
    assert traffic.routed == (3, 35)
