"""``reverb terminate``."""

from __future__ import annotations

from pathlib import Path

from reverb.server import ReverbServer
from tests.cli.clients import Clients
from tests.cli.in_process import answer, fails, objects
from tests.cli.processes import reverb
from tests.scripted_http import ScriptedHTTPServer
from tests.scripted_http import answer as http

UNCONFIRMED = "; not confirmed: the server answered 500, as Reverb 1.10 does when it has ended them"


def test_ends_connections(reverb_server: ReverbServer, clients: Clients) -> None:
    """As Reverb 1.10, the server answers 500 when there was somebody."""
    clients.join("presence-a", "ann")
    clients.join("presence-a", "bob")
    first = reverb_server.blocking.subscriptions["presence-a"]
    assert answer("terminate", "ann") == f"ended the connections of user ann{UNCONFIRMED}\n"
    reverb_server.blocking.wait_for_subscription("presence-a")
    assert reverb_server.blocking.subscriptions["presence-a"] != first
    assert objects("terminate", "nobody") == [{"user_id": "nobody", "confirmed": True}]


async def test_an_answer_that_is_no_error(settings: dict[str, str], tmp_path: Path) -> None:
    async with ScriptedHTTPServer(http(200)) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("terminate", "ann/7", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 0
            assert command.out.text == "ended the connections of user ann/7\n"
        assert "/apps/app-id/users/ann%2F7/terminate_connections?" in server.requests[0].target


def test_what_goes_wrong(reverb_server: ReverbServer) -> None:
    fails("terminate", "ann", "--port", "1", request_timeout="0.1", code=3, says="cannot connect to")
    fails("terminate", "ann", "--app-id", "none", code=4, says="with 404")
    fails("terminate", "", code=2, says="id of a user must be a string")
