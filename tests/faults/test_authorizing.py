"""Reconnecting while the application that signs is down, slow, rate-limited, or has changed its mind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from reverb import (
    AuthenticationError,
    Channel,
    ChannelAuth,
    EndpointAuthorizer,
    Events,
    ReverbClient,
    TimeoutError,
)
from reverb.auth import sign_channel
from reverb.server import ReverbServer
from tests.laravel import Laravel
from tests.test_dispatch import Recorder
from tests.watching import client_tasks, until


class Scene:
    """A server, an application that signs for it, and a client with some private channels and a public one."""

    def __init__(self, server: ReverbServer, laravel: Laravel, client: ReverbClient, token: list[str]) -> None:
        self.server = server
        self.token = token
        """The one that the client sends."""
        self.laravel = laravel
        self.client = client
        self.errors = Recorder()
        self.channels: list[Channel] = []
        client.bind("error", self.errors)

    async def subscribe(self, count: int) -> None:
        names = ["news", *(f"private-{number}" for number in range(count))]
        self.channels = await asyncio.gather(*map(self.client.subscribe, names))
        self.laravel.asked.clear()

    async def reconnect(self) -> None:
        """Drop the connection, and wait for the next one."""
        before = self.client.socket_id
        self.server.drop()
        await until(lambda: self.client.socket_id not in (None, before))

    @property
    def missing(self) -> list[str]:
        return [channel.name for channel in self.channels if not channel.is_subscribed]

    @property
    def refused(self) -> dict[str | None, Any]:
        """What was reported, by channel."""
        return {channel: data["exception"] for _, data, channel in self.errors.calls}


@asynccontextmanager
async def set_scene(channels: int, timeout: float = 5.0, **options: Any) -> AsyncIterator[Scene]:
    async with ReverbServer() as server, Laravel() as laravel:
        token = [laravel.token]
        authorizer = EndpointAuthorizer(laravel.url, token=lambda: token[0], timeout=timeout)
        settings: Any = {
            "app_key": "app-key",
            "host": server.host,
            "port": server.port,
            "scheme": "ws",
            "reconnect_delay_min": 0.01,
            "reconnect_delay_max": 0.05,
            "authorizer": authorizer,
            **options,
        }
        async with ReverbClient(**settings) as client:
            scene = Scene(server, laravel, client, token)
            await scene.subscribe(channels)
            yield scene
        assert client_tasks() == set()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reverb.auth._RETRY_DELAYS", (0.05, 0.05, 0.05, 0.05))


async def test_an_endpoint_that_is_down_for_a_moment_is_no_matter() -> None:
    async with set_scene(20) as scene:
        await scene.laravel.stop()
        await scene.reconnect()
        await asyncio.sleep(0.05)
        await scene.laravel.start()
        await until(lambda: not scene.missing)
        assert scene.errors.calls == []


async def test_an_endpoint_that_stays_down_is_reported_once_and_asked_again_while_the_connection_lives() -> None:
    async with set_scene(20) as scene:
        await scene.laravel.stop()
        await scene.reconnect()
        connection = scene.client.socket_id
        await until(lambda: len(scene.errors.calls) == 20)
        assert scene.missing == [f"private-{number}" for number in range(20)]
        assert scene.client.stats.missing == 20
        for name, error in scene.refused.items():
            assert isinstance(error, AuthenticationError)
            assert error.is_temporary
            assert f"{scene.laravel.url} did not authorise '{name}': cannot connect" in str(error)
        await asyncio.sleep(0.5)  # so that all are tried again in vain, more than once
        await scene.laravel.start()
        await until(lambda: not scene.missing, 10)
        assert scene.client.socket_id == connection
        assert len(scene.errors.calls) == 20


async def test_an_outage_of_the_endpoint_that_lasts_over_reconnects_is_reported_once() -> None:
    async with set_scene(5) as scene:
        await scene.laravel.stop()
        for _ in range(2):
            await scene.reconnect()
            await until(lambda: len(scene.errors.calls) == 5)
        await asyncio.sleep(0.3)  # what would come a second time is given the time to come
        await scene.laravel.start()
        await until(lambda: not scene.missing, 10)
        assert len(scene.errors.calls) == 5
        await scene.laravel.stop()
        await scene.reconnect()
        await until(lambda: len(scene.errors.calls) == 10)  # another outage


@pytest.mark.parametrize("failure", [429, 500, 503, "raises", "times out"])
async def test_what_may_be_over_in_a_moment_is_asked_again(failure: int | str) -> None:
    """Whatever kind of authorizer it is, and without a reconnect."""
    failing = False

    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        if failing and failure == "raises":
            raise RuntimeError
        if failing and failure == "times out":
            await asyncio.Event().wait()
        if failing and isinstance(failure, int):
            raise AuthenticationError("not now", code=failure, is_temporary=True)
        return ChannelAuth(sign_channel("app-key", "app-secret", socket_id, channel))

    async with set_scene(3, authorizer=authorizer, subscribe_timeout=0.2) as scene:
        failing = True
        await scene.reconnect()
        connection = scene.client.socket_id
        await until(lambda: len(scene.errors.calls) == 3)
        failing = False
        await until(lambda: not scene.missing)
        assert scene.client.socket_id == connection
        assert len(scene.errors.calls) == 3


async def test_an_expired_token_is_reported_and_the_new_one_used() -> None:
    async with set_scene(3) as scene:
        new = scene.token[0]
        scene.token[0] = "1|expired"
        await scene.reconnect()
        await until(lambda: len(scene.errors.calls) == 3)
        assert {error.code for error in scene.refused.values()} == {401}
        await scene.reconnect()
        await until(lambda: len(scene.errors.calls) == 6)  # said at each connection, as it does not go by itself
        scene.token[0] = new
        await scene.reconnect()
        await until(lambda: not scene.missing)
        assert len(scene.errors.calls) == 6


async def test_a_channel_that_is_denied_now_is_left_out_until_the_next_reconnect() -> None:
    async with set_scene(20) as scene:
        scene.laravel.denied.add("private-7")
        await scene.reconnect()
        await until(lambda: scene.refused and scene.missing == ["private-7"])
        assert scene.refused["private-7"].code == 403
        # It is asked for once, and the others are not held up.
        assert scene.laravel.channels.count("private-7") == 1
        scene.laravel.denied.clear()
        await scene.reconnect()
        await until(lambda: not scene.missing)
        assert scene.refused.keys() == {"private-7"}


async def test_many_channels_and_a_slow_endpoint_make_no_stampede_and_no_timeouts() -> None:
    # In line each waits longer than the server gets to answer; that is nobody's fault.
    async with set_scene(500, subscribe_timeout=1.0) as scene:
        scene.laravel.delay = 0.025
        scene.laravel.most_at_once = 0
        await scene.reconnect()
        await until(lambda: not scene.missing, 20)
        assert scene.errors.calls == []
        assert scene.laravel.most_at_once == 8
        assert sorted(scene.laravel.channels) == sorted(f"private-{number}" for number in range(500))


async def test_an_endpoint_that_does_not_answer_holds_up_private_channels_only() -> None:
    heard = Recorder()
    async with set_scene(12, timeout=0.2) as scene:
        scene.client.bind("e", heard)
        scene.laravel.delay = 60
        await scene.reconnect()
        news, *_ = scene.channels
        await until(lambda: news.is_subscribed)
        assert len(scene.missing) == 12
        await until(lambda: len(scene.errors.calls) == 12, 10)
        assert all("no answer within 0.2 seconds" in str(error) for error in scene.refused.values())


async def test_the_limits_of_an_endpoint_are_kept_to() -> None:
    async with set_scene(30) as scene:
        scene.laravel.limit = 12
        await scene.reconnect()
        await until(lambda: not scene.missing, 20)
        assert scene.errors.calls == []
        refused = [each for each in scene.laravel.asked if each["status"] == 429]
        assert len(refused) <= 2 * 8


async def test_an_endpoint_that_flaps() -> None:
    async with set_scene(50) as scene:
        scene.laravel.answers.extend(["drop"] * 10)
        await scene.reconnect()
        await until(lambda: not scene.missing, 10)
        assert scene.errors.calls == []


async def test_the_connection_is_lost_while_channels_are_authorised() -> None:
    async with set_scene(50) as scene:
        scene.laravel.delay = 0.05
        for _ in range(3):
            await scene.reconnect()
            await until(lambda: scene.laravel.asked)
            scene.laravel.asked.clear()
        await until(lambda: not scene.missing, 10)
        assert scene.errors.calls == []
        socket_ids = {each["input"]["socket_id"] for each in scene.laravel.asked}
        assert scene.client.socket_id in socket_ids


async def test_disconnecting_while_channels_are_authorised_leaves_nothing_running() -> None:
    async with set_scene(20) as scene:
        scene.laravel.delay = 60
        await scene.reconnect()
        await until(lambda: scene.laravel.asked)
        await scene.client.disconnect()
        assert client_tasks() == set()


async def test_authorizers_that_hang_give_way_to_others() -> None:
    hanging = True

    async def authorizer(socket_id: str, channel: str) -> ChannelAuth:
        if hanging and int(channel.removeprefix("private-")) < 10:
            await asyncio.Event().wait()
        return ChannelAuth(sign_channel("app-key", "app-secret", socket_id, channel))

    hanging = False
    async with set_scene(30, authorizer=authorizer, subscribe_timeout=0.3) as scene:
        hanging = True
        await scene.reconnect()
        await until(lambda: len(scene.missing) == 10 and len(scene.errors.calls) == 10, 10)
        for error in scene.refused.values():
            assert isinstance(error, TimeoutError)
            assert "the authorizer did not answer" in str(error)
        assert {event for event, _, _ in scene.errors.calls} == {Events.CLIENT_ERROR}
