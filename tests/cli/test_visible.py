"""What others wrote is shown, and does nothing: neither to a terminal, nor to who reads lines or JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.processes import reverb
from tests.scripted import Peer, ScriptedServer
from tests.scripted_http import ScriptedHTTPServer
from tests.scripted_http import answer as http

EVIL = {
    "\x1b]0;title\x07\x1b[2J": r"\x1b]0;title\x07\x1b[2J",
    "[bold red]a[/] [link=x]b[/link] [/]": "[bold red]a[/] [link=x]b[/link] [/]",
    ":smile: \\[x]": ":smile: \\[x]",
    "a\nreverb: forged\r": r"a\nreverb: forged\r",
    "a\x0bb\x85c\u2028d": r"a\x0bb\x85c\u2028d",
    "\u202eabc\u2066d\u2069": r"\u202eabc\u2066d\u2069",
    "\x9b2J": r"\x9b2J",
}
"""What others wrote, and how it is shown."""

terminal_or_pipe = pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])


def check(output: str) -> str:
    """Return what is shown; nothing but our own colours, cursor and line breaks may steer the terminal."""
    plain = re.sub(r"\x1b\[(?:[0-9;]*[mKA]|\?25[lh])|[\r\n]", "", output)
    steering = re.findall(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", plain)
    assert not steering, (steering, output)
    assert not any(line.startswith("reverb: forged") for line in output.splitlines())
    return plain


@terminal_or_pipe
async def test_events_channels_and_errors(terminal: bool, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        for text in EVIL:
            await peer.send("pusher:error", json.dumps({"code": 4200, "message": text}))
            await peer.send(text, json.dumps({text: text}), text)
            await peer.send(text, json.dumps({text: text}), "news", user_id=text)
        await peer.send("end", "{}", "news")
        await peer.wait_closed()

    async with ScriptedServer(script) as server:
        env = {"REVERB_HOST": server.host, "REVERB_PORT": str(server.port), "REVERB_SCHEME": "ws"}
        env["REVERB_APP_KEY"] = "app-key"
        arguments = ["listen", "news", "--event", "end", "--event", "*", "--count", str(len(EVIL) + 1)]
        async with reverb(*arguments, env=env, cwd=tmp_path, terminal=terminal, width=400) as command:
            assert await command.exit_code() == 0
        shown = check(command.out.text)
        assert all(text in shown for text in EVIL.values())
        check(command.err.text)

        async with reverb(*arguments, "--json", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 0
        _, *events, _ = map(json.loads, command.out.text.splitlines())
        assert [event["event"] for event in events] == list(EVIL)
        assert [event["data"] for event in events] == [{text: text} for text in EVIL]
        check(command.out.text)


@terminal_or_pipe
async def test_answers_of_the_http_api(terminal: bool, settings: dict[str, str], tmp_path: Path) -> None:
    channels = http(200, json.dumps({"channels": {text: {} for text in EVIL}}))
    users = http(200, json.dumps({"users": [{"id": text} for text in EVIL]}))
    for arguments, answer in ((["channels"], channels), (["users", "presence-a"], users)):
        async with ScriptedHTTPServer(answer) as server:
            env = {**settings, "REVERB_PORT": str(server.port)}
            async with reverb(*arguments, env=env, cwd=tmp_path, terminal=terminal, width=400) as command:
                assert await command.exit_code() == 0
            shown = check(command.out.text)
            assert all(text in shown for text in EVIL.values())
            async with reverb(*arguments, "--json", env=env, cwd=tmp_path) as command:
                assert await command.exit_code() == 0
            check(command.out.text)
            objects = map(json.loads, command.out.text.splitlines())
            assert {each.get("channel") or each["user_id"] for each in objects} == set(EVIL)


@terminal_or_pipe
async def test_errors_of_the_http_api(terminal: bool, settings: dict[str, str], tmp_path: Path) -> None:
    async with ScriptedHTTPServer(http(400, json.dumps({"error": "".join(EVIL)}))) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        async with reverb("connections", env=env, cwd=tmp_path, terminal=terminal, width=400) as command:
            assert await command.exit_code() == 4
        check(command.err.text)
        lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", command.err.text).splitlines()
        assert len([line for line in lines if line and "waiting for" not in line]) == 1  # it may have had to wait


@terminal_or_pipe
async def test_the_doctor(terminal: bool, settings: dict[str, str], tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_request()
        head = "HTTP/1.1 502 x\r\nServer: a\x1b[2J\x85b\x0bc\r\n\r\n<title>\x1b]0;t\x07\u2028[/]\u202ex</title>"
        await peer.send_raw(head.encode())

    async with ScriptedServer(script) as server:
        env = {**settings, "REVERB_PORT": str(server.port)}
        channels = [text for text in EVIL if "\n" not in text]
        async with reverb("doctor", *channels, env=env, cwd=tmp_path, terminal=terminal, width=400) as command:
            assert await command.exit_code() == 3
        shown = check(command.out.text)
        assert r"by a\x1b[2J" in shown
        async with reverb("doctor", *channels, "--json", env=env, cwd=tmp_path) as command:
            assert await command.exit_code() == 3
        assert len([json.loads(line) for line in command.out.text.splitlines()]) > len(channels)
