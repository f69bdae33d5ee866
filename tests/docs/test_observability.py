"""docs/guides/observability.md: its code runs, and its tables are whole."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY, generate_latest

from reverb import ReverbClient, Stats
from reverb._metrics import METRICS
from reverb.bindable import queue_of
from tests.docs.pages import Block, Fragment, Page
from tests.test_dispatch import Recorder
from tests.test_opentelemetry import collect

if TYPE_CHECKING:
    from prometheus_client.registry import Collector  # not there in the lowest version

PAGE = Page("docs/guides/observability.md")
block_of = PAGE.block_of


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def first_cells(heading: str) -> set[str]:
    """What the table of a section names in its first column."""
    (table,) = PAGE.tables(heading)
    return {name for row in table for name in re.findall(r"`(\w+)`", row[0])}


@block_of("Numbers")
async def test_the_numbers(block: Block, reverb_client: ReverbClient) -> None:
    await reverb_client.subscribe("news")
    fragment = Fragment(block, client=reverb_client)
    await fragment.run()
    assert fragment.printed == ["2 received, 1 waiting, 0 reconnects"]
    assert first_cells("Numbers") == set(Stats.__struct_fields__)


@block_of("Log")
async def test_the_log(block: Block, capsys: pytest.CaptureFixture[str], reverb_client: ReverbClient) -> None:
    def fail(event: str, data: object, channel: str | None) -> None:
        raise ValueError

    fragment, errors = Fragment(block), Recorder()
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


@block_of("Prometheus")
async def test_prometheus(block: Block, reverb_client: ReverbClient, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Collector] = []
    register = REGISTRY.register

    def note(collector: Collector) -> None:
        registered.append(collector)
        register(collector)

    monkeypatch.setattr(REGISTRY, "register", note)
    fragment = Fragment(block, client=reverb_client)
    await fragment.run()
    (collector,) = registered
    try:
        text = generate_latest().decode()
    finally:
        REGISTRY.unregister(collector)
    assert 'reverb_connected{client="orders"} 1.0' in text
    assert set(re.findall(r"^# TYPE (reverb_\w+)", text, re.M)) == first_cells("Prometheus")


@block_of("OpenTelemetry")
async def test_opentelemetry(block: Block, reverb_client: ReverbClient, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    await Fragment(block, client=reverb_client).run()
    collected = collect(reader)
    assert set(re.findall(r"`(reverb\.\w+)`", PAGE.section("OpenTelemetry"))) <= collected.keys()
    assert collected.keys() == {f"reverb.{metric.name}" for metric in METRICS} - {"reverb.round_trip_seconds"}
    provider.shutdown()
