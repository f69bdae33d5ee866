"""The command itself: version, help, wrong usage, a missing extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import reverb as package
from tests.cli.processes import reverb


async def test_version(tmp_path: Path) -> None:
    async with reverb("--version", cwd=tmp_path) as command:
        assert await command.exit_code() == 0
        assert command.out.text == f"python-reverb {package.__version__}\n"
        assert command.err.text == ""


def test_the_installed_script_is_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("reverb")
    done = subprocess.run(
        [script, "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=15, check=True
    )
    assert done.stdout == f"python-reverb {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--help"], ["demo", "listen", "publish", "--version"]),
        (["demo", "--help"], ["Exit codes", "130"]),
        (
            ["listen", "--help"],
            ["Exit codes", "REVERB_APP_SECRET", "--presence-user", "--json", "--path"],
        ),
        (
            ["publish", "--help"],
            ["CHANNEL... EVENT [DATA|-]", "Exit codes", "REVERB_APP_SECRET", "--file", "--json", "--app-id"],
        ),
    ],
)
async def test_help(arguments: list[str], wanted: list[str], tmp_path: Path) -> None:
    async with reverb(*arguments, cwd=tmp_path) as command:
        assert await command.exit_code() == 0
        for text in wanted:
            assert text in command.out.text


async def test_there_is_no_option_for_the_secret(tmp_path: Path) -> None:
    async with reverb("listen", "--secret", "s3cret", "news", cwd=tmp_path) as command:
        assert await command.exit_code() == 2
        assert "--secret" in command.err.text


@pytest.mark.parametrize("arguments", [["listen"], ["listne"], ["listen", "--port", "abc", "news"]])
async def test_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    async with reverb(*arguments, cwd=tmp_path) as command:
        assert await command.exit_code() == 2
        assert "Usage: reverb" in command.err.text
        assert "Traceback" not in command.err.text
        assert command.out.text == ""


@pytest.mark.parametrize(("missing", "arguments"), [("typer", []), ("rich", []), ("aiohttp", ["demo"])])
def test_names_the_extra_that_is_missing(missing: str, arguments: list[str], tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments!r}; "
        "from reverb.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=15
    )
    assert done.returncode == 2
    assert done.stderr == (
        f'reverb: the command line needs {missing}, which is not installed: pip install "python-reverb[cli]"\n'
    )
    assert done.stdout == ""
