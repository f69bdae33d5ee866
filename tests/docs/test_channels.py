"""docs/guides/channels.md: its code runs."""

from __future__ import annotations

import asyncio

from reverb import ReverbClient
from tests.docs.pages import Block, Fragment, Page
from tests.test_dispatch import Recorder
from tests.watching import until

PAGE = Page("docs/guides/channels.md")
block_of = PAGE.block_of
ANN = {"user_id": "7", "user_info": {"name": "Ann"}}
BOB = {"user_id": "8", "user_info": {"name": "Bob"}}


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@block_of("Kinds of channels")
async def test_kinds_of_channels(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, client=client)
    await fragment.run()
    assert fragment.printed == [str(ANN), str({"7": {"name": "Ann"}})]
    orders, room = fragment.names["orders"], fragment.names["room"]
    assert client.channels == {"private-orders.7": orders, "presence-room.1": room}
    assert orders.is_subscribed
    assert room.is_subscribed
    assert not fragment.names["news"].is_subscribed


@block_of("Members of a presence channel")
async def test_members(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, room=await client.subscribe("presence-room.1", ANN))
    running = asyncio.ensure_future(fragment.run())
    async with ReverbClient() as other:
        await other.subscribe("presence-room.1", BOB)
        await running
    assert fragment.printed == ["Bob is here, one of 2: 7, 8"]


@block_of("Members that join and leave")
async def test_joining_and_leaving(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, room=await client.subscribe("presence-room.1", ANN))
    await fragment.run()
    async with ReverbClient() as other:
        await other.subscribe("presence-room.1", BOB)
        await until(lambda: fragment.printed == ["Bob joined, now there are 2"])
        await other.unsubscribe("presence-room.1")
        await until(lambda: fragment.printed[1:] == ["Bob left"])


@block_of("Send client events")
async def test_client_events(block: Block, client: ReverbClient) -> None:
    received = Recorder()
    async with ReverbClient() as other:
        (await other.subscribe("private-device.rpi-001")).bind("client-status", received)
        fragment = Fragment(block, client=client)
        await fragment.run()
        await fragment.names["device"].trigger("client-status", {})
        assert [(event, data) for event, data, _ in await received.wait_for(2)] == [
            ("client-status", {"temperature": 45.2, "uptime": 86400}),
            ("client-status", []),
        ]


@block_of("Who sent a client event")
async def test_the_sender_of_a_client_event(block: Block, client: ReverbClient) -> None:
    fragment = Fragment(block, room=await client.subscribe("presence-room.1", ANN))
    await fragment.run()
    async with ReverbClient() as other:
        room = await other.subscribe("presence-room.1", BOB)
        await room.trigger("message", {"text": "Hello!"})
        await until(lambda: fragment.printed == ["8 says Hello!"])
