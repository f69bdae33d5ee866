"""docs/guides/testing.md: its programs and tests run, and its tables are whole."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import reverb.testing
from reverb import AuthenticationError, ReverbClient
from reverb.server import BlockingServer, ReverbServer
from tests.cli.processes import reverb as run_reverb
from tests.docs.pages import Block, Page
from tests.integration.servers import Target

PAGE = Page("docs/guides/testing.md")
TEXT, block_of = PAGE.text, PAGE.block_of
PROGRAMS = {name: block.text for name, block in PAGE.blocks.items() if block.language == "python"}
FILES = {re.match(r"# (\S+\.py)\n", text)[1]: text for text in PROGRAMS.values()}  # type: ignore[index]
PYPROJECT = "A program and its test 3"
block_of(*PROGRAMS, PYPROJECT)  # all tests below are about them


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


# Warnings are errors. Without the setting, pytest-asyncio itself warns.
STRICTLY = ("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
# How people have pytest configured: not at all, as the document says, or strictly.
AUTO = PAGE.blocks[PYPROJECT].text
CONFIGURATIONS = {"nothing": "", "auto": AUTO, "strict": AUTO.replace("auto", "strict")}


def write_files(path: Path, pyproject: str = "") -> int:
    """Write what the document has into an empty directory; return the number of tests."""
    for name, text in FILES.items():
        path.joinpath(name).write_text(text, encoding="utf-8")
    path.joinpath("pyproject.toml").write_text(pyproject, encoding="utf-8")
    return sum(len(re.findall(r"^(?:async )?def test_", text, re.M)) for text in FILES.values())


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_test_runs(pytester: pytest.Pytester, configuration: str) -> None:
    count = write_files(pytester.path, CONFIGURATIONS[configuration])
    assert count == 10
    result = pytester.runpytest_subprocess(*STRICTLY)
    result.assert_outcomes(passed=count)


def test_in_auto_mode_no_mark_is_needed(pytester: pytest.Pytester) -> None:
    count = write_files(pytester.path, AUTO)
    for path in pytester.path.glob("test_*.py"):
        text = re.sub(
            r"^(@pytest\.mark\.asyncio|pytestmark = .*)$", "", path.read_text(encoding="utf-8"), flags=re.M
        )
        path.write_text(text.replace("pytest_asyncio.fixture", "pytest.fixture"), encoding="utf-8")
    pytester.runpytest_subprocess(*STRICTLY).assert_outcomes(passed=count)


@pytest.mark.parametrize("options", [STRICTLY, ("-W", "error", "-p", "no:asyncio")])
def test_with_anyio(pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    """Changed as the document says."""
    count = write_files(pytester.path)
    for path in pytester.path.glob("test_*.py"):
        text = path.read_text(encoding="utf-8").replace("pytest.mark.asyncio", "pytest.mark.anyio")
        text = text.replace("pytest_asyncio.fixture", "pytest.fixture").replace("pytest, pytest_asyncio", "pytest")
        path.write_text(text, encoding="utf-8")
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=count)


def test_the_program_and_its_test_are_short() -> None:
    def lines(name: str) -> int:
        return len([line for line in FILES[name].splitlines()[1:] if line])

    assert lines("shop.py") <= 15
    test = FILES["test_shop.py"].partition("async def ")[2]
    assert len(test.splitlines()) <= 10


@block_of("Wait and assert 2")
async def test_a_failure(block: Block, reverb_server: ReverbServer, reverb_client: ReverbClient) -> None:
    def normalise(text: str) -> str:
        return re.sub(r"\d\d:\d\d:\d\d\.\d+", "TIME", re.sub(r"\d{5,}\.\d{5,}", "ID", text))

    reverb_server.deny("private-orders")
    with pytest.raises(AuthenticationError):
        await reverb_client.subscribe("private-orders")
    with pytest.raises(TimeoutError) as raised:
        await reverb_server.wait_for_subscription("private-orders", timeout=0.01)
    seen = f"TimeoutError: {raised.value}".replace("0.01 seconds", "5 seconds")
    assert normalise(seen).split() == normalise(block.text).split()


def test_the_tables_name_everything() -> None:
    named = set(re.findall(r"\b(\w+)(?=\()", "\n".join(re.findall(r"^\| `.*", TEXT, re.M))))
    named |= set(re.findall(r"`(\w+)`(?=[^|]*\|)", "\n".join(re.findall(r"^\| `.*", TEXT, re.M))))
    public = {name for name in dir(BlockingServer) if not name.startswith("_")}
    assert public <= named
    assert {name for name in dir(ReverbServer) if not name.startswith("_")} - public == {"blocking"}
    assert set(reverb.testing.__all__) <= named


def test_the_signatures() -> None:
    for awaited, name, arguments in re.findall(r"^\| `(await )?(\w+)\(([^)]*)\)`", TEXT, re.M):
        method = getattr(ReverbServer, name)
        assert inspect.iscoroutinefunction(method) == bool(awaited), name
        parameters = list(inspect.signature(method).parameters.values())[1:]
        for parameter, written in zip(parameters, filter(None, arguments.split(", ")), strict=True):
            assert written.partition("=")[0] == parameter.name
            if "=" in written:
                assert written.partition("=")[2] == repr(parameter.default)


@block_of("In a terminal")
async def test_the_output_of_serve(block: Block, tmp_path: Path) -> None:
    async with run_reverb("serve", "--port", "0", cwd=tmp_path) as command:
        port = int((await command.err.expect(r"127\.0\.0\.1:(\d+)"))[1])
        target = Target("serve", "127.0.0.1", port)
        async with ReverbClient(**target.settings) as client:
            orders = await client.subscribe("private-orders")
            await target.publish("private-orders", "App\\Events\\OrderShipped", {"id": 7})
            await orders.trigger("booked", {"id": 7})
            await command.out.expect(r"client-booked +from .*$")
            printed = command.err.text + command.out.text
    normal = [
        re.sub(r"\d+\.\d{4,}", "ID", re.sub(r"^[\d:]+", "TIME", text).replace(f":{port}/", ":8080/"))
        for text in (printed + block.text.partition("\n")[2]).splitlines()
    ]
    half = len(normal) // 2
    assert normal[:half] == normal[half:]
