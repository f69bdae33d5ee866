"""Records the pictures of the documents: what commands really print, in a terminal, against the embedded server.
The page of ``reverb console`` is in ``console_screens.py``.

    make screens                 # all of them
    make screens ARGS='listen'   # some

A command is a line in ``SCREENS``. It finds a server with an application, and an audience on some of its channels.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import io
import logging
import re
import shlex
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text
from tests.cli.processes import Command, reverb

from reverb import ReverbClient
from reverb.server import ReverbServer

from . import console_screens

HERE = Path(__file__).parents[1] / "docs" / "screens"

Act = Callable[[ReverbServer, Command], Awaitable[None]]


async def to_its_end(server: ReverbServer, command: Command) -> None:
    code = await command.exit_code()
    if code != 0:
        raise SystemExit(f"it ended with exit code {code}:\n{command.out.text}")


async def events_and_an_outage(server: ReverbServer, command: Command) -> None:
    await command.out.expect("subscribed to private-orders.7")
    await server.publish("news", r"App\Events\ArticlePublished", {"id": 12, "title": "Reverb, from Python"})
    await server.publish("private-orders.7", r"App\Events\OrderShipped", {"id": 7, "carrier": "Zoë's Vans"})
    await command.out.expect("Vans")
    await server.restart()
    await command.out.expect("no connection for")
    await server.publish("private-orders.7", r"App\Events\OrderDelivered", {"id": 7, "signed": True})
    await command.out.expect("signed")
    command.press_ctrl_c()
    await to_its_end(server, command)


class Screen(NamedTuple):
    name: str
    """The file is ``screens/NAME.svg``."""
    command: str
    """What comes behind ``reverb``."""
    act: Act = to_its_end
    width: int = 100
    """Of the terminal, in cells."""
    last: str = ""
    """What the last line that is shown begins with; by default all are."""


SCREENS = [
    Screen("demo", "demo", last="Done."),
    Screen("listen", "listen news private-orders.7", events_and_an_outage, width=115),
    Screen("bench", "bench --count 1000", width=80),
    Screen("doctor", "doctor private-orders.7"),
]


async def record(screens: Iterable[Screen], folder: Path, port: int) -> None:
    """Run the commands, and write pictures of what they print. The port is the server's, and is seen in them; 0
    takes a free one."""
    async with ReverbServer(port=port) as server, audience(server):
        for screen in screens:
            with project(server) as directory:
                arguments = shlex.split(screen.command)
                async with reverb(*arguments, cwd=directory, terminal=True, width=screen.width) as command:
                    await screen.act(server, command)
                    output = command.out.text.replace(str(directory), "/srv/shop")
                check_is_anonymous(output, directory)
            picture = folder / f"{screen.name}.svg"
            picture.write_text(draw(screen, output), encoding="utf-8")
            print(f"wrote {picture}")


@contextmanager
def project(server: ReverbServer) -> Iterator[Path]:
    """A directory with the ``.env`` of a Laravel project."""
    names = ("APP_ID", "APP_KEY", "APP_SECRET", "HOST", "PORT", "SCHEME")
    values = {**server.env, "REVERB_HOST": "localhost", "REVERB_SCHEME": "http"}
    with tempfile.TemporaryDirectory() as directory:
        lines = [f"REVERB_{name}={values[f'REVERB_{name}']}\n" for name in names]
        Path(directory, ".env").write_text("".join(lines), encoding="utf-8")
        yield Path(directory)


@asynccontextmanager
async def audience(server: ReverbServer) -> AsyncIterator[None]:
    """Ann and Bob, who are there all the time."""
    async with ReverbClient(**server.settings) as ann, ReverbClient(**server.settings) as bob:
        for user_id, client in (("7", ann), ("8", bob)):
            await client.subscribe("news")
            await client.subscribe("presence-room.1", {"user_id": user_id, "user_info": {}})
        await ann.subscribe("private-orders.7")
        yield


def draw(screen: Screen, output: str) -> str:
    """Turn what a terminal was sent into SVG."""
    console = Console(
        record=True, width=screen.width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text.assemble(("$ ", "bold green"), f"reverb {screen.command}"))
    for line in Text.from_ansi("\n".join(settle(output)).rstrip()).split("\n", allow_blank=True):
        console.print(line)
        if screen.last and line.plain.startswith(screen.last):
            break
    svg = console.export_svg(title="python-reverb", unique_id=screen.name)
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.S)  # pictures load nothing from elsewhere


def settle(output: str) -> list[str]:
    """Return the lines that are left of the output at its end, when progress has come and gone."""
    lines, row = [""], 0
    for piece in re.split(r"(\n|\r|\x1b\[2K|\x1b\[1A|\x1b\[\?25[lh])", output):
        if piece == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif piece == "\x1b[1A":
            row -= 1
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece != "\r" and not piece.startswith("\x1b[?"):
            lines[row] += piece
    return lines


def check_is_anonymous(output: str, cwd: Path) -> None:
    """Refuse what tells of the machine that this runs on."""
    for telling in (socket.gethostname(), getpass.getuser(), str(Path.home()), str(cwd), sys.prefix):
        if telling != "localhost" and re.search(rf"(?<!\w){re.escape(telling)}(?!\w)", output):
            raise SystemExit(f"{telling!r} must not be in a picture:\n{output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [screen.name for screen in SCREENS] + [page.name for page in console_screens.PAGES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; by default all")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the pictures go")
    parser.add_argument("--port", type=int, default=8080, help="the server's; 0 takes a free one")
    options = parser.parse_args()
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"no such screen: {', '.join(sorted(unknown))}")
    wanted = [screen for screen in SCREENS if not options.names or screen.name in options.names]
    options.folder.mkdir(exist_ok=True)
    logging.getLogger("reverb").addHandler(logging.NullHandler())  # the audience's losses are meant
    if wanted:
        asyncio.run(record(wanted, options.folder, options.port))
    pages = [page for page in console_screens.PAGES if not options.names or page.name in options.names]
    if pages:
        asyncio.run(console_screens.record(pages, options.folder, options.port, check_is_anonymous))


if __name__ == "__main__":
    main()
