"""``reverb publish``: events to channels, over the HTTP API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer

from .. import BatchError, BatchEvent, ReverbAPI, ReverbConfig
from .options import (
    NO_DATA,
    STDIN,
    AsJson,
    Given,
    configure,
    parse_json,
    read_data,
    takes_server,
)
from .output import progress_bar, show
from .process import ExitCode, complete, exit_on_error, fail, unsendable

__all__ = ["publish"]

_STEP = 10
"""Events sent before the progress is shown again: what a batch holds."""


@takes_server(with_app_id=True)
def publish(
    given: Given,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHANNEL... EVENT [DATA|-]",
            help="One channel and an event; then data, or - for the standard input. Data is JSON, and {} by "
            "default. With several channels the data must be there.",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="LINES",
            help="Instead of the arguments: a file, or - for the standard input, with one JSON object a line, "
            """such as {"channel": "news", "event": "article.published", "data": {"id": 12}}.""",
        ),
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="The data is a text, not JSON, and is sent as it is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish an event on channels, or a file of events.

    It goes over the server's HTTP API, as from Laravel.

    Of three arguments or more the last one is the data: `reverb publish news sports published '{"id": 12}'`.

    The lines of a file are checked first, then sent in order and in batches, up to the first that fails.
    """
    if file is not None:
        if arguments or text:
            raise fail("--file goes without channels, event and data", ExitCode.USAGE)
        lines = _read_lines(file)
    else:
        channels, event, data = _parse(arguments or [])
        if not all([*channels, event]):
            raise fail("the name of a channel or of the event is empty", ExitCode.USAGE)
        if not text:
            parse_json(data, "the data", "; --text sends it as it is")
    with exit_on_error():
        config = configure(given)
        if file is None:
            complete(_publish(config, channels, event, data))
            show([{"accepted": 1}], f"published {event} on {', '.join(channels)}", as_json=as_json)
        else:
            complete(_publish_lines(config, lines, as_json=as_json))


async def _publish(config: ReverbConfig, channels: list[str], event: str, data: str) -> None:
    async with ReverbAPI(config) as api:
        with unsendable():
            await api.trigger(channels, event, data)


async def _publish_lines(config: ReverbConfig, lines: list[_Line], *, as_json: bool) -> None:
    accepted = 0
    progress = progress_bar()
    async with ReverbAPI(config) as api:
        try:
            with progress, unsendable():
                task = progress.add_task("Publishing", total=len(lines))
                while accepted < len(lines):
                    batch = [line.event for line in lines[accepted : accepted + _STEP]]
                    accepted += (await api.trigger_batch(batch)).accepted
                    progress.update(task, completed=accepted)
        except BatchError as error:
            accepted += error.accepted
            raise (error.__cause__ or error) from None
        finally:
            text = f"published {accepted} of {len(lines)} events"
            if accepted < len(lines):
                text += f"; line {lines[accepted].number} and what is behind it are not confirmed"
            show([{"accepted": accepted}], text, as_json=as_json)


class _Line(NamedTuple):
    number: int
    event: BatchEvent


def _parse(arguments: list[str]) -> tuple[list[str], str, str]:
    match arguments:
        case [channel, event]:
            return [channel], event, NO_DATA
        case [*channels, event, data] if channels:
            return channels, event, read_data(data)
        case _:
            raise fail("a channel and an event are needed, or --file; see reverb publish --help", ExitCode.USAGE)


def _read_lines(file: str) -> list[_Line]:
    decode = msgspec.json.Decoder(BatchEvent).decode
    lines = []
    try:
        text = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                event = decode(line)
                if not (event.channel and event.event):
                    raise ValueError("the name of the channel or of the event is empty")
                lines.append(_Line(number, event))
    except OSError as error:
        raise fail(f"{file} can't be read: {error.strerror}", ExitCode.USAGE) from None
    except (ValueError, RecursionError) as error:
        raise fail(f"line {number} of {file} is no event: {error}; nothing is sent", ExitCode.USAGE) from None
    return lines
