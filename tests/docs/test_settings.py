"""docs/reference/settings.md: its tables are the settings of the code, and its code runs."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path

import pytest

from reverb import ConfigurationError, ReverbClient, ReverbConfig
from reverb._settings import Checked, variables_of
from reverb.cli.app import load
from reverb.cli.relay import RelaySettings
from reverb.cli.serve import ServerSettings
from reverb.server import ReverbServer
from tests.docs.pages import Block, Fragment, Page

PAGE = Page("docs/reference/settings.md")
OPTIONAL = ["Server", "Authorisation and encryption", "Reconnecting and timeouts", "Limits", "Log"]
RELAY, SERVE = "Variables of `reverb relay`", "Variables of `reverb serve`"
TYPES = {
    "str": {"text"},
    "SecretStr": {"text"},
    "int": {"integer", "bytes", "seconds"},
    "float": {"seconds"},
    "bool": {"boolean"},
    "Literal": {"choice"},
}


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


def rows(*headings: str) -> dict[str, list[str]]:
    """The rows of tables, by their variable."""
    tables = itertools.chain.from_iterable(PAGE.tables(heading) for heading in headings)
    return {row[0].strip("`"): row[1:] for table in tables for row in table}


@pytest.mark.parametrize(
    ("settings", "headings", "required"),
    [
        (ReverbConfig(app_key="key", host="host"), OPTIONAL, "Required"),
        (RelaySettings(relay_to="redis://host"), [RELAY], None),
        (ServerSettings(), [SERVE], None),
    ],
    ids=["client", "relay", "serve"],
)
def test_the_tables(settings: Checked, headings: list[str], required: str | None) -> None:
    optional = rows(*headings)
    names = variables_of(type(settings))
    assert optional.keys() | (rows(required).keys() if required else set()) == names.keys()
    for variable, (type_, default, *_) in optional.items():
        value = getattr(settings, names[variable])
        special = {"None": "none", "": "empty", "True": "`true`", "False": "`false`"}
        expected = special.get(str(value), f"`{value}`")
        if variable == "REVERB_LOG_LEVEL":
            expected = "`INFO`"
        elif hasattr(value, "get_secret_value"):
            expected = "required" if variable == "REVERB_RELAY_TO" else f"`{value.get_secret_value()}`"
        assert default == expected, variable
        check_type(type(settings), names[variable], type_)


def test_the_types_of_required_settings() -> None:
    for variable, (type_, _) in rows("Required").items():
        check_type(ReverbConfig, variables_of(ReverbConfig)[variable], type_)


def check_type(class_: type[Checked], name: str, type_: str) -> None:
    (annotation,) = [str(each.type).removesuffix(" | None") for each in fields(class_) if each.name == name]  # type: ignore[arg-type]
    assert type_ in TYPES[annotation.partition("[")[0]], name


async def test_what_is_required(server: ReverbServer) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReverbConfig.from_env()
    missing = {name for name in rows("Required") if name in str(caught.value)}
    assert missing == rows("Required").keys() - {"REVERB_APP_SECRET"}
    async with ReverbClient(app_key="app-key", host=server.host, port=server.port, scheme="ws") as client:
        await client.subscribe("news")
        with pytest.raises(ConfigurationError, match="REVERB_APP_SECRET"):
            await client.subscribe("private-orders")


def test_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("REVERB_APP_KEY=k\nREVERB_HOST=file\nREVERB_PATH=file\n")
    monkeypatch.setenv("REVERB_HOST", "environment")
    monkeypatch.setenv("REVERB_PATH", "")
    assert ReverbConfig.from_env(host="argument").host == "argument"
    config = ReverbConfig.from_env()
    assert (config.host, config.path, config.port) == ("environment", "/file", 443)
    monkeypatch.setenv("REVERB_AUTH_ENDPOINT", "https://example.com/auth")
    assert ReverbConfig.from_env(app_secret="secret").auth_endpoint is None


def test_the_rules_of_the_file() -> None:
    (table,) = PAGE.tables("The file `.env`")
    lines = [line.strip("`") for row in table for line in row[0].split(", ")]
    values = {}
    for line in lines:
        name, _, value = line.partition("=")
        assert name == "NAME"
        Path(".env").write_text(f"OTHER=other\nREVERB_APP_KEY=k\nREVERB_HOST=h\nREVERB_ORIGIN={value}\n")
        try:
            values[value] = ReverbConfig.from_env().origin
        except ConfigurationError as error:  # a line break is no text for a header, and so shows that it is one
            values[value] = str(error)
    line_break = values.pop('"line\\nline"')
    assert line_break
    assert "U+000A" in line_break
    assert values == {
        "s3cret#2024": "s3cret",
        "'s3cret#2024'": "s3cret#2024",
        "${OTHER}": "other",
        "null": None,
        "empty": None,
    }


@PAGE.block_of("Settings as an object")
async def test_settings_as_an_object(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_HOST", "elsewhere.example.com")
    fragment = Fragment(block)
    await fragment.run()
    assert fragment.names["client"].config is fragment.names["config"]
    assert fragment.names["config"].address == "localhost:8080"


def test_what_commands_set() -> None:
    names = {"REVERB_CHANNEL", "REVERB_EVENT", "REVERB_USER_ID"}
    assert all(f"`{name}`" in PAGE.section("Variables that commands set") for name in names)
    (help_text,) = [param.help for param in load("listen").params if "--exec" in param.opts]  # type: ignore[attr-defined]
    assert all(name in help_text for name in names)
