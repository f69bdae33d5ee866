"""The command itself: version, help, wrong usage, a missing extra."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import reverb as package
from reverb import ReverbConfig
from reverb._settings import variables_of
from reverb.cli.app import COMMANDS, PANELS, load
from reverb.cli.process import ExitCode
from reverb.server import ReverbServer
from tests.cli.in_process import invoke
from tests.cli.processes import reverb
from tests.watching import owned

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
DOCUMENTATION = (REFERENCE / "command-line.md").read_text(encoding="utf-8")
SHARED = {"--host", "--port", "--app-id", "--key", "--scheme", "--path", "--json"}


async def test_version(tmp_path: Path) -> None:
    async with reverb("--version", cwd=tmp_path, forked=False) as command:
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
        (["--help"], ["demo", "listen", "publish", "trigger", "--version", "--install-completion"]),
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
    async with reverb(*arguments, cwd=tmp_path, forked=False) as command:
        assert await command.exit_code() == 0
        for text in wanted:
            assert text in command.out.text


async def test_there_is_no_option_for_the_secret(tmp_path: Path) -> None:
    async with reverb("listen", "--secret", "s3cret", "news", cwd=tmp_path) as command:
        assert await command.exit_code() == 2
        assert "--secret" in command.err.text


@pytest.mark.parametrize("arguments", [["trigger"], ["listne"], ["listen", "--port", "abc", "news"]])
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
        f'reverb: the command line needs {missing}. Install it: pip install "python-reverb[cli]"\n'
    )
    assert done.stdout == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_exit_codes_are_the_same_everywhere(command: str) -> None:
    """What is documented, what each ``--help`` says, and what there is in the code are the same."""
    table = (REFERENCE / "exit-codes.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| (\d+) \| ([^|.]+?) *\|", table, re.MULTILINE)
    assert [int(code) for code, _ in documented] == [*ExitCode, 128 + signal.SIGINT, 128 + signal.SIGTERM]
    told = " ".join(invoke(command, "--help").stdout.split())
    _, _, told = told.rpartition("Exit codes: ")
    meanings = [f"{code} {meaning}" for code, meaning in documented]
    assert told == "; ".join(meanings) + "."


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_help_of_all_says_of_a_command_is_how_its_own_begins(command: str) -> None:
    assert COMMANDS[command] == " ".join((load(command).help or "").partition("\n\n")[0].split())


def test_the_help_of_all_shows_the_commands_in_panels() -> None:
    told = invoke("--help").stdout
    places = [told.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    for (panel, commands), start, end in zip(PANELS.items(), places, [*places[1:], len(told)], strict=True):
        assert re.findall(r"^│ (\w+)", told[start:end], re.MULTILINE) == list(commands), panel


def test_only_the_command_that_runs_is_imported() -> None:
    program = (
        "import sys\nfrom reverb.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('reverb.cli.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, "systemd", "--help"], capture_output=True, text=True)
    assert "'reverb.cli.systemd'" in done.stderr
    assert "'reverb.cli.listen'" not in done.stderr
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True)
    assert done.stderr.strip() == "['reverb.cli.app', 'reverb.cli.process', 'reverb.cli.view']"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    """With the same placeholder for its value as in ``--help``."""
    found = load(command)
    (section,) = re.findall(rf"^## `reverb {command}\b.*?$(.*?)(?=^## |\Z)", DOCUMENTATION, re.M | re.S)
    options = {
        f"{option} {parameter.metavar or ''}".rstrip()
        for parameter in found.params
        for option in parameter.opts
        if option.startswith("--") and option not in SHARED
    }
    assert set(re.findall(r"^\| `(--[^`]+)`", section, re.MULTILINE)) == options


@pytest.mark.parametrize(
    "arguments",
    [
        ["systemd"],
        ["bench", "--count", "1"],
        ["bench", "--count", "1", "--json"],
        ["--version"],
        ["listen", "--help"],
    ],
)
async def test_an_output_that_nobody_reads(arguments: list[str], settings: dict[str, str], tmp_path: Path) -> None:
    """Of the commands that have no such test among their own."""
    async with reverb(*arguments, env=settings, cwd=tmp_path, is_read=False) as command:
        assert await command.exit_code() == 0
        load = f"putting load on 127.0.0.1:{settings['REVERB_PORT']}; press Ctrl-C to stop\n"
        assert command.err.text.replace(load, "") == ""


def test_an_output_that_is_closed(reverb_server: ReverbServer, tmp_path: Path) -> None:
    """``reverb publish … >&-`` publishes; and what goes wrong does not go to the standard output instead."""
    publish = [sys.executable, "-m", "reverb", "publish", "news", "published"]
    script = '"$@" >&-; echo $?; "$@" --port 1 2>&-; echo $?'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *publish], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("0\n3\n", "")


def test_an_input_that_is_closed(reverb_server: ReverbServer, tmp_path: Path) -> None:
    publish = [sys.executable, "-m", "reverb", "publish", "news", "published", "-"]
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *publish], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("reverb: the data is not JSON: .*\n", done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["channels"], ["doctor", "--json"], ["--version"]])
def test_a_disk_that_is_full(arguments: list[str], reverb_server: ReverbServer, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "reverb", *arguments],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=15,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "reverb: can't write the output: No space left on device\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["people", "programs"])
async def test_who_listens_learns_that_the_disk_is_full(
    options: list[str], embedded: ReverbServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "reverb", "listen", "news", *options]
    with open("/dev/full", "w") as full:  # noqa: ASYNC230 - not a file that could block
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, env={**os.environ, **embedded.env}
        )
    async with owned(process):
        await embedded.wait_for_subscription("news", timeout=15)
        await embedded.publish("news", "paid", {})
        _, told = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 1
    assert told.decode().endswith("reverb: can't write the output: No space left on device\n")


def test_the_options_name_their_variables() -> None:
    for option, variable in re.findall(r"^\| `(--[\w-]+) \w+` \| `(REVERB_\w+)` \|", DOCUMENTATION, re.MULTILINE):
        assert option in SHARED
        told = " ".join(invoke("publish", "--help").stdout.split())
        assert re.search(rf"{option}\b(?:(?!--).)*{variable}", told), option
        assert variable in variables_of(ReverbConfig)


@pytest.mark.parametrize(("typed", "offered"), [("reverb tri", ["trigger"]), ("reverb listen --exe", ["--exec"])])
def test_completion_in_bash(typed: str, offered: list[str], tmp_path: Path) -> None:
    """The script that the command prints, run by bash as it is when somebody presses Tab."""
    program = f"""
        eval "$(_REVERB_COMPLETE=source_bash reverb)"
        COMP_WORDS=({typed}) COMP_CWORD={typed.count(" ")} COMP_LINE={typed!r}
        complete -p reverb >/dev/null && _reverb_completion reverb
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")
