"""What OpenTelemetry collects, by its own SDK."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader, Sum

from reverb import ConfigurationError, ReverbClient, Stats
from reverb.opentelemetry import observe
from reverb.server import ReverbServer

from .test_dispatch import Recorder


def collect(reader: InMemoryMetricReader) -> dict[str, Any]:
    """Return what is collected, by name."""
    data = reader.get_metrics_data()
    assert data is not None
    ((scope,),) = (resource.scope_metrics for resource in data.resource_metrics)
    return {metric.name: metric for metric in scope.metrics}


async def test_what_is_collected(reverb_server: ReverbServer, reverb_client: ReverbClient) -> None:
    clients = {"orders": reverb_client}
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe(clients, provider.get_meter("test"))
    clients["idle"] = ReverbClient(app_key="key", host="127.0.0.1")
    recorder = Recorder()
    (await reverb_client.subscribe("orders")).bind("shipped", recorder)
    await reverb_server.publish("orders", "shipped", {"id": 7})
    await recorder.wait_for(1)
    collected, stats = collect(reader), reverb_client.stats
    values = {
        name: {point.attributes["client"]: point.value for point in metric.data.data_points}
        for name, metric in collected.items()
    }
    assert values["reverb.connected"] == {"orders": 1, "idle": 0}
    assert values["reverb.received_messages"] == {"orders": 3, "idle": 0}
    assert values["reverb.delivered_events"] == {"orders": 1, "idle": 0}
    assert values["reverb.received_bytes"] == {"orders": stats.bytes_received, "idle": 0}
    assert values["reverb.sent_bytes"] == {"orders": stats.bytes_sent, "idle": 0}
    assert values["reverb.uptime_seconds"].keys() == {"orders"}
    assert collected["reverb.received_bytes"].unit == "By"
    assert collected["reverb.uptime_seconds"].unit == "s"
    assert isinstance(collected["reverb.received_messages"].data, Sum)
    assert collected["reverb.received_messages"].data.is_monotonic
    assert isinstance(collected["reverb.queued_events"].data, Gauge)
    provider.shutdown()


def test_a_client_may_be_added_while_it_is_collected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clients = {"orders": ReverbClient(app_key="key", host="127.0.0.1")}
    stats = clients["orders"].stats

    def add(client: ReverbClient) -> Stats:
        clients[f"another {len(clients)}"] = client
        return stats

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    observe(clients, provider.get_meter("test"))
    monkeypatch.setattr(ReverbClient, "stats", property(add))  # what another thread would do
    assert "reverb.connected" in collect(reader)
    assert not caplog.records  # the SDK's word on what fails
    provider.shutdown()


async def test_the_meter_is_the_programs_unless_given(
    reverb_client: ReverbClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    observe({"orders": reverb_client})
    assert "reverb.connected" in collect(reader)
    provider.shutdown()


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(ConfigurationError, match=r"python-reverb\[opentelemetry\]"):
        observe({})
