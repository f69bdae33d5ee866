"""Commands that run for events: what they are told, in which order, and how they end.

They run on asyncio's own loop, as the command line does.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from reverb import ReverbConfig
from reverb._settings import variables_of
from reverb.cli.commands import VARIABLES, Commands
from reverb.cli.serve import ServerSettings
from tests.loops import only_asyncio
from tests.watching import until


class Told(list[str]):
    def __call__(self, message: str, style: str) -> None:
        self.append(message)


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ({"name": "Zoë"}, '{"name": "Zoë"}\n'),
        ("just text", "just text\n"),
        (7, "7\n"),
        ("\ud800", "\\ud800\n"),
        ({"much": "x" * 200_000}, '{"much": "' + "x" * 200_000 + '"}\n'),
        (None, ""),
        ({"a": [float("-inf"), 1.5]}, '{"a": [null, 1.5]}\n'),
    ],
    ids=["object", "text", "number", "surrogate", "much", "nothing", "out-of-range"],
)
@only_asyncio
async def test_the_payload(data: Any, payload: str, tmp_path: Path) -> None:
    async with Commands(f"cat > {tmp_path}/payload", _unexpected) as commands:
        await commands.put("e", data, "news", None)
    assert (tmp_path / "payload").read_text(encoding="utf-8") == payload


@only_asyncio
async def test_the_variables(tmp_path: Path) -> None:
    run = f'printf "%s|" "$REVERB_CHANNEL" "$REVERB_EVENT" "$REVERB_USER_ID" >> {tmp_path}/log'
    async with Commands(run, _unexpected) as commands:
        await commands.put("a\n$(id)", {}, "news", "7")
        await commands.put("\0\ud800", {}, "news", None)
    assert (tmp_path / "log").read_text() == "news|a\n$(id)|7|news|\\x00\\ud800||"


def test_the_variables_are_no_settings() -> None:
    """What a command is told of an event must not change what ``reverb`` does when the command calls it."""
    for settings in (ReverbConfig, ServerSettings):
        assert variables_of(settings).keys().isdisjoint(VARIABLES)


@only_asyncio
async def test_one_after_another(tmp_path: Path) -> None:
    run = f'echo "begin $REVERB_EVENT" >> {tmp_path}/log; sleep 0.01; echo "end $REVERB_EVENT" >> {tmp_path}/log'
    async with Commands(run, _unexpected) as commands:
        for number in range(5):
            await commands.put(str(number), {}, f"channel-{number % 2}", None)
    expected = [f"{what} {number}" for number in range(5) for what in ("begin", "end")]
    assert (tmp_path / "log").read_text().splitlines() == expected


@only_asyncio
async def test_failing_is_told() -> None:
    told = Told()
    async with Commands(
        "case $REVERB_EVENT in a) exit 3;; b) kill -KILL $$;; c) no-such-command;; esac", told
    ) as commands:
        for event in "abcd":
            await commands.put(event, {"is": "never read"}, "news", None)
    assert commands.failures == 3
    assert told == [
        "the command failed with exit code 3 for a on news",
        "the command was ended by SIGKILL for b on news",
        "the command failed with exit code 127 for c on news",
    ]


@only_asyncio
async def test_one_that_cannot_be_run_is_told_and_the_next_one_runs(tmp_path: Path) -> None:
    told = Told()
    async with Commands(f"cat > {tmp_path}/payload", told) as commands:
        await commands.put("x" * 1_000_000, {}, "news", None)
        await commands.put("e", 7, "news", None)
    assert commands.failures == len(told) == 1
    assert told[0].startswith("the command could not start (Argument list too long) for xxx")
    assert (tmp_path / "payload").read_text() == "7\n"


@pytest.mark.parametrize("stubborn", [False, True])
@only_asyncio
async def test_cancelling_ends_the_present_one_and_what_it_started(
    stubborn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reverb.cli.commands._GRACE", 0.1)
    ignore = "trap '' TERM; " if stubborn else ""
    run = f"({ignore}exec sleep 60) & echo $! > new; mv new pid; wait; echo > late"
    monkeypatch.chdir(tmp_path)
    inside = asyncio.Event()

    async def listen() -> None:
        async with Commands(run, _unexpected) as commands:
            for event in ("first", "second"):
                await commands.put(event, {}, "news", None)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(listen())
    await asyncio.wait_for(inside.wait(), 15)
    await until((tmp_path / "pid").exists, 15)
    pid = int((tmp_path / "pid").read_text())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not _is_running(pid), 15)
    assert not (tmp_path / "late").exists()


@only_asyncio
async def test_cancelling_while_one_is_being_started() -> None:
    sleep = ["sleep", f"9{os.getpid()}"]
    for turns in range(1, 30):
        task = asyncio.create_task(_run(f"{' '.join(sleep)} & wait"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: sleep not in [each.info["cmdline"] for each in psutil.process_iter(["cmdline"])], 15)


async def _run(command: str) -> None:
    async with Commands(command, _unexpected) as commands:
        await commands.put("e", {}, "news", None)
        await asyncio.Event().wait()


def _unexpected(message: str, style: str) -> None:
    pytest.fail(message)


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # dead, and nobody has asked yet
