"""What the HTTP API promises, against every server there is; where servers differ, the test says so."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from base64 import b64encode
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reverb import (
    APIError,
    BatchError,
    BatchEvent,
    ChannelInfo,
    Events,
    PresenceChannel,
    ProtocolError,
    ReverbClient,
)
from reverb._signatures import hmac_hex
from reverb.auth import sign_channel
from reverb.crypto import decrypt, derive_shared_secret
from tests.integration.servers import Soketi, Target, soketi_command
from tests.integration.test_harness import connect, receive
from tests.shells import Shell
from tests.test_dispatch import Recorder
from tests.watching import until

VECTORS = Path(__file__).parents[1] / "vectors"


def unique(prefix: str) -> str:
    """A channel of this test's own: servers may live longer than a test."""
    return f"{prefix}{uuid.uuid4().hex}"


def client_for(server: Target) -> ReverbClient:
    return ReverbClient(**server.settings, reconnect_delay_min=0.01, reconnect_delay_max=0.1)


@pytest.fixture
def api_for(shell: Shell) -> Shell:
    """Makes the API of a server."""
    return lambda server, **options: shell(**{**server.settings, **options})


# --- publishing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ({"id": 1, "nested": {"list": [1, 2.5, None, True]}}, {"id": 1, "nested": {"list": [1, 2.5, None, True]}}),
        ("just text", "just text"),
        ('{"as": "json"}', {"as": "json"}),
        (7, 7),
        (None, None),
        ([], []),
        ({"text": 'é ☃ 😀 </> \\ " \u2028'}, {"text": 'é ☃ 😀 </> \\ " \u2028'}),
    ],
)
async def test_what_is_published_arrives(api_for: Shell, server: Target, data: Any, seen: Any) -> None:
    name, heard = unique("private-orders."), Recorder()
    async with client_for(server) as client, api_for(server) as api:
        (await client.subscribe(name)).bind("App\\Events\\Ordered", heard)
        assert await api.trigger(name, "App\\Events\\Ordered", data) == {}
        assert await heard.wait_for(1) == [("App\\Events\\Ordered", seen, name)]


async def test_a_client_publishes_with_its_own_settings(server: Target) -> None:
    name, heard = unique("news-"), Recorder()
    async with client_for(server) as client:
        (await client.subscribe(name)).bind("e", heard)
        await client.api.trigger(name, "e", {"id": 1})
        assert await heard.wait_for(1) == [("e", {"id": 1}, name)]


async def test_a_hundred_channels_at_once(api_for: Shell, server: Target) -> None:
    names = [unique("news-") for _ in range(100)]
    heard = Recorder()
    async with client_for(server) as client, api_for(server) as api:
        client.bind("e", heard)
        await asyncio.gather(*map(client.subscribe, names[::25]))
        await api.trigger(names, "e", {})
        assert {channel for _, _, channel in await heard.wait_for(4)} == set(names[::25])
        with pytest.raises(ProtocolError, match="1 to 100 channels"):
            await api.trigger([*names, "another"], "e", {})


async def test_one_connection_is_left_out(api_for: Shell, server: Target) -> None:
    name, left_out, others = unique("news-"), Recorder(), Recorder()
    async with client_for(server) as sender, client_for(server) as other, api_for(server) as api:
        (await sender.subscribe(name)).bind("*", left_out)
        (await other.subscribe(name)).bind("e", others)
        await api.trigger(name, "e", 1, socket_id=sender.socket_id)
        events = [BatchEvent(name, "e", n, socket_id=sender.socket_id if n == 3 else None) for n in (2, 3, 4)]
        assert (await api.trigger_batch(events)).accepted == 3
        assert [data for _, data, _ in await others.wait_for(4)] == [1, 2, 3, 4]
        await until(lambda: len(left_out.calls) == 3)
        assert [data for event, data, _ in left_out.calls if event == "e"] == [2, 4]


async def test_long_lists_are_sent_in_order(api_for: Shell, server: Target) -> None:
    name, heard = unique("news-"), Recorder()
    events = [BatchEvent(name, "e", {"n": n, "text": "x" * (n * 37 % 3_000)}) for n in range(200)]
    async with client_for(server) as client, api_for(server) as api:
        (await client.subscribe(name)).bind("e", heard)
        result = await api.trigger_batch(events)
        assert result.accepted == len(result.infos) == 200
        assert [data["n"] for _, data, _ in await heard.wait_for(200)] == list(range(200))


