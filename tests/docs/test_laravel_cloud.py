"""docs/guides/laravel-cloud.md: its settings are ours. Nothing else on it can be tried here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reverb import ReverbConfig
from reverb._settings import variables_of
from tests.docs.commands import check_commands
from tests.docs.pages import Block, Page

PAGE = Page("docs/guides/laravel-cloud.md")


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@PAGE.block_of("Settings")
def test_the_settings(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(block.text)
    config = ReverbConfig.from_env()
    assert (config.port, config.scheme) == (443, "wss")
    assert config.host.endswith("-reverb.laravel.cloud")


def test_all_variables_are_known() -> None:
    assert set(re.findall(r"\bREVERB_\w+", PAGE.text)) <= variables_of(ReverbConfig).keys()


def test_the_defaults_that_are_named() -> None:
    config = ReverbConfig(app_key="key", host="host")
    assert f"other than {config.max_message_size:,} bytes" in PAGE.text
    assert f"`REVERB_PING_INTERVAL` ({config.ping_interval:g} seconds)" in PAGE.text


@PAGE.block_of("Settings 2")
def test_the_command(block: Block) -> None:
    check_commands(block)
