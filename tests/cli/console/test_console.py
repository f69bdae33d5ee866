"""``reverb console`` as a process: its options, its address, how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import sys
from importlib.resources import files
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import psutil
import pytest
from aiohttp import ClientSession, CookieJar, TCPConnector

from reverb.server import ReverbServer
from tests.certificates import make_certificates
from tests.cli.console.visitors import DEADLINE
from tests.cli.in_process import fails, invoke
from tests.cli.processes import Command, reverb

ADDRESS = r"^(http://127\.0\.0\.1:\d+)/#(.+)$"


async def open_page(url: str, token: str) -> ClientSession:
    session = ClientSession(cookie_jar=CookieJar(unsafe=True))
    async with session.post(f"{url}/session", json={"token": token}, headers={"Origin": url}) as response:
        assert response.status == 204
    return session


# --- usage -----------------------------------------------------------------------------------------------------


def test_without_a_server_it_names_the_demonstration() -> None:
    result = invoke("console", "--no-open")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "REVERB_HOST is missing" in result.stderr
    assert "To try the console without a server: reverb console --demo" in result.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_what_others_reach_needs_expose(host: str, settings: dict[str, str]) -> None:
    fails("console", "--host", host, "--no-open", code=2, says="If you want that, add --expose")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prefix", "x"], "--prefix and --exclude need --all"),
        (["--exclude", "x"], "--prefix and --exclude need --all"),
        (["--demo", "--server-host", "example.com"], "--demo has its own server"),
        (["--demo", "--key", "k"], "--demo has its own server"),
        (["--demo", "--tls-key", "x"], "--tls-key needs --tls-cert"),
        (["--demo", "--tls-cert", "missing.pem"], "--tls-cert or --tls-key: "),
    ],
)
def test_options_that_do_not_go(arguments: list[str], says: str) -> None:
    fails("console", "--no-open", *arguments, code=2, says=says)


async def test_a_port_that_is_taken(embedded: ReverbServer, tmp_path: Path) -> None:
    async with reverb("console", "--demo", "--port", str(embedded.port), "--no-open", cwd=tmp_path) as command:
        assert await command.exit_code() == 2
        assert f"can't listen on 127.0.0.1, port {embedded.port}" in command.err.text


# --- where it listens ------------------------------------------------------------------------------------------


def listening(command: Command) -> set[tuple[str, int]]:
    return {each.laddr for each in psutil.Process(command.pid).net_connections() if each.status == "LISTEN"}


async def test_it_listens_on_this_machine_only(settings: dict[str, str], tmp_path: Path) -> None:
    async with reverb("console", "--no-open", env=settings, cwd=tmp_path) as command:
        address = urlsplit((await command.out.expect(ADDRESS))[1])
        assert listening(command) == {("127.0.0.1", address.port)}


async def test_the_demonstration_does_so_too(tmp_path: Path) -> None:
    async with reverb("console", "--demo", "--no-open", cwd=tmp_path) as command:
        await command.out.expect(ADDRESS)
        assert {host for host, _ in listening(command)} == {"127.0.0.1"}


async def test_exposed_without_tls_it_warns(settings: dict[str, str], tmp_path: Path) -> None:
    options = ("--host", "0.0.0.0", "--expose", "--no-open")
    async with reverb("console", *options, env=settings, cwd=tmp_path) as command:
        await command.out.expect(rf"^http://{re.escape(socket.gethostname())}:\d+/#.+$")
        await command.err.expect("warning: without TLS")


async def test_exposed_with_tls(settings: dict[str, str], tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    files = ("--tls-cert", str(made.certificate_file), "--tls-key", str(made.key_file))
    options = ("--host", "0.0.0.0", "--expose", "--no-open", *files)
    async with reverb("console", *options, env=settings, cwd=tmp_path) as command:
        port, token = (await command.out.expect(r"^https://.+:(\d+)/#(.+)$")).groups()
        await command.err.expect("open this address in a browser")
        assert "warning" not in command.err.text
        url = f"https://127.0.0.1:{port}"
        async with (
            ClientSession(connector=TCPConnector(ssl=made.client)) as session,
            session.post(f"{url}/session", json={"token": token}, headers={"Origin": url}) as response,
        ):
            assert response.status == 204
            assert "; Secure" in response.headers["Set-Cookie"]


async def test_expose_alone_changes_nothing_and_each_start_has_another_token(
    settings: dict[str, str], tmp_path: Path
) -> None:
    tokens = set()
    for options in ([], ["--expose"]):
        async with reverb("console", "--no-open", *options, env=settings, cwd=tmp_path) as command:
            tokens.add((await command.out.expect(ADDRESS))[2])
            await command.err.expect("open this address in a browser")
            assert "warning" not in command.err.text
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)


# --- its life --------------------------------------------------------------------------------------------------


async def test_an_event_from_the_demonstration(tmp_path: Path) -> None:
    async with reverb("console", "--demo", "--all", "--no-open", cwd=tmp_path) as command:
        url, token = (await command.out.expect(ADDRESS)).groups()
        session = await open_page(url, token)
        async with session, session.ws_connect(f"{url}/ws", headers={"Origin": url}) as page:
            names: set[str] = set()
            hello = await page.receive_json()
            assert hello["is_demo"] is True
            while len(names) < 3:
                frame = await asyncio.wait_for(page.receive_json(), DEADLINE)
                names |= {each["event"] for each in frame.get("events", ())}
            assert r"App\Events\OrderPlaced" in names
        command.send_signal(signal.SIGINT)
        assert await command.exit_code() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_at_once_though_pages_are_open(
    settings: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    async with reverb("console", "--no-open", env=settings, cwd=tmp_path) as command:
        url, token = (await command.out.expect(ADDRESS)).groups()
        session = await open_page(url, token)
        async with session, session.ws_connect(f"{url}/ws", headers={"Origin": url}) as page:
            assert (await page.receive_json())["type"] == "hello"
            began = monotonic()
            command.send_signal(number)
            assert await command.exit_code() == 0
            assert monotonic() - began < 5
        assert "Traceback" not in command.err.text
        assert "rror" not in command.err.text


async def test_an_output_that_nobody_reads(settings: dict[str, str], tmp_path: Path) -> None:
    async with reverb("console", "--no-open", env=settings, cwd=tmp_path, is_read=False) as command:
        assert await command.exit_code() == 0
        assert command.err.text == ""


# --- the browser -----------------------------------------------------------------------------------------------


_BROWSER = """
import os, sys, time
from pathlib import Path
parent = os.getppid()
Path(sys.argv[1]).write_text(sys.argv[2])
while parent == os.getppid():
    time.sleep(0.02)
