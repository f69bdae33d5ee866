"""docs/guides/troubleshooting.md: its steps, settings and examples are those of the command."""

from __future__ import annotations

import json
import re

from typer.testing import CliRunner

from reverb import ReverbConfig, _failures
from reverb._settings import variables_of
from reverb.cli.app import app
from reverb.cli.serve import ServerSettings
from reverb.server import ReverbServer
from tests.cli.test_doctor import ALL
from tests.docs.pages import Page

TEXT = Page("docs/guides/troubleshooting.md").text


def test_the_table_of_steps() -> None:
    table, *_ = re.findall(r"(?:^\|.*\n)+", TEXT, re.M)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["settings", *ALL]


def test_the_settings_are_there() -> None:
    known = variables_of(ReverbConfig).keys() | variables_of(ServerSettings).keys()
    assert set(re.findall(r"REVERB_[A-Z_]+", TEXT)) <= known


def test_the_line_of_json() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", TEXT, re.M | re.S)
    written = json.loads(block)
    with ReverbServer() as server:
        result = CliRunner().invoke(app, ["doctor", "--json", "--key", "nope"], env=server.env)
    lines = {line["step"]: line for line in map(json.loads, result.output.splitlines())}
    seen = lines[written["step"]]
    assert seen.keys() == written.keys()
    assert (seen["ok"], seen["detail"]) == (written["ok"], written["detail"])
    start = written["causes"][0].removesuffix("…")
    assert any(cause.startswith(start) for cause in seen["causes"])
    assert "settings" in lines["settings"]


def test_the_doctor_asks_for_what_the_nginx_configuration_has() -> None:
    (block,) = re.findall(r"^```nginx\n(.*?)^```", TEXT, re.M | re.S)
    directives = [line.strip() for line in block.splitlines()]
    for directive in re.findall(r"proxy_(?:http_version|set_header) [^;]+;", _failures.UPGRADE_HEADERS):
        assert directive in directives
