"""docs/moving/pusher-js.md: its programs run, in Node and here, and its calls are those of both libraries."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from reverb import Events, ReverbClient
from reverb.server import ReverbServer
from tests.docs.moving import check_calls, check_that_it_ships
from tests.docs.pages import Block, Page
from tests.integration.servers import Target
from tests.laravel import Laravel
from tests.missing import pusher_js
from tests.test_subscribing import SCENES
from tests.watching import owned

PAGE = Page("docs/moving/pusher-js.md")
ENDPOINT = "https://example.com/api/broadcasting/auth"


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@asynccontextmanager
async def authorizing(block: Block) -> AsyncIterator[Block]:
    """The program, asking an endpoint that there is, of a user that it knows."""
    async with Laravel() as laravel:
        text = block.text.replace(ENDPOINT, laravel.url).replace("my-token", laravel.token)
        yield block._replace(text=text)


@PAGE.block_of("From Laravel Echo 2", "From pusher-js 2")
async def test_the_programs_in_python(block: Block, server: ReverbServer, tmp_path: Path) -> None:
    async with authorizing(block) as block:
        await check_that_it_ships(block, server, tmp_path)


@PAGE.block_of("From Laravel Echo", "From pusher-js")
async def test_the_programs_in_javascript(block: Block, server: ReverbServer, tmp_path: Path) -> None:
    assert block.language == "js"
    command, package = pusher_js()
    tmp_path.joinpath("node_modules").symlink_to(Path(package).parent, target_is_directory=True)
    async with authorizing(block) as block:
        program = tmp_path / "program.mjs"
        program.write_text(block.text.replace("8080", str(server.port)), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(command, str(program), stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async with owned(process):
            await server.wait_for_subscription("private-orders", 15)
            target = Target("embedded", server.host, server.port)
            await target.publish("private-orders", "App\\Events\\OrderShipped", {"id": 7})
            line = await asyncio.wait_for(process.stdout.readline(), 15)
            assert line == b"order 7 is on its way\n"


async def test_the_calls_of_pusher_js() -> None:
    command, package = pusher_js()
    (rows,) = PAGE.tables("Calls")
    paths = [re.match(r"`([\w.]+)", row[0])[1] for row in rows]  # type: ignore[index]
    script = """
        const Pusher = require("pusher-js");
        const pusher = new Pusher("app-key", { cluster: "", wsHost: "127.0.0.1", forceTLS: false });
        const channel = pusher.subscribe("presence-room");
        const isThere = (path) => {
          const names = path.split(".");
          const last = names.pop();
          return last in names.reduce((value, name) => value[name], { pusher, channel });
        };
        console.log(JSON.stringify(PATHS.filter((path) => !isThere(path))));
        process.exit(0);
    """
    process = await asyncio.create_subprocess_exec(
        command,
        "-e",
        script.replace("PATHS", json.dumps(paths)),
        cwd=Path(package).parents[1],
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    # These are there when the server has told them.
    assert json.loads(out) == ["channel.subscription_count", "pusher.connection.socket_id"]


async def test_our_calls(client: ReverbClient) -> None:
    room = await client.subscribe("presence-room", {"user_id": "7"})
    check_calls(PAGE, 1, {"client": client, "channel": room, "Events": Events})


def test_what_differs_is_what_scenes_show() -> None:
    """Each scene in which the two differ is a row with a ✓; two of them show the same."""
    marked = [row[0] for row in PAGE.tables("What behaves differently")[0] if row[3] == "✓"]
    assert len(marked) == len({json.dumps(scene["ours"]["why"]) for scene in SCENES.values() if scene["ours"]})
