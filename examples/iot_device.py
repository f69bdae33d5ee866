"""A device that takes commands, on a Raspberry Pi for instance, and reports back what it did.

    pip install python-reverb
    export REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    DEVICE_ID=rpi-001 python iot_device.py

Laravel broadcasts ``command`` on ``private-device.rpi-001`` with ``{"action": "status", "request_id": 1}``; the
actions are ``status``, ``capture`` and ``reboot``. The answer is a client event on the same channel,
``client-done`` or ``client-failed``, so the application has to accept client events. Ends on Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
import time
from typing import Any

from reverb import ReverbClient

DEVICE_ID = os.environ.get("DEVICE_ID", "rpi-001")
CAPTURE = os.environ.get("CAPTURE_COMMAND", "rpicam-still --nopreview --output")
REBOOT = os.environ.get("REBOOT_COMMAND", "sudo reboot")


async def run(command: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(*shlex.split(command), *arguments)
    if await process.wait() != 0:
        raise RuntimeError(f"{command!r} ended with exit code {process.returncode}")


async def perform(action: str) -> dict[str, Any]:
    if action == "status":
        return {"load": os.getloadavg()[0], "running_for": round(time.monotonic())}
    if action == "capture":
        picture = f"capture-{time.time_ns()}.jpg"
        await run(CAPTURE, picture)
        return {"picture": picture}
    if action == "reboot":
        await run(REBOOT)
        return {}
    raise ValueError(f"unknown action {action!r}")


async def setup(client: ReverbClient) -> None:
    device = await client.subscribe(f"private-device.{DEVICE_ID}")

    # Commands are carried out one after another. One that takes long delays the next, but not the connection.
    @device.on("command")
    async def on_command(event: str, data: dict[str, Any], channel: str | None) -> None:
        answer = {"request_id": data.get("request_id"), "action": data.get("action")}
        try:
            result = await perform(data["action"])
        except (KeyError, ValueError, OSError, RuntimeError) as error:
            await device.trigger("failed", {**answer, "error": str(error)})
        else:
            await device.trigger("done", {**answer, **result})

    print(f"{DEVICE_ID} takes commands", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(ReverbClient().run(setup))
