"""What Prometheus is shown, in its own text."""

from __future__ import annotations

import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from reverb import ConfigurationError, ReverbClient, Stats
from reverb.prometheus import ReverbCollector
from reverb.server import ReverbServer

from .test_dispatch import Recorder


def scrape(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Return what is exposed: values by name and client."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(each.name, each.labels["client"]): each.value for family in families for each in family.samples}


async def test_what_is_exposed(reverb_server: ReverbServer, reverb_client: ReverbClient) -> None:
    idle = ReverbClient(app_key="key", host="127.0.0.1")
    clients = {"orders": reverb_client}
    registry = CollectorRegistry(auto_describe=True)
    registry.register(ReverbCollector(clients))
    clients["idle"] = idle
    recorder = Recorder()
    (await reverb_client.subscribe("orders")).bind("shipped", recorder)
    await reverb_server.publish("orders", "shipped", {"id": 7})
    await recorder.wait_for(1)
    exposed, stats = scrape(registry), reverb_client.stats
    assert exposed["reverb_connected", "orders"] == 1
    assert exposed["reverb_connected", "idle"] == 0
    assert exposed["reverb_received_messages_total", "orders"] == stats.received == 3
    assert exposed["reverb_delivered_events_total", "orders"] == stats.delivered == 1
    assert exposed["reverb_unbound_events_total", "orders"] == stats.unbound
    assert exposed["reverb_received_bytes_total", "orders"] == stats.bytes_received > 100
    assert exposed["reverb_sent_bytes_total", "orders"] == stats.bytes_sent > 50
    assert exposed["reverb_queued_events", "orders"] == 0
    assert exposed["reverb_dropped_events_total", "orders"] == 0
    assert exposed["reverb_discarded_events_total", "orders"] == 0
    assert exposed["reverb_reconnects_total", "orders"] == 0
    assert 0 < exposed["reverb_uptime_seconds", "orders"] <= (stats.uptime or 0)
    assert ("reverb_uptime_seconds", "idle") not in exposed
    assert "reverb_round_trip_seconds" not in {name for name, _ in exposed}  # nobody was pinged yet


def test_a_client_may_be_added_while_it_is_scraped(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = {"orders": ReverbClient(app_key="key", host="127.0.0.1")}
    stats = clients["orders"].stats

    def add(client: ReverbClient) -> Stats:
        clients[f"another {len(clients)}"] = client
        return stats

    registry = CollectorRegistry()
    registry.register(ReverbCollector(clients))
    monkeypatch.setattr(ReverbClient, "stats", property(add))  # what another thread would do
    assert scrape(registry)["reverb_connected", "orders"] == 0


def test_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"python-reverb\[prometheus\]"):
        ReverbCollector({})
