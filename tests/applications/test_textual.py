"""A Textual application that lives on a client; Textual makes tasks eager from Python 3.12 on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reverb.server import ReverbServer
from tests.applications.snippets import PROGRAMS
from tests.loops import every_loop
from tests.watching import client_tasks, until

textual_widgets = pytest.importorskip("textual.widgets", reason="Textual is not installed")


@every_loop
async def test_it_shows_events_until_it_ends(reverb_server: ReverbServer) -> None:
    names: dict[str, Any] = {"__name__": "shipments"}
    exec(compile(PROGRAMS["shipments.py"], "shipments.py", "exec"), names)
    app = names["Shipments"]()
    async with app.run_test():
        await reverb_server.wait_for_subscription("orders")
        table = app.query_one(textual_widgets.DataTable)
        counts: list[int] = []

        async def count(event: str, data: Any, channel: str | None) -> None:
            await asyncio.sleep(0)
            counts.append(table.row_count)

        app.client.channels["orders"].bind("order.shipped", count)
        for number in range(3):
            await reverb_server.publish("orders", "order.shipped", {"id": number})
        await until(lambda: table.row_count == 3)
        assert [table.get_row_at(index) for index in range(3)] == [[0], [1], [2]]

        await reverb_server.restart()
        await reverb_server.wait_for_subscription("orders")
        await reverb_server.publish("orders", "order.shipped", {"id": 3})
        await until(lambda: table.row_count == 4)
        await until(lambda: len(counts) == 4)
    await reverb_server.wait_for_connections(0)
    assert client_tasks() == set()
