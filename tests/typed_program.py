"""What type checkers know of a user's program: read by mypy in ``test_typing.py``, and never run.

Lines marked "# wrong" must be refused, and all others must pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Optional

import msgspec
from typing_extensions import TypedDict, assert_type

from reverb import Binding, Channel, Echo, Event, EventStream, Gap, Handler, PresenceChannel, ReverbClient
from reverb.echo import EchoPresenceChannel, EchoPrivateChannel


class Item(msgspec.Struct):
    id: int


class Options(TypedDict):
    id: int


def takes_item(event: str, data: Item, channel: str | None) -> None: ...


async def awaits_item(event: str, data: Item, channel: str | None) -> None: ...


def takes_sender(event: str, data: Item, channel: str | None, *, user_id: str | None) -> None: ...


def takes_text(event: str, data: str, channel: str | None) -> None: ...


def too_short(event: str) -> None: ...


def takes_text_alone(data: str) -> None: ...


def takes_either(event: str, data: Item | Options, channel: str | None) -> None: ...


def takes_maybe(event: str, data: Item | None, channel: str | None) -> None: ...


def takes_either_alone(data: Item | str) -> None: ...


async def main() -> None:
    async with ReverbClient() as client:
        channel = await client.subscribe("stock")
        channel.bind("e", too_short)  # wrong
        assert_type(channel, Channel)
        assert_type(await client.subscribe("presence-room", {"user_id": "1"}), PresenceChannel)

        room = await client.subscribe_presence("presence-room", max_pending=7)
        assert_type(room.members["1"], dict[str, Any])
        assert_type(await client.subscribe_presence("presence-room", {"user_id": "1"}), PresenceChannel)

        assert_type(channel.bind("e", takes_item), Channel)
        channel.bind("e", takes_item, type=Item).bind("e", awaits_item, type=Item).bind(
            "e", takes_sender, type=Item
        )
        channel.bind("e", lambda event, data, name: print(data.id), type=Item)
        channel.bind("e", takes_text, type=Item)  # wrong
        channel.bind("e", takes_item, type=list[Item])  # wrong
        assert_type(client.binding("e", takes_item, type=Item), Binding)
        handler: Handler[Item] = takes_sender
        channel.bind("e", handler, type=Item)

        @channel.on("e")
        async def untyped(event: str, data: Any, channel: str | None) -> int:
            return 1

        assert_type(await untyped("e", None, None), int)

        @channel.on("e", type=Item, once=True)
        def typed(event: str, data: Item, channel: str | None) -> int:
            return data.id

        assert_type(typed("e", Item(1), None), int)

        @channel.on("e", type=Item)  # wrong
        def misfit(event: str, data: str, channel: str | None) -> None: ...

        assert_type(client.events(), EventStream[Event[Any]])
        async for event in channel.events("e", type=Item):
            assert_type(event.data, Item)
            print(event.data.name)  # wrong
        async for raw in channel.events("e", type=msgspec.Raw):
            assert_type(raw.data, msgspec.Raw)
        async for options in channel.events("e", type=Options):
            assert_type(options.data["id"], int)
        async for items in channel.events("e", type=list[Item]):
            assert_type(items.data, list[Item])
        async for item in channel.events("e", type=Item, include_gaps=True):
            assert_type(item, Event[Item] | Gap)

        channel.bind("e", takes_either, type=Item | Options).bind("e", takes_either, type=Item)
        channel.bind("e", takes_item, type=Item | Options)  # wrong
        channel.bind("e", takes_maybe, type=Optional[Item])  # noqa: UP045
        channel.bind("e", takes_item, type=Annotated[Item, "as in the catalogue"])
        channel.bind("e", takes_item, type=7)  # wrong
        channel.binding("e", takes_either, type=Item | Options).unbind()
        channel.binding("e", takes_text, type=Item | None)  # wrong
        async for either in channel.events("e", type=Item | Options):
            assert_type(either.data, Item | Options)
        async for perhaps in channel.events("e", type=Item | None, include_gaps=True):
            assert_type(perhaps, Event[Item | None] | Gap)
        assert_type(await channel.wait_for("e", type=Item | None), Event[Item | None])

        @channel.on("e", type=Item | None)
        def maybe(event: str, data: Item | None, channel: str | None) -> int:
            return 0

        assert_type(maybe("e", None, None), int)

        @channel.on("e", type=Item)
        def told(event: str, data: Item, channel: str | None, *, user_id: str | None) -> int:
            return 0

        assert_type(told("e", Item(1), None, user_id="7"), int)

        @channel.on("e", type=Item | None)
        async def told_later(event: str, data: Item | None, channel: str | None, user_id: str | None) -> int:
            return 0

        assert_type(await told_later("e", None, None, user_id=None), int)

        @channel.on("e", type=Item)  # wrong
        def told_misfit(event: str, data: str, channel: str | None, *, user_id: str | None) -> None: ...

        found = await channel.wait_for("e", type=Item, where=lambda event: event.data.id > 1)
        assert_type(found, Event[Item])
        run: Callable[..., int] = client.run
        run()

    async with Echo() as echo:
        orders = echo.private("orders.7").listen("Shipped", lambda item: print(item.id), type=Item)
        assert_type(await orders, EchoPrivateChannel)
        orders.listen("Shipped", takes_text_alone).listen(".shipped", takes_text_alone, type=str)
        orders.listen("Shipped", takes_text_alone, type=Item)  # wrong
        orders.listen("Shipped", takes_either_alone, type=Item | str)
        orders.listen("Shipped", takes_text_alone, type=Item | str)  # wrong
        assert_type(echo.join("room").here(lambda members: print(members[0]["name"])), EchoPresenceChannel)
        orders.here(print)  # wrong
        await echo.channel("news").whisper("typing", {})  # wrong
