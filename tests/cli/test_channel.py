"""``reverb channel``."""

from __future__ import annotations

from reverb.server import ReverbServer
from tests.cli.clients import Clients
from tests.cli.in_process import answer, fails, objects


def test_in_use(reverb_server: ReverbServer, clients: Clients) -> None:
    clients.join("news")
    clients.join("presence-a", "ann")
    unknown = {"subscription_count": None, "user_count": None}
    assert objects("channel", "news") == [
        {"channel": "news", "occupied": True, **unknown, "subscription_count": 1}
    ]
    assert objects("channel", "presence-a") == [
        {"channel": "presence-a", "occupied": True, **unknown, "user_count": 1}
    ]
    head, row = answer("channel", "news").splitlines()
    assert head.split() == ["Channel", "Occupied", "Subscriptions", "Users"]
    assert row.split() == ["news", "yes", "1", "-"]


def test_not_in_use(reverb_server: ReverbServer) -> None:
    assert objects("channel", "news")[0]["occupied"] is False
    assert answer("channel", "news").splitlines()[1].split()[:2] == ["news", "no"]


def test_what_goes_wrong(reverb_server: ReverbServer) -> None:
    fails("channel", "", code=2, says="must be a non-empty string")
    fails("channel", "news", "--port", "1", request_timeout="0.1", code=3, says="cannot connect to")
    fails("channel", "news", code=4, says="with 401", app_secret="wr0ng")
