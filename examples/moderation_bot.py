"""A bot that joins a chat room and flags spam.

    pip install python-reverb
    export REVERB_APP_KEY=… REVERB_APP_SECRET=… REVERB_HOST=…
    python moderation_bot.py general

Browsers in ``presence-chat.general`` whisper ``client-message`` with ``{"message_id": 7, "text": "…"}``. The bot
answers spam with ``client-flagged``, which names the message and its sender. It ends on Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

from reverb import Events, ReverbClient, ReverbError

log = logging.getLogger("moderation_bot")

SPAM = re.compile(r"free money|crypto giveaway", re.IGNORECASE)


async def setup(client: ReverbClient) -> None:
    room = await client.subscribe(
        f"presence-chat.{sys.argv[1] if len(sys.argv) > 1 else 'general'}",
        user_data={"user_id": "bot-moderator", "user_info": {"name": "ModBot"}},
    )

    # A handler with a parameter named user_id gets the sender of the event. The server guarantees this id; a
    # name in the data is only a claim of the sender.
    @room.on("client-message")
    async def moderate(event: str, data: Any, channel: str | None, *, user_id: str | None) -> None:
        if isinstance(data, dict) and SPAM.search(str(data.get("text"))):  # members can send anything
            print(f"spam from {user_id!r}: {data['text']!r}", flush=True)  # !r escapes control characters
            try:
                await room.trigger("flagged", {"message_id": data.get("message_id"), "user_id": user_id})
            except ReverbError as error:  # the connection is lost, or the data is too large to send back
                log.warning("it is not flagged: %s", error)

    @room.on(Events.MEMBER_ADDED)
    def greet(event: str, data: dict[str, Any], channel: str | None) -> None:
        print(f"{data['user_info'].get('name', data['user_id'])!r} joined", flush=True)

    print(f"watching {room.name}; here now: {', '.join(map(repr, room))}", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(ReverbClient().run(setup))