async def test_an_event_as_large_as_the_server_takes(api_for: Shell, server: Target) -> None:
    name, heard = unique("news-"), Recorder()
    async with client_for(server) as client, api_for(server) as api:
        (await client.subscribe(name)).bind("e", heard)
        with pytest.raises(ProtocolError, match=r"too large to publish: \d+ bytes") as caught:
            await api.trigger(name, "e", "x" * 10_000)
        over = int(str(caught.value).partition("publish: ")[2].split()[0]) - 10_000
        await api.trigger(name, "e", "x" * (10_000 - over))
        assert [data for _, data, _ in await heard.wait_for(1)] == ["x" * (10_000 - over)]


async def test_what_the_server_refuses_is_raised(api_for: Shell, server: Target) -> None:
    async with api_for(server) as api:
        with pytest.raises(APIError, match=r"answered POST .*events with 4") as caught:
            await api.trigger(unique("news-"), "", {})
        assert caught.value.status in (400, 422)
        events = [BatchEvent(unique("news-"), name, 1) for name in [*"0123456789", ""]]
        with pytest.raises(BatchError) as stopped:
            await api.trigger_batch(events)
        assert stopped.value.accepted == 10


async def test_a_wrong_secret(api_for: Shell, server: Target) -> None:
    async with api_for(server, app_secret="wrong") as api:
        with pytest.raises(APIError, match="check REVERB_APP_KEY, REVERB_APP_SECRET") as caught:
            await api.trigger("news", "e", {})
        assert caught.value.status == 401


@pytest.mark.parametrize("options", [{"app_id": "no-such-id"}, {"path": "/no/such/path"}])
async def test_what_is_not_there(api_for: Shell, server: Target, options: dict[str, str]) -> None:
    async with api_for(server, **options) as api:
        with pytest.raises(APIError, match="check REVERB_APP_ID and REVERB_PATH") as caught:
            await api.channels()
        assert caught.value.status == 404


async def test_encrypted_channels(api_for: Shell, server: Target) -> None:
    name, master_key = unique("private-encrypted-"), 32 * b"m"
    options = {"encryption_master_key": b64encode(master_key).decode()}
    async with connect(server) as websocket, api_for(server, **options) as api:
        socket_id = json.loads((await receive(websocket))["data"])["socket_id"]
        subscribe = {"channel": name, "auth": sign_channel(server.key, server.secret, socket_id, name)}
        await websocket.send_json({"event": "pusher:subscribe", "data": subscribe})
        assert (await receive(websocket))["event"] == Events.SUBSCRIPTION_SUCCEEDED
        await api.trigger(name, "paid", {"text": "Zoë ☃"})
        message = await receive(websocket)
        assert message["event"] == "paid"
        text = decrypt(message["data"], derive_shared_secret(name, master_key))
        assert json.loads(text) == {"text": "Zoë ☃"}
        with pytest.raises(ProtocolError, match="needs its own call"):
            await api.trigger([name, "news"], "paid", {})


async def test_encrypted_from_a_clients_api_to_its_handler(server: Target) -> None:
    heard, name = Recorder(), unique("private-encrypted-")
    settings = {**server.settings, "encryption_master_key": b64encode(32 * b"m").decode()}
    async with ReverbClient(**settings) as client:
        (await client.subscribe(name)).bind("paid", heard)
        await client.api.trigger(name, "paid", {"text": "Zoë ☃"})
        assert await heard.wait_for(1) == [("paid", {"text": "Zoë ☃"}, name)]


# --- asking ----------------------------------------------------------------------------------------------------


async def test_who_is_there(api_for: Shell, server: Target) -> None:
    start = unique("")
    news, room = f"news-{start}", f"presence-{start}"
    async with client_for(server) as ann, client_for(server) as bob, api_for(server) as api:
        assert await api.channel(news) in (ChannelInfo(occupied=False), ChannelInfo(False, subscription_count=0))
        assert await api.channels(f"presence-{start}") == {}
        assert await api.users(room) == []
        await asyncio.gather(ann.subscribe(news), bob.subscribe(news))
        for client, user_id in ((ann, 7), (bob, "bob")):
            await client.subscribe(room, {"user_id": user_id, "user_info": {}})

        async def counted() -> bool:
            return bool((await api.channel(news, "subscription_count")).subscription_count == 2)

        assert await counted()
        assert (await api.channel(news)).occupied is True
        assert (await api.channel(room, "user_count")).user_count == 2
        found = await api.channels("presence-", info="user_count")
        assert room in found
        assert news not in found
        assert {room, news} <= (await api.channels()).keys()
        assert sorted(await api.users(room)) == ["7", "bob"]
        with pytest.raises(APIError, match="presence channel") as caught:
            await api.users(news)
        assert caught.value.status == 400


