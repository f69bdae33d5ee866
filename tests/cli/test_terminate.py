"""``reverb terminate``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reverb import ReverbConfig
from reverb.server import ReverbServer
from tests.cli.clients import Clients, clients_of
from tests.cli.in_process import answer, fails, invoke, objects
from tests.cli.processes import reverb
from tests.scripted_http import Answer, ScriptedHTTPServer, hang_up
from tests.scripted_http import answer as http

FAILED = http(500, "Internal server error.")
ROOM = http(200, '{"channels":{"presence-a":{}}}')
NO_ROOM = http(200, '{"channels":[]}')
ANN, BOB = http(200, '{"users":[{"id":"ann"}]}'), http(200, '{"users":[{"id":"bob"}]}')
DONE = "closed the connections of user ann"


@pytest.fixture
def leaving_clients(reverb_config: ReverbConfig) -> Iterator[Clients]:
    """Clients that don't come back."""
    with clients_of(replace(reverb_config, reconnect_enabled=False)) as clients:
        yield clients


def test_ends_connections(reverb_server: ReverbServer, leaving_clients: Clients) -> None:
    leaving_clients.join("presence-a", "ann")
    leaving_clients.join("presence-a", "bob")
    result = invoke("terminate", "ann")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(DONE)
    assert answer("users", "presence-a").split() == ["User", "bob"]
    result = invoke("terminate", "bob", "--json")
    assert json.loads(result.stdout) == {"user_id": "bob", "confirmed": True, "still_on": []}
    (nobody,) = objects("terminate", "nobody")
    assert nobody["confirmed"]


@pytest.mark.parametrize(
    ("answers", "code", "says"),
    [
        ([ROOM, ANN, http(200), ROOM, BOB], 0, DONE),
        ([ROOM, ANN, http(200), NO_ROOM], 0, DONE),
        (
            [ROOM, BOB, http(200), ROOM, BOB],
            0,
            f"{DONE}, if there were any: no user with this id was on a presence",
        ),
        ([ROOM, ANN, http(200), ROOM, ANN], 0, "accepted the request, but user ann is on presence-a: the user"),
        ([ROOM, ANN, FAILED, ROOM, BOB], 0, f"{DONE}; the server answered 500, but the user is on no presence"),
        (
            [ROOM, ANN, FAILED, ROOM, ANN],
            4,
            "answered 500, and user ann is still on presence-a: Reverb 1.10 stops",
        ),
        ([NO_ROOM, FAILED, NO_ROOM], 4, "user ann was on no presence channel, so nothing was closed"),
        (
            [http(404, "no such call"), FAILED, http(404, "no such call")],
            4,
            "not known whether it closed connections of user ann",
        ),
        ([http(404, "no such call"), http(200), http(404, "no such call")], 0, DONE),
        ([ROOM, ANN, hang_up], 3, "with REVERB_SCALING_ENABLED=true, this request ends the process"),
        ([ROOM, ANN, http(200), hang_up], 3, "this request ends the process of Reverb 1.10: check whether"),
    ],
)
async def test_what_became_of_them(
    answers: list[Answer], code: int, says: str, settings: dict[str, str], tmp_path: Path
) -> None:
    async with ScriptedHTTPServer(*answers) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("terminate", "ann", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == code
            assert says in (command.err if code else command.out).text
            assert (command.out if code else command.err).text == ""


async def test_programs_learn_it_too(settings: dict[str, str], tmp_path: Path) -> None:
    async with ScriptedHTTPServer(ROOM, ANN, FAILED, ROOM, ANN) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("terminate", "ann", "--json", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 4
            assert json.loads(command.out.text) == {
                "user_id": "ann",
                "confirmed": False,
                "still_on": ["presence-a"],
            }


async def test_ids_are_quoted(settings: dict[str, str], tmp_path: Path) -> None:
    async with ScriptedHTTPServer(NO_ROOM, http(200), NO_ROOM) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("terminate", "ann/7", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 0
        assert "/apps/app-id/users/ann%2F7/terminate_connections?" in server.requests[1].target


async def test_too_many_channels_are_not_looked_at(settings: dict[str, str], tmp_path: Path) -> None:
    rooms = http(200, json.dumps({"channels": {f"presence-{number}": {} for number in range(101)}}))
    async with ScriptedHTTPServer(rooms, FAILED, rooms) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("terminate", "ann", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 4
            assert "is not known whether" in command.err.text
        assert len(server.requests) == 3


def test_what_goes_wrong(reverb_server: ReverbServer) -> None:
    fails("terminate", "ann", "--port", "1", request_timeout="0.1", code=3, says="cannot connect to")
    fails("terminate", "ann", "--app-id", "none", code=4, says="with 404")
    fails("terminate", "", code=2, says="id of a user must be a non-empty string")
