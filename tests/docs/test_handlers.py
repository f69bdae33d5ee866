"""docs/guides/handlers.md: its code runs."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from reverb import Channel, Events, ReverbClient
from reverb.server import ReverbServer
from tests.docs.pages import Block, Fragment, Page
from tests.integration.servers import Target
from tests.test_dispatch import Recorder
from tests.watching import until

PAGE = Page("docs/guides/handlers.md")
block_of = PAGE.block_of


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


async def order_type(orders: Channel) -> type[Any]:
    """The type that the page's later blocks use."""
    fragment = Fragment(
        PAGE.blocks["Get data in your own types"], orders=orders, on_paid=Recorder(), __name__="program"
    )
    await fragment.run()
    orders.unbind("order.shipped").unbind("order.paid")
    order: type[Any] = fragment.names["Order"]
    return order


@block_of("Bind a handler")
async def test_binding_handlers(block: Block, client: ReverbClient, target: Target) -> None:
    handlers = {name: Recorder() for name in ("on_shipped", "on_any_shipped", "log", "on_error")}
    names = {"client": client, "orders": await client.subscribe("orders"), **handlers}
    await client.subscribe("others")
    before, _, after = block.text.partition("\n\n")

    await Fragment(block._replace(text=before), **names).run()
    await target.publish(["orders", "others"], "order.shipped", 1)
    await target.publish("others", "done", 2)
    await until(lambda: "done" in handlers["log"].events)
    shipped = ("order.shipped", 1, "orders")
    assert handlers["on_shipped"].calls == [shipped]
    assert handlers["on_any_shipped"].calls == [shipped, ("order.shipped", 1, "others")]
    assert [call for call in handlers["log"].calls if call[0] == "order.shipped"].count(shipped) == 2
    assert handlers["on_error"].calls == []

    await Fragment(block._replace(text=after), **names).run()
    for handler in handlers.values():
        handler.calls.clear()
    await target.publish("orders", "order.shipped", 3)
    shipped = ("order.shipped", 3, "orders")
    await until(lambda: handlers["log"].calls)
    assert handlers["on_shipped"].calls == []
    assert handlers["log"].calls == [shipped]
    assert handlers["on_any_shipped"].calls == [shipped]


@block_of("Decorate a handler")
async def test_decorating_a_handler(block: Block, client: ReverbClient, target: Target) -> None:
    fragment = Fragment(block, orders=await client.subscribe("orders"))
    await fragment.run()
    await target.publish("orders", "order.shipped", {"id": 7})
    await until(lambda: fragment.printed == ["7 is on its way"])


@block_of("Patterns")
async def test_patterns(block: Block, client: ReverbClient, target: Target) -> None:
    audit = Recorder()
    await Fragment(block, orders=await client.subscribe("orders"), audit=audit).run()
    for name in ("order.shipped", "stock.counted", "order.paid"):
        await target.publish("orders", name, 1)
    await audit.wait_for(2)
    assert audit.events == ["order.shipped", "order.paid"]


@block_of("Handle an event once")
async def test_handling_an_event_once(block: Block, client: ReverbClient, target: Target) -> None:
    on_paid, on_shipped, last = Recorder(), Recorder(), Recorder()
    orders = await client.subscribe("orders")
    before, with_statement, within = block.text.partition("\nwith ")
    names = {"client": client, "orders": orders, "on_paid": on_paid, "on_shipped": on_shipped}
    await Fragment(block._replace(text=before), **names).run()
    orders.bind("last", last)
    for name in ("order.paid", "order.paid", "order.shipped", "last"):
        await target.publish("orders", name, 1)
    await last.wait_for(1)
    assert (on_paid.events, on_shipped.events) == (["order.paid"], [])

    async def publish_and_ping() -> None:
        await target.publish("orders", "order.shipped", 2)
        await on_shipped.wait_for(1)

    text = f"{with_statement}{within}".replace("client.ping()", "publish_and_ping()")
    await Fragment(block._replace(text=text), publish_and_ping=publish_and_ping, **names).run()
    for name in ("order.shipped", "last"):
        await target.publish("orders", name, 3)
    await last.wait_for(2)
    assert on_shipped.events == ["order.shipped"]


@block_of("Get data in your own types")
async def test_types(block: Block, client: ReverbClient, target: Target) -> None:
    on_paid, errors = Recorder(), Recorder()
    orders = await client.subscribe("orders")
    fragment = Fragment(block, orders=orders, on_paid=on_paid, __name__="program")
    await fragment.run()
    orders.bind("error", errors)
    await target.publish("orders", "order.shipped", {"id": "seven", "total": ""})
    await target.publish("orders", "order.shipped", {"id": 7, "total": "49.90"})
    await target.publish("orders", "order.paid", {"id": 7, "total": "49.90"})
    assert await on_paid.wait_for(1) == [("order.paid", fragment.names["Order"](7, "49.90"), "orders")]
    assert fragment.printed == ["7 is on its way"]
    assert errors.calls[0][1]["exception"].path == "$.id"