async def test_infos_of_what_is_published(api_for: Shell, server: Target) -> None:
    name = unique("news-")
    async with client_for(server) as client, api_for(server) as api:
        await client.subscribe(name)
        infos = await api.trigger(name, "e", 1, info="subscription_count")
        batch = await api.trigger_batch(
            [BatchEvent(name, "e", 1, info="subscription_count"), BatchEvent("x", "e", 1)]
        )
        assert batch.accepted == 2
        if server.name == "soketi":  # does not tell
            assert infos == {}
            assert batch.infos == [ChannelInfo(), ChannelInfo()]
        else:
            assert infos == {name: ChannelInfo(subscription_count=1)}
            assert batch.infos == [ChannelInfo(subscription_count=1), ChannelInfo()]


async def test_what_only_reverb_tells(api_for: Shell, server: Target) -> None:
    async with client_for(server) as client, api_for(server) as api:
        await client.subscribe(unique("news-"))
        if server.name == "soketi":
            for call in (api.connections, api.health):
                with pytest.raises(APIError) as caught:
                    await call()
                assert caught.value.status == 404
        else:
            assert await api.connections() >= 1
            assert await api.health() is True


# --- users -----------------------------------------------------------------------------------------------------


async def test_the_connections_of_a_user_are_ended(api_for: Shell, server: Target) -> None:
    name, user_id = unique("presence-"), unique("user é")
    async with client_for(server) as ann, client_for(server) as bob, api_for(server) as api:
        await ann.subscribe(name, {"user_id": user_id, "user_info": {}})
        room = await bob.subscribe(name, {"user_id": "bob", "user_info": {}})
        assert isinstance(room, PresenceChannel)
        left = Recorder()
        room.bind(Events.MEMBER_REMOVED, left)
        if server.name == "soketi":  # knows only users that have signed in
            await api.terminate_user(user_id)
            assert ann.is_connected
            return
        outcomes: Any = await asyncio.gather(api.terminate_user(user_id), return_exceptions=True)
        assert outcomes == [
            None
        ] or "500: Internal server error.; Reverb 1.10 stops at the first connection" in str(outcomes[0])
        await left.wait_for(1)
        assert bob.is_connected
        await api.terminate_user(unique("nobody-"))


async def test_what_is_sent_to_a_user_is_accepted(api_for: Shell, server: Target) -> None:
    async with api_for(server) as api:
        await api.send_to_user(unique("user-"), "e", {"id": 1})


async def test_a_user_who_is_signed_in_to_soketi(api_for: Shell, soketi: Target) -> None:
    target = soketi.app("user")
    user = json.dumps({"id": "7"})
    async with api_for(target) as api, connect(target) as websocket:
        socket_id = json.loads((await receive(websocket))["data"])["socket_id"]
        auth = f"{target.key}:{hmac_hex(target.secret, f'{socket_id}::user::{user}'.encode())}"
        await websocket.send_json({"event": "pusher:signin", "data": {"auth": auth, "user_data": user}})
        assert (await receive(websocket))["event"] == "pusher:signin_success"
        await api.send_to_user("7", "greeting", {"text": "hello"})
        message = await receive(websocket)
        assert (message["event"], json.loads(message["data"])) == ("greeting", {"text": "hello"})
        await api.terminate_user("7")
        assert (await receive(websocket))["data"]["code"] == 4009
        assert (await websocket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE


# --- the relay of the contract -----------------------------------------------------------------------------------


async def test_client_events_from_fresh_connections(server: Target) -> None:
    """Not the HTTP API, but what it replaces: a connection for each webhook."""
    name, heard = unique("private-webhooks."), Recorder()
    async with client_for(server) as receiver:
        (await receiver.subscribe(name)).bind("client-received", heard)

        async def relay(payload: dict[str, Any]) -> None:
            async with ReverbClient(**server.settings) as client:
                await client.connect()
                channel = await client.subscribe(name)
                await channel.trigger("received", payload)

        await asyncio.gather(*(relay({"number": number}) for number in range(10)))
        assert sorted(data["number"] for _, data, _ in await heard.wait_for(10)) == list(range(10))


# --- the vectors -------------------------------------------------------------------------------------------------


def test_the_signatures_are_what_pushers_library_makes(soketi_process: Soketi) -> None:
    node, program = soketi_command()
    (library,) = (parent / "pusher" for parent in Path(program).parents if parent.name == "node_modules")
    made = subprocess.run([node, VECTORS / "pusher.js", library], capture_output=True, text=True, timeout=30)
    assert made.stdout == (VECTORS / "pusher.json").read_text(encoding="utf-8"), made.stderr