"""


def browser(tmp_path: Path) -> tuple[str, Path]:
    """A browser that writes down what it is to open, and ends behind the console."""
    program, opened = tmp_path / "browser.py", tmp_path / "opened"
    program.write_text(_BROWSER)
    return f"{shlex.quote(sys.executable)} {program} {opened} %s", opened


async def test_it_is_opened_with_a_token_that_works_once(settings: dict[str, str], tmp_path: Path) -> None:
    """Others on this machine can read the command line of a browser."""
    program, opened = browser(tmp_path)
    async with reverb("console", env={**settings, "BROWSER": program}, cwd=tmp_path) as command:
        url, token = (await command.out.expect(ADDRESS)).groups()
        give_up_at = monotonic() + DEADLINE
        while not opened.exists() or not opened.read_text():
            assert monotonic() < give_up_at, "no browser was opened"
            await asyncio.sleep(0.02)
        found = re.fullmatch(ADDRESS, opened.read_text())
        assert found is not None
        assert found[1] == url
        assert found[2] != token
        await (await open_page(url, found[2])).close()
        async with (
            ClientSession() as session,
            session.post(f"{url}/session", json={"token": found[2]}, headers={"Origin": url}) as response,
        ):
            assert response.status == 403
        command.send_signal(signal.SIGINT)
        assert await command.exit_code() == 0


async def test_without_a_display_none_is_opened(settings: dict[str, str], tmp_path: Path) -> None:
    """It would be one that takes the terminal."""
    program, opened = tmp_path / "bin" / "www-browser", tmp_path / "opened"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho >{shlex.quote(str(opened))}\n")
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    env |= {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}
    async with reverb("console", env={**settings, **env}, cwd=tmp_path) as command:
        await command.err.expect("open this address in a browser")
        command.send_signal(signal.SIGINT)
        assert await command.exit_code() == 0
    assert not opened.exists()


async def test_no_open(settings: dict[str, str], tmp_path: Path) -> None:
    program, opened = browser(tmp_path)
    env = {**settings, "BROWSER": program}
    async with reverb("console", "--no-open", env=env, cwd=tmp_path) as command:
        url, token = (await command.out.expect(ADDRESS)).groups()
        await command.err.expect("open this address in a browser")
        await (await open_page(url, token)).close()
        command.send_signal(signal.SIGINT)
        assert await command.exit_code() == 0
    assert not opened.exists()


# --- packaging -------------------------------------------------------------------------------------------------


def test_the_page_is_in_the_package() -> None:
    assets = files("reverb.cli.console") / "assets"
    assert {"index.html", "app.js"} <= {each.name for each in assets.iterdir()}
