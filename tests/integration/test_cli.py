"""The commands that talk to a server, as processes, against each server there is."""

from __future__ import annotations

import json
from pathlib import Path

from reverb import ReverbClient
from tests.cli.processes import reverb
from tests.integration.servers import Target


def variables(server: Target) -> dict[str, str]:
    return {f"REVERB_{name.upper()}": str(value) for name, value in server.settings.items()}


async def run(*arguments: str, server: Target, cwd: Path, code: int = 0) -> str:
    """Run a command to its end; return the one output that it has, for programs or about what went wrong."""
    async with reverb(*arguments, env=variables(server), cwd=cwd) as command:
        assert await command.exit_code() == code, command.err.text
        out = await command.out.end()
        assert (out == "") == (code != 0)
        assert (command.err.text == "") == (code == 0)
        return out or command.err.text


async def test_listen_publish_and_trigger(server: Target, tmp_path: Path) -> None:
    told = ("--json", "--count", "2", "--exec", "cat >> payloads")
    async with reverb("listen", "private-cli.1", *told, env=variables(server), cwd=tmp_path) as command:
        await command.err.expect(r"subscribed to private-cli\.1$")
        await run("publish", "private-cli.1", "first", '{"n": 1}', server=server, cwd=tmp_path)
        await command.out.expect("first")
        await run("trigger", "private-cli.1", "second", '{"n": 2}', server=server, cwd=tmp_path)
        assert await command.exit_code() == 0, command.err.text
        events = [json.loads(line) for line in command.out.text.splitlines()]
        assert [(each["event"], each["data"]) for each in events[1:]] == [
            ("first", {"n": 1}),
            ("client-second", {"n": 2}),
        ]
        assert (tmp_path / "payloads").read_text() == '{"n": 1}\n{"n": 2}\n'


async def test_questions(server: Target, tmp_path: Path) -> None:
    async with ReverbClient(**server.settings) as client:
        await client.subscribe("presence-cli.1", {"user_id": "ann", "user_info": {}})
        arguments = ("channels", "--prefix", "presence-cli.", "--json")
        (line,) = (await run(*arguments, server=server, cwd=tmp_path)).splitlines()
        assert json.loads(line)["channel"] == "presence-cli.1"
        assert await run("users", "presence-cli.1", server=server, cwd=tmp_path) == "User\nann\n"
        answer = json.loads(await run("channel", "presence-cli.1", "--json", server=server, cwd=tmp_path))
        assert (answer["occupied"], answer["user_count"]) == (True, 1)
        await run("terminate", "nobody-has-this-id", server=server, cwd=tmp_path)


async def test_refusals(server: Target, tmp_path: Path) -> None:
    says = await run("listen", "news", "--key", "wrong", server=server, cwd=tmp_path, code=3)
    assert "REVERB_APP_KEY" in says
    says = await run("channels", "--app-id", "none", server=server, cwd=tmp_path, code=4)
    assert says.count("\n") == 1


async def test_client_events_that_are_not_allowed(soketi: Target, tmp_path: Path) -> None:
    says = await run("trigger", "private-a", "e", server=soketi.app("noc"), cwd=tmp_path, code=4)
    assert says.count("\n") == 1
    assert "4301" in says


async def test_what_soketi_does_not_tell(soketi: Target, tmp_path: Path) -> None:
    says = await run("connections", server=soketi, cwd=tmp_path, code=4)
    assert "some servers do not support this request" in says
