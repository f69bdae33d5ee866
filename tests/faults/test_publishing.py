"""10,000 events, published by four forked processes with eight threads each, while the server restarts."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from reverb import ReverbClient
from reverb.server import ReverbServer
from reverb.server._journal import Entry
from tests.integration.conftest import soketi, soketi_process
from tests.integration.servers import Target
from tests.watching import until

from .scene import unique

__all__ = ["soketi", "soketi_process"]  # fixtures

EVENTS, PROCESSES, THREADS, RESTARTS = 10_000, 4, 8, 5
PROGRAM = f"""
import os, sys, threading
from reverb import ReverbError, SyncReverbAPI

host, port, app_id, app_key, app_secret, channel, events, directory = sys.argv[1:]
api = SyncReverbAPI(
    host=host, port=int(port), scheme="ws", app_id=app_id, app_key=app_key, app_secret=app_secret, pool_size=6
)

def publish(numbers, outcomes):
    for number in numbers:
        try:
            api.trigger(channel, "e", number)
        except ReverbError as error:
            outcomes.append(f"{{number}} {{error}}")
        else:
            outcomes.append(f"{{number}} accepted")

api.trigger(channel, "first", 0)
children = []
for process in range({PROCESSES}):
    child = os.fork()
    if child:
        children.append(child)
        continue
    outcomes = []
    numbers = [range(process + {PROCESSES} * n, int(events), {PROCESSES * THREADS}) for n in range({THREADS})]
    threads = [threading.Thread(target=publish, args=(each, outcomes)) for each in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(os.path.join(directory, str(process)), "w") as file:
        print(*outcomes, sep="\\n", file=file)
    os._exit(0)
sys.exit(max(os.waitpid(child, 0)[1] for child in children))
"""


pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here"),
    pytest.mark.timeout(180),
]


async def publish(target: Target, channel: str, events: int, directory: Path) -> dict[int, str]:
    """Run the program; return what became of each call: ``accepted``, or what it raised."""
    arguments = (target.host, target.port, target.app_id, target.key, target.secret, channel, events, directory)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *map(str, arguments), cwd=directory, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    lines = [line for each in range(PROCESSES) for line in (directory / str(each)).read_text().splitlines()]
    outcomes = {int(number): outcome for number, _, outcome in (line.partition(" ") for line in lines)}
    assert outcomes.keys() == set(range(events))
    return outcomes


async def test_each_accepted_event_arrives_exactly_once(tmp_path: Path) -> None:
    arrived: Counter[int] = Counter()

    def count(entry: Entry) -> None:
        if entry.event is not None and entry.event.name == "e":
            arrived[entry.event.data] += 1

    async with ReverbServer() as server:
        server.watch(count)
        target = Target("embedded", server.host, server.port)
        publishing = asyncio.ensure_future(publish(target, "news", EVENTS, tmp_path))
        for number in range(1, RESTARTS + 1):
            some = number * EVENTS // (RESTARTS + 1)
            await until(lambda: publishing.done() or arrived.total() > some, 60)  # noqa: B023
            await server.restart(downtime=0.2)
        outcomes = await publishing
    accepted = {number for number, outcome in outcomes.items() if outcome == "accepted"}
    assert {number: arrived[number] for number in accepted if arrived[number] != 1} == {}
    raised = outcomes.keys() - accepted
    assert {number: arrived[number] for number in raised if arrived[number] > 1} == {}
    assert {
        outcomes[each] for each in raised if "closed the connection without an answer" not in outcomes[each]
    } == set()
    assert len(raised) <= RESTARTS * PROCESSES * THREADS  # what was on its way when the server ended


async def test_each_event_arrives_exactly_once_from_soketi(soketi: Target, tmp_path: Path) -> None:
    arrived: Counter[int] = Counter()
    async with ReverbClient(**soketi.settings) as client:
        (await client.subscribe(unique("news-"))).bind("e", lambda _event, data, _channel: arrived.update([data]))
        (channel,) = client.channels
        outcomes = await publish(soketi, channel, 2_000, tmp_path)
        assert set(outcomes.values()) == {"accepted"}
        await until(lambda: arrived.total() >= 2_000)
    assert arrived == dict.fromkeys(range(2_000), 1)
