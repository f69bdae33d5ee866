"""docs/explanation/security.md: its code runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from reverb import ConnectionError, ReverbClient
from reverb.server import ReverbServer
from tests.certificates import make_certificates
from tests.docs.pages import Block, Fragment, Page

PAGE = Page("docs/explanation/security.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("TLS and certificates")
async def test_an_authority_of_our_own(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = make_certificates(tmp_path)
    monkeypatch.chdir(tmp_path)
    async with ReverbServer(ssl_context=certificates.server) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConnectionError, match="certificate is not trusted"):
            await ReverbClient().connect()
        fragment = Fragment(block)
        await fragment.run()
        async with fragment.names["client"] as client:
            assert client.is_connected
