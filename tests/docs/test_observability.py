"""docs/guides/observability.md: its code runs, and its tables are whole."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.registry import Collector

from reverb import ReverbClient, Stats
from reverb._metrics import METRICS
from reverb.bindable import queue_of
from reverb.server import ReverbServer
from tests.docs.pages import Fragment, Page
from tests.test_dispatch import Recorder
from tests.test_opentelemetry import collect

PAGE = Page("docs/guides/observability.md")
TEXT = PAGE.text
STATS, LOG, PROMETHEUS, OPENTELEMETRY, FASTAPI, OWN = (
    each for each in PAGE.blocks.values() if each.language == "python"
)


def first_cells(heading: str) -> set[str]:
    """What the tables of a section name in their first column."""
    section = TEXT.split(f"## {heading}\n")[1].partition("\n## ")[0]
    return set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*)\|", section, re.M))))


async def test_the_numbers(reverb_client: ReverbClient) -> None:
    await reverb_client.subscribe("news")
    fragment = Fragment(STATS, client=reverb_client)
    await fragment.run()
    assert fragment.printed == ["2 received, 1 waiting, 0 reconnects"]
    assert first_cells("Numbers") == set(Stats.__struct_fields__)


async def test_the_log(capsys: pytest.CaptureFixture[str], reverb_client: ReverbClient) -> None:
    def fail(event: str, data: object, channel: str | None) -> None:
        raise ValueError

    fragment, errors = Fragment(LOG), Recorder()
    await fragment.run()
    try:
        reverb_client.bind("error", errors).bind("e", fail)
        queue_of(reverb_client).put("e", None)
        await errors.wait_for(1)
    finally:
        logging.getLogger("reverb").removeHandler(fragment.names["handler"])
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["message"].startswith(
        "handler test_the_log.<locals>.fail of 'e' on the client raised\nTraceback"
    )
    assert (record["level"], record["reverb_event"], record["reverb_channel"]) == ("ERROR", "e", None)
    assert first_cells("Log") == {"reverb_address", "reverb_channel", "reverb_event"}


async def test_prometheus(reverb_client: ReverbClient, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Collector] = []
    register = REGISTRY.register

    def note(collector: Collector) -> None:
        registered.append(collector)
        register(collector)

    monkeypatch.setattr(REGISTRY, "register", note)
    fragment = Fragment(PROMETHEUS, client=reverb_client)
    await fragment.run()
    (collector,) = registered
    try:
        text = generate_latest().decode()
    finally:
        REGISTRY.unregister(collector)
    assert 'reverb_connected{client="orders"} 1.0' in text
    assert set(re.findall(r"^# TYPE (reverb_\w+)", text, re.M)) == first_cells("Prometheus")


async def test_opentelemetry(reverb_client: ReverbClient, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    await Fragment(OPENTELEMETRY, client=reverb_client).run()
    collected = collect(reader)
    assert set(re.findall(r"`(reverb\.\w+)`", TEXT.split("## OpenTelemetry")[1])) - collected.keys() == {
        "reverb.asgi"
    }
    assert collected.keys() == {f"reverb.{metric.name}" for metric in METRICS} - {"reverb.round_trip_seconds"}
    provider.shutdown()


async def test_a_web_application(reverb_server: ReverbServer) -> None:
    pytest.importorskip("fastapi")
    received = Recorder()
    fragment = Fragment(FASTAPI, on_shipped=received)
    await fragment.run()
    app = fragment.names["app"]
    async with app.router.lifespan_context(app):
        await reverb_server.publish("orders", "shipped", {"id": 7})
        assert await received.wait_for(1) == [("shipped", {"id": 7}, "orders")]

    @asynccontextmanager
    async def open_database() -> AsyncIterator[str]:
        yield "a database"

    client = fragment.names["client"]
    own = Fragment(OWN, client=client, setup=fragment.names["setup"], open_database=open_database)
    await own.run()
    app = own.names["app"]
    async with app.router.lifespan_context(app) as state:
        assert state == {"database": "a database"}
        assert client.is_connected
    assert not client.is_connected


def test_all_code_is_run_here() -> None:
    assert TEXT.count("```") == 2 * TEXT.count("```python\n")