@block_of("Get the JSON text")
async def test_the_text(block: Block, client: ReverbClient, target: Target) -> None:
    queue: list[bytes] = []
    await Fragment(block, orders=await client.subscribe("orders"), queue=queue).run()
    await target.publish("orders", "order.shipped", '{"id":  7.0}')
    await until(lambda: queue == [b'{"id":  7.0}'])


@block_of("Events in a loop")
async def test_a_loop(block: Block, client: ReverbClient, target: Target, server: ReverbServer) -> None:
    orders, missed = await client.subscribe("orders"), Recorder()
    orders.bind(Events.RESUBSCRIBED, missed)
    fragment = Fragment(block, orders=orders, Order=await order_type(orders))
    running = asyncio.ensure_future(fragment.run())
    await asyncio.sleep(0)  # up to its first wait, behind events()
    for name in ("shipped", "paid"):
        await target.publish("orders", f"order.{name}", {"id": 7, "total": "49.90"})
    await until(lambda: len(fragment.printed) == 2)
    await server.restart()
    await missed.wait_for(1)
    await target.publish("orders", "order.closed", {"id": 7, "total": ""})
    await asyncio.wait_for(running, 5)
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in fragment.printed] == [
        "order.shipped: 49.90",
        "order.paid: 49.90",
        "orders: fetch the last 0 seconds",
    ]


@block_of("Wait for one event")
async def test_waiting(block: Block, client: ReverbClient, target: Target) -> None:
    fragment = Fragment(block, orders=await client.subscribe("orders"))
    running = asyncio.ensure_future(fragment.run())
    await asyncio.sleep(0)  # up to its first wait
    await target.publish("orders", "order.shipped", {"id": 6, "total": "1.00"})
    await target.publish("orders", "order.shipped", {"id": 7, "total": "2.00"})
    await asyncio.wait_for(running, 5)
    assert fragment.printed == ["2.00"]


@block_of("Errors in handlers")
async def test_errors(block: Block, client: ReverbClient, target: Target) -> None:
    def fail(event: str, data: Any, channel: str | None) -> None:
        raise RuntimeError("broken")

    errors = Recorder()
    (await client.subscribe("orders")).bind("order.shipped", fail)
    fragment = Fragment(block, client=client, Events=Events)
    await fragment.run()
    client.bind("error", errors)
    await target.publish("orders", "order.shipped", 4)
    ((event, data, channel),) = await errors.wait_for(1)
    assert (event, channel) == (Events.CLIENT_ERROR, "orders")
    assert data.keys() == {"message", "code", "exception"}
    assert fragment.printed == [f"orders: {data['message']}"]
    ((server_error, client_error, _),) = PAGE.tables("Errors in handlers")
    assert [server_error[0], client_error[0]] == [f"`{Events.ERROR}`", f"`{Events.CLIENT_ERROR}`"]


@block_of("Slow handlers")
async def test_slow_handlers(block: Block, client: ReverbClient, target: Target) -> None:
    dropped, last, go_on = Recorder(), Recorder(), asyncio.Event()
    fragment = Fragment(block, client=client, Events=Events, on_dropped=dropped)
    await fragment.run()

    async def wait(event: str, data: Any, channel: str | None) -> None:
        await go_on.wait()

    fragment.names["prices"].bind("price", wait)
    (await client.subscribe("other")).bind("e", last)
    await until(lambda: client.stats.queued == 0)
    for number in range(108):  # one of them is with the handler
        await target.publish("prices", "price", number)
    await target.publish("other", "e", None)
    await last.wait_for(1)
    go_on.set()
    assert await dropped.wait_for(1) == [(Events.EVENTS_DROPPED, {"count": 7}, "prices")]
    assert client.stats.dropped == 7


@block_of("Handle a gap after a reconnect")
async def test_a_gap(block: Block, client: ReverbClient, server: ReverbServer) -> None:
    fetch_orders = Recorder()
    orders = await client.subscribe("orders")
    fragment = Fragment(block, client=client, orders=orders, Events=Events, fetch_orders=fetch_orders)
    await fragment.run()
    await server.restart()
    await until(lambda: fragment.printed and fetch_orders.calls)
    assert re.fullmatch(r"no connection for \d+ seconds, \d+ attempts to connect", fragment.printed[0])
    assert fetch_orders.calls[0][::2] == (Events.RESUBSCRIBED, "orders")
