"""A device, for example a Raspberry Pi, that takes commands and reports the results.

    pip install "python-reverb[http]"
    export REVERB_APP_KEY=… REVERB_HOST=… REVERB_AUTH_ENDPOINT=https://example.com/api/broadcasting/auth
    REVERB_AUTH_TOKEN=… DEVICE_ID=rpi-001 python iot_device.py

Security: a device must not have the application's secret. Whoever opens the device can read the secret, and then
listen and publish on all channels. Instead, the device has a token. Laravel authorises it for its own channel,
``private-device.rpi-001``, and for no other.

Laravel broadcasts ``command`` on this channel with ``{"action": "status", "request_id": 1}``. The actions are
``status``, ``capture`` and ``reboot``. The device answers with the client event ``client-done`` or
``client-failed``, so the application must accept client events. If a command gets no answer, Laravel may send it
again with the same ``request_id``, for example at each ``client-status``, which comes every minute and after each
reconnect. The device carries out a command once, and gives the same answer again. ``iot_device.db`` keeps the last
1000 commands.

The program ends on Ctrl-C and SIGTERM. It closes the connection first. Then it finishes the present command, for 5
seconds at most, and stores the answer. It can send this answer only when it runs again and Laravel repeats the
command.

The program also ends when there is no network. At boot, the clock may not be set, and then certificates are not
valid yet. That ends it, too. Let systemd start it again:
https://terje.github.io/python-reverb/guides/raspberry-pi/
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reverb
from reverb import Channel, Events, ReverbClient, ReverbError

DEVICE_ID = os.environ.get("DEVICE_ID", "")
CAPTURE = os.environ.get("CAPTURE_COMMAND", "rpicam-still --nopreview --output")
REBOOT = os.environ.get("REBOOT_COMMAND", "sudo reboot")
TIMEOUT = float(os.environ.get("COMMAND_TIMEOUT", "60"))
REPORT_EVERY = float(os.environ.get("REPORT_INTERVAL", "60"))
KEPT_COMMANDS, KEPT_PICTURES = 1000, 50  # an SD card is small

log = logging.getLogger("iot_device")


@dataclass
class Command:
    action: str
    request_id: int | str


class Journal:
    """The last commands and their answers, on disk, because a device may be switched off at any moment."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        columns = "number INTEGER PRIMARY KEY, request_id UNIQUE, answer TEXT"
        self._database.execute(f"CREATE TABLE IF NOT EXISTS command ({columns})")

    def begin(self, request_id: int | str) -> int | None:
        """Store a command before the device carries it out. Return its number, or None if it is stored already."""
        with self._database:
            insert = "INSERT OR IGNORE INTO command (request_id) VALUES (?)"
            cursor = self._database.execute(insert, [request_id])
            if cursor.rowcount == 0:
                return None
            self._database.execute("DELETE FROM command WHERE number <= ?", [cursor.lastrowid - KEPT_COMMANDS])
            return cursor.lastrowid

    def end(self, number: int, event: str, result: dict[str, Any]) -> None:
        with self._database:
            answer = json.dumps([event, result])
            self._database.execute("UPDATE command SET answer = ? WHERE number = ?", [answer, number])

    def answer(self, request_id: int | str) -> tuple[str, dict[str, Any]]:
        select = "SELECT answer FROM command WHERE request_id = ?"
        ((answer,),) = self._database.execute(select, [request_id])
        return json.loads(answer) if answer else ("failed", {"error": "the device was stopped meanwhile"})


async def run(command: str, *arguments: str) -> None:
    stdin = asyncio.subprocess.DEVNULL  # nobody can type a password
    process = await asyncio.create_subprocess_exec(*shlex.split(command), *arguments, stdin=stdin)
    try:
        await asyncio.wait_for(process.wait(), TIMEOUT)
    except asyncio.TimeoutError:
        raise RuntimeError(f"{command!r} took longer than {TIMEOUT:g} seconds") from None
    finally:
        if process.returncode is None:  # too slow, or this program ends
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{command!r} ended with exit code {process.returncode}")


async def perform(client: ReverbClient, action: str, number: int) -> dict[str, Any]:
    if action == "status":
        return status(client)
    if action == "capture":
        await asyncio.to_thread(remove_old_pictures)
        picture = f"capture-{number:08}.jpg"  # without a time, because the clock may not be set
        await run(CAPTURE, picture)
        return {"picture": picture}
    if action == "reboot":
        await run(REBOOT)
        return {}
    raise ValueError(f"unknown action {action!r}")


def remove_old_pictures() -> None:
    for picture in sorted(Path().glob("capture-*.jpg"))[: -KEPT_PICTURES + 1]:
        picture.unlink()


def status(client: ReverbClient) -> dict[str, Any]:
    return {
        "up_for": round(time.monotonic()),  # seconds since boot; does not depend on the clock
        "load": os.getloadavg()[0],
        "disk_free": shutil.disk_usage(".").free,
        "reconnects": client.stats.reconnects,
    }


async def tell(device: Channel, event: str, data: dict[str, Any]) -> None:
    try:
        await device.trigger(event, data)
    except ReverbError as error:  # for example, the connection is lost
        log.warning("%s is not sent: %s", event, error)


async def report(client: ReverbClient, device: Channel) -> None:
    while True:
        try:
            if device.is_subscribed:
                await tell(device, "status", status(client))
        except Exception:  # nobody awaits this task, so it must continue
            log.exception("no status")
        await asyncio.sleep(REPORT_EVERY)


def main() -> int:
    if not DEVICE_ID:
        print("DEVICE_ID is missing: the end of the name of this device's channel", file=sys.stderr)
        return 2
    with closing(sqlite3.connect("iot_device.db", check_same_thread=False)) as database:
        journal, tasks = Journal(database), []

        async def setup(client: ReverbClient) -> None:
            device = await client.subscribe(f"private-device.{DEVICE_ID}")

            # The device carries out one command after another. A slow command delays the next one, but not the
            # connection. Data that is no Command, such as [] (PHP's {}), is logged, and no handler gets it.
            @device.on("command")
            async def on_command(event: str, data: Command, channel: str | None) -> None:
                number = await asyncio.to_thread(journal.begin, data.request_id)
                if number is None:
                    answer, result = await asyncio.to_thread(journal.answer, data.request_id)
                else:
                    try:
                        answer, result = "done", await perform(client, data.action, number)
                    except Exception as error:  # any error: the sender of the command must know it
                        log.error("%r failed: %s", data.action, error)
                        answer, result = "failed", {"error": str(error)[:500]}
                    await asyncio.to_thread(journal.end, number, answer, result)
                await tell(device, answer, {"request_id": data.request_id, "action": data.action, **result})

            @device.on(Events.RESUBSCRIBED)
            async def on_resubscribed(event: str, data: Any, channel: str | None) -> None:
                await tell(device, "status", status(client))

            tasks.append(asyncio.create_task(report(client, device)))  # run() cancels it
            print(f"{DEVICE_ID} takes commands", flush=True)

        return reverb.run(setup)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(main())
