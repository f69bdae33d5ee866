"""docs/reference/wire.md: its messages are in the recordings of a real Reverb, its signatures are right."""

from __future__ import annotations

import ast
import asyncio
import json
import re

import pytest

from reverb import ReverbClient, ReverbError, __version__
from reverb.auth import sign_channel
from tests.docs.pages import ROOT, Block, Page

PAGE = Page("docs/reference/wire.md")
JSON = [name for name, block in PAGE.blocks.items() if block.language == "json"]
RECORDINGS = "".join(
    each.read_text(encoding="utf-8") for each in sorted(ROOT.glob("tests/server/transcripts/*.txt"))
)


def recorded() -> set[str]:
    """The messages that clients sent and received, and the bodies of requests and answers."""
    sent = {ast.literal_eval(each) for each in re.findall(r"-> (b'.*')", RECORDINGS)}
    received = set(re.findall(r"(?:<- |TEXT |\| |^|POST \S+ )(\{.*\})$", RECORDINGS, re.M))
    return received | {each.decode("utf-8", "replace") for each in sent}


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Connecting")
async def test_the_url(block: Block) -> None:
    requests = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readline()).decode())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = ReverbClient(host="127.0.0.1", port=port, scheme="ws", app_key="app-key")
        with pytest.raises(ReverbError):
            await client.connect()
    url = f"ws://127.0.0.1:8080{requests[0].split(' ')[1]}\n"
    assert re.sub(r"version=\S+", f"version={__version__}", block.text) == url


@PAGE.block_of(*JSON)
def test_messages(block: Block) -> None:
    messages = recorded()
    for line in block.text.splitlines():
        assert line in messages


def test_the_signatures() -> None:
    checked = 0
    for block in (PAGE.blocks[name] for name in JSON):
        for line in block.text.splitlines():
            data = json.loads(line).get("data")
            if isinstance(data, dict) and "auth" in data:
                # Recorded on connections whose names are in the recording, too.
                socket_ids = set(re.findall(r"\b\d{5,}\.\d{5,}\b", RECORDINGS))
                signatures = {
                    sign_channel("app-key", "app-secret", each, data["channel"], data.get("channel_data"))
                    for each in socket_ids
                }
                assert data["auth"] in signatures, line
                checked += 1
    assert checked == 2


def test_the_statuses() -> None:
    for table in PAGE.tables("HTTP API")[1:]:
        for status, _ in table:
            assert f" {status} " in RECORDINGS
