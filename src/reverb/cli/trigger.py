"""``reverb trigger``: send a client event."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from .. import ConnectionError, Events, ReverbClient, ReverbConfig
from .._protocol import is_encrypted, is_presence, needs_auth, parse_error
from .options import (
    NO_DATA,
    AsJson,
    Given,
    PresenceUser,
    configure,
    parse_json,
    parse_presence_user,
    read_data,
    takes_server,
)
from .output import show
from .process import ExitCode, complete, exit_on_error, exit_on_unsendable, fail

__all__ = ["trigger"]


@takes_server(with_app_id=False, with_endpoint=True)
def trigger(
    given: Given,
    channel: Annotated[
        str, typer.Argument(metavar="CHANNEL", help="A private or presence channel, such as private-orders.7.")
    ],
    event: Annotated[
        str,
        typer.Argument(
            metavar="EVENT", help="The event's name, such as typing. The prefix client- is added if it is missing."
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA|-",
            help="A JSON object, a list or null; - reads it from the standard input.",
        ),
    ] = NO_DATA,
    presence_user: PresenceUser = None,
    as_json: AsJson = False,
) -> None:
    """Send a client event to the other subscribers of a channel.

    The command connects, subscribes, and sends the event. Then it sends a ping and waits for the answer. Servers
    do not confirm client events, but an error for the event arrives before the answer to the ping.
    """
    if not needs_auth(channel) or is_encrypted(channel):
        reason = "only private and presence channels have client events, and encrypted channels have none"
        raise fail(f"can't send a client event on {channel}: {reason}", ExitCode.USAGE)
    value = parse_json(read_data(data), "the data")
    if value is not None and not isinstance(value, (dict, list)):
        raise fail(
            "the data of a client event must be an object, a list or null; servers refuse other data",
            ExitCode.USAGE,
        )
    user = parse_presence_user(presence_user) if is_presence(channel) else None
    with exit_on_error():
        config = configure(given, reconnect_enabled=False)
        complete(_trigger(config, channel, user, event, value))
    name = event if event.startswith("client-") else f"client-{event}"
    show([{"channel": channel, "event": name}], f"triggered {name} on {channel}", as_json=as_json)


async def _trigger(config: ReverbConfig, name: str, user: dict[str, Any] | None, event: str, data: Any) -> None:
    refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_error(event: str, data: Any, channel: str | None) -> None:
        if not refused.done():
            refused.set_result(data)

    client = ReverbClient(config)
    async with client:
        channel = await client.subscribe(name, user_data=user)
        client.bind(Events.ERROR, on_error)
        channel.bind(Events.ERROR, on_error)  # soketi's errors name the channel
        with exit_on_unsendable():
            await channel.trigger(event, data)
        # Reverb's rate limit counts the ping, too, and answers it with another error.
        answer, loss = asyncio.ensure_future(client.ping()), asyncio.ensure_future(client.listen())
        try:
            await asyncio.wait({answer, loss, refused}, return_when=asyncio.FIRST_COMPLETED)
            if refused.done():
                error = parse_error(refused.result())
                raise fail(f"{config.address} refused {event!r} on {name!r}: {error}", ExitCode.REFUSED)
            try:
                await answer
            except ConnectionError:
                await loss  # raises the reason
        finally:
            answer.cancel()
            loss.cancel()
            await asyncio.gather(answer, loss, return_exceptions=True)
