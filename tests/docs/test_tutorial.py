"""docs/tutorial/: a reader who does what the pages say sees what they show."""

from __future__ import annotations

import difflib
import shlex
from importlib.metadata import metadata
from itertools import pairwise
from pathlib import Path

import pytest

from reverb import ReverbConfig
from reverb.server import ReverbServer
from tests.cli.in_process import answer
from tests.cli.processes import reverb as run_module
from tests.docs.pages import Block, Page, variables
from tests.docs.terminals import Reader, Terminal, pattern
from tests.integration.servers import Target

INDEX = Page("docs/tutorial/index.md")
LISTEN = Page("docs/tutorial/listen.md")
PRIVATE = Page("docs/tutorial/private.md")
PRESENCE = Page("docs/tutorial/presence.md")
CLIENT_EVENTS = Page("docs/tutorial/client-events.md")
PUBLISH = Page("docs/tutorial/publish.md")
SERVICE = Page("docs/tutorial/service.md")
PAGES = (INDEX, LISTEN, PRIVATE, PRESENCE, CLIENT_EVENTS, PUBLISH, SERVICE)
BLOCKS = {page: page.every_block() for page in PAGES}
BOARDS = [BLOCKS[page]["The program"] for page in PAGES if page not in (INDEX, PUBLISH)]


def name_of(value: object) -> str:
    path = getattr(value, "path", None)
    return path.stem if isinstance(path, Path) else str(value)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_tested(page: Page) -> None:
    page.check_that_all_is_tested()


def lines_of(block: Block) -> set[int]:
    """The numbers of the lines that the page shows as new."""
    found: set[int] = set()
    for each in block.options.get("hl_lines", "").split():
        first, _, last = each.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize(("before", "after"), list(pairwise(BOARDS)), ids=name_of)
def test_new_lines_are_highlighted(before: Block, after: Block) -> None:
    old, new = before.text.splitlines(), after.text.splitlines()
    changes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    added = {line + 1 for kind, _, _, first, last in changes if kind != "equal" for line in range(first, last)}
    blank = {number for number, line in enumerate(new, 1) if not line}
    assert lines_of(after) - blank == added - blank


@pytest.mark.parametrize("system", ["Set up", "Set up 2"])
def test_the_commands_of_the_setup(system: str) -> None:
    directory, enter, venv, activate, install = BLOCKS[INDEX][system].text.splitlines()
    assert (directory, enter) == ("mkdir workshop", "cd workshop")
    assert venv.split()[1:] == ["-m", "venv", ".venv"]
    assert activate in ("source .venv/bin/activate", r".venv\Scripts\activate")
    assert install == 'pip install "python-reverb[cli]"'
    assert "cli" in (metadata("python-reverb").get_all("Provides-Extra") or ())


async def test_listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the server and the settings of the page before."""
    monkeypatch.chdir(tmp_path)
    settings, start = (BLOCKS[INDEX][name] for name in ("Set up 3", "Start a server"))
    command, *shown = start.text.splitlines()
    async with run_module(*command.split()[2:], "--port", "0", cwd=tmp_path) as server:
        port = int((await server.err.expect(r"127\.0\.0\.1:(\d+)"))[1])
        async with Reader(tmp_path, port, {}) as reader:
            reader.terminals[start.options["title"]] = Terminal(server)
            await reader.do(settings)
            assert ReverbConfig.from_env().port == port
            for block in BLOCKS[LISTEN].values():
                await reader.do(block)
            await reader.press_ctrl_c("Terminal 2")
        await server.err.expect(pattern(shown[0], port))


@pytest.mark.parametrize("page", [PRIVATE, PRESENCE, CLIENT_EVENTS, PUBLISH], ids=name_of)
async def test_the_pages_between(page: Page, server: ReverbServer, target: Target, tmp_path: Path) -> None:
    async with Reader(tmp_path, server.port, variables(target)) as reader:
        await reader.do(BLOCKS[CLIENT_EVENTS]["The program"])  # which the front desk sends to
        for block in BLOCKS[page].values():
            await reader.do(block)
        await reader.press_ctrl_c("Terminal 2")


async def test_the_service(server: ReverbServer, target: Target, tmp_path: Path) -> None:
    program, run, back, refused, unit = BLOCKS[SERVICE].values()
    async with Reader(tmp_path, server.port, variables(target)) as reader:
        await reader.do(program)
        await reader.do(run)
        await server.restart()
        await reader.do(back)
        await reader.press_ctrl_c("Terminal 2")
        await server.stop()
        await reader.do(refused)
    print_unit, tee, enable, follow = unit.text.replace("\\\n", "\n").splitlines()
    _, *arguments = shlex.split(print_unit.replace("$PWD", str(tmp_path)))
    name = arguments[arguments.index("--name") + 1]
    assert f"ExecStart={tmp_path}/.venv/bin/python board.py ann\n" in answer(*arguments)
    assert tee.split() == ["|", "sudo", "tee", f"/etc/systemd/system/{name}.service"]
    assert enable == f"sudo systemctl enable --now {name}"
    assert follow == f"sudo journalctl --unit {name} --follow"
