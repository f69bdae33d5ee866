"""docs/reference/errors.md: the tables and the tree are those of the code, and codes have the effects it names."""

from __future__ import annotations

import builtins
import re

import pytest

import reverb
from reverb import (
    AuthenticationError,
    ConnectionError,
    ConnectionState,
    Events,
    ReverbClient,
)
from reverb.relay import EngineError
from reverb.server import App, ReverbServer
from tests.docs.pages import ROOT, Block, Fragment, Page
from tests.integration.servers import Target
from tests.test_dispatch import Recorder
from tests.watching import until

PAGE = Page("docs/reference/errors.md")
EXCEPTIONS = {name: getattr(reverb, name) for name in reverb.__all__ if name.endswith("Error")}
EXCEPTIONS["EngineError"] = EngineError
CONNECTING, CONNECTED = "When the client connects", "While the client is connected"


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def test_the_table() -> None:
    (table,) = PAGE.tables("Errors")
    assert {row[0].strip("`") for row in table} == EXCEPTIONS.keys() - {"ReverbError"}


@PAGE.block_of("Errors")
def test_the_tree(block: Block) -> None:
    path: list[str] = []
    seen = {}
    for line in block.text.splitlines():
        match = re.fullmatch(r"([│├└─ ]*)(\w+)(?: {2,}(?:also (?:a|Python's) (\w+)|of reverb\.relay))?", line)
        assert match, line
        path[len(match[1]) // 4 :] = [match[2]]
        bases = [EXCEPTIONS[path[-2]]] if len(path) > 1 else [Exception]
        seen[match[2]] = (*bases, *([getattr(builtins, match[3])] if match[3] else []))
    assert seen == {name: class_.__bases__ for name, class_ in EXCEPTIONS.items()}


@PAGE.block_of("Catching exceptions")
async def test_catching(
    block: Block, target: Target, server: ReverbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> str:
        fragment = Fragment(block)
        await fragment.run()
        (printed,) = fragment.printed
        return printed

    monkeypatch.setenv("REVERB_APP_SECRET", "wrong")
    printed = await run()
    assert printed.startswith("not allowed: ")
    assert "private-reports" in printed
    await server.stop()
    assert (await run()).startswith(f"no connection: cannot connect to 127.0.0.1:{target.port}")
    await server.start()
    server.silence()
    monkeypatch.setenv("REVERB_CONNECT_TIMEOUT", "0.2")
    assert (await run()).startswith("no answer: ")


CODES = [
    pytest.param(int(code[:4]) + 2 * (len(code) > 4), later, id=code)
    for code, _, _, later in PAGE.tables(CONNECTING)[0]
]


@pytest.mark.parametrize(("code", "later"), CODES)
async def test_codes_when_the_client_connects(
    code: int, later: str, server: ReverbServer, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    async with ReverbClient() as client:
        server.refuse(code)
        server.drop()
        if later.startswith("The client gives up"):
            with pytest.raises(ConnectionError) as caught:
                await client.listen()
            assert caught.value.code == code
            assert client.state is ConnectionState.FAILED
        else:
            assert later.startswith("The client tries again")
            await until(lambda: f"({code})" in caplog.text)
            server.heal()
            await client.wait_connected(5)
    server.refuse(code)
    with pytest.raises(ConnectionError) as caught:  # the same in all rows
        await ReverbClient().connect()
    assert caught.value.code == code


def test_what_reverb_says() -> None:
    transcripts = "".join(each.read_text(encoding="utf-8") for each in ROOT.glob("tests/server/transcripts/*.txt"))
    for heading in (CONNECTING, CONNECTED):
        for code, text, *_ in PAGE.tables(heading)[0]:
            if text:
                said = rf"{{\"code\":{code},\"message\":\"{text.strip('`')}\"}}"
                assert said in transcripts, text


async def test_codes_while_the_client_is_connected() -> None:
    """Two rows; tests/test_session.py and tests/faults/test_protocol_faults.py have the others."""
    effects = {text.strip("`"): effect for _, text, effect in PAGE.tables(CONNECTED)[0]}
    async with ReverbServer([App(accept_client_events_from="none")]) as server:
        server.deny("private-no")
        async with ReverbClient(**server.settings) as client:
            with pytest.raises(AuthenticationError) as caught:
                await client.subscribe("private-no")
            assert caught.value.code == 4009
            assert "raises `AuthenticationError`" in effects["Connection is unauthorized"]
            errors = Recorder()
            client.bind("error", errors)
            channel = await client.subscribe("private-orders")
            await channel.trigger("seen", {})
            ((event, data, _),) = await errors.wait_for(1)
    assert (event, data["code"]) == (Events.ERROR, 4301)
    assert '"error"` get the error' in effects["The app does not have client messaging enabled."]
