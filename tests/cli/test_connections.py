"""``reverb connections``."""

from __future__ import annotations

from reverb.server import ReverbServer
from tests.cli.clients import Clients
from tests.cli.in_process import answer, fails, objects


def test_how_many(reverb_server: ReverbServer, clients: Clients) -> None:
    assert answer("connections") == "0 connections\n"
    clients.join("news")
    assert answer("connections") == "1 connection\n"
    clients.join("news")
    assert objects("connections") == [{"connections": 2}]


def test_what_goes_wrong(reverb_server: ReverbServer) -> None:
    fails("connections", "--port", "1", request_timeout="0.1", code=3, says="cannot connect to")
    fails("connections", code=4, says="with 401", app_secret="wr0ng")
