"""``reverb users``."""

from __future__ import annotations

from reverb.server import ReverbServer
from tests.cli.clients import Clients
from tests.cli.in_process import answer, fails, objects


def test_who_is_there(reverb_server: ReverbServer, clients: Clients) -> None:
    assert answer("users", "presence-a") == "nobody is on presence-a\n"
    assert objects("users", "presence-a") == []
    for user in ("ann", "bob\x1b[2J"):
        clients.join("presence-a", user)
    assert sorted(answer("users", "presence-a").splitlines()) == ["User", "ann", r"bob\x1b[2J"]
    assert sorted(each["user_id"] for each in objects("users", "presence-a")) == ["ann", "bob\x1b[2J"]


def test_what_goes_wrong(reverb_server: ReverbServer) -> None:
    fails(
        "users",
        "news",
        code=2,
        says="news is not a presence channel (presence-…); only presence channels have users",
    )
    fails("users", "presence-a", "--port", "1", request_timeout="0.1", code=3, says="cannot connect to")
    fails("users", "", code=2, says="is not a presence channel")
