"""The terminals of a reader, who does what a page of the tutorial says.

A block's title names a file, or the terminal that shows the block. A line that begins with ``$`` is a command,
``^C`` stands for Ctrl-C, and ``…`` for output that the page leaves out. Ports, times, and the server's names for
connections differ from those on the page.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.cli.in_process import invoke
from tests.cli.processes import Command
from tests.cli.processes import reverb as run_module
from tests.docs.pages import Block

LEFT_OUT = "…"


@dataclass
class Terminal:
    command: Command
    last: re.Match[str] | None = None
    """The last line of the page that was found in the output."""
    lines: int = 0
    is_whole: bool = True
    """Whether the page shows all lines so far."""

    async def see(self, line: str, port: int) -> None:
        if line == LEFT_OUT:
            self.is_whole = False
        else:
            self.last = await self.command.out.expect(pattern(line, port), after=self.last)
            self.lines += 1

    async def exit_code(self) -> int:
        code = await self.command.exit_code()
        printed = self.command.out.text.replace("^C", "").splitlines()
        assert not self.is_whole or len(list(filter(None, printed))) == self.lines, (
            "the page does not show all lines"
        )
        return code


def pattern(line: str, port: int) -> str:
    """Turn a line on a page into the pattern of what a program prints."""
    text = re.escape(line.replace(":8080", f":{port}").replace("port 8080", f"port {port}"))
    text = re.sub(r"\d{9,}\\\.\d{9,}", r"[0-9.]+", text)
    text = re.sub(r"^\d\d:\d\d:\d\d", r"[0-9:]{8}", text)
    text = re.sub(r"\\ {2,}", r" +", text) if line[:2].isdigit() else text
    text = re.sub(r"\d+\\ seconds", r"[0-9]+\\ seconds", text)
    return f"^{text.replace(LEFT_OUT, '.*')}$"


class Reader(AsyncExitStack):
    """Does what blocks say, with files in a directory and a server on a port."""

    def __init__(self, directory: Path, port: int, env: Mapping[str, str]) -> None:
        super().__init__()
        self.terminals: dict[str, Terminal] = {}
        self._directory = directory
        self._port = port
        self._env = env

    async def do(self, block: Block) -> None:
        title = block.options["title"]
        if block.language in ("python", "ini"):
            (self._directory / title).write_text(block.text.replace("=8080", f"={self._port}"), encoding="utf-8")
        elif block.language == "text":
            await self.see(title, block.text.splitlines())
        else:
            assert block.language == "console"
            for text in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
                command, *output = text.splitlines()
                await self.enter(title, command, output)

    async def enter(self, title: str, command: str, output: list[str]) -> None:
        """Enter a command, and see what the page shows of its output."""
        words = shlex.split(command)
        variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
        match words[len(variables) :]:
            case ["python", program, *arguments]:
                running = run_module(
                    *arguments,
                    module=program.removesuffix(".py"),
                    env={**self._env, **variables},
                    cwd=self._directory,
                    terminal=True,
                )
                self.terminals[title] = Terminal(await self.enter_async_context(running))
                await self.see(title, output)
            case ["reverb", *arguments]:
                done = await asyncio.to_thread(invoke, *arguments)
                assert (done.exit_code, done.output.splitlines()) == (0, output)
            case ["echo", "$?"]:
                (code,) = output
                assert await self.terminals[title].exit_code() == int(code)
            case _:
                raise AssertionError(f"nothing is known of the command {command!r}")

    async def see(self, title: str, lines: list[str]) -> None:
        for line in lines:
            if line == "^C":
                await self.press_ctrl_c(title)
            else:
                await self.terminals[title].see(line, self._port)

    async def press_ctrl_c(self, title: str) -> None:
        self.terminals[title].command.press_ctrl_c()
        assert await self.terminals[title].exit_code() == 0
