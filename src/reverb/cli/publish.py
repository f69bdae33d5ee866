"""``reverb publish``: events to channels, over the HTTP API. What ``--from`` does is in ``publish_from.py``."""

from __future__ import annotations

import sys
from functools import partial
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
from .process import ExitCode, complete, exit_on_error, fail, run, unsendable

__all__ = ["publish"]

_from_option = partial(typer.Option, rich_help_panel="From a stream")
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
    source: Annotated[
        str | None,
        _from_option(
            "--from",
            metavar="URL",
            help="Publish what others write into a stream, until Ctrl-C: redis://host:6379/0 (or rediss), "
            "nats://host:4222 (or tls). Set REVERB_RELAY_PASSWORD instead of a password here.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        _from_option("--group", metavar="NAME", help="The consumer group; processes of a group share the work."),
    ] = None,
    stream: Annotated[
        str | None,
        _from_option(
            "--stream", metavar="NAME", help="By default reverb:publish, or reverb-publish in JetStream."
        ),
    ] = None,
    dead_letter: Annotated[
        str | None,
        _from_option(
            "--dead-letter",
            metavar="NAME",
            help="The stream for what can't be published; by default the stream's name with :dead or -dead.",
        ),
    ] = None,
    consumer: Annotated[
        str | None,
        _from_option(
            "--consumer",
            metavar="NAME",
            help="This process within a group of Redis; by default the machine's name. Two need two names.",
        ),
    ] = None,
    claim_after: Annotated[
        float,
        _from_option(
            "--claim-after",
            metavar="SECONDS",
            min=1,
            help="When another process publishes what one has taken and left behind.",
        ),
    ] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Publish an event on channels, or a file of events.

    It goes over the server's HTTP API, as from Laravel.

    Of three arguments or more the last one is the data: `reverb publish news sports published '{"id": 12}'`.

    The lines of a file are checked first, then sent in order and in batches, up to the first that fails.

    The entries of a stream (`--from`) have the fields `channel`, `event` and `data`. Each is published once, or
    more than once after a crash; what can't be published goes to another stream, with the reason.
    """
    if source is not None:
        if arguments or text or file is not None:
            raise fail("--from goes without channels, event, data and --file", ExitCode.USAGE)
        if not group:
            raise fail("--from needs the name of a consumer group: --group", ExitCode.USAGE)
        with exit_on_error():
            _run_from(given, source, group, stream, dead_letter, consumer, claim_after, as_json=as_json)
        return
    if any((group, stream, dead_letter, consumer)):
        raise fail("--group, --stream, --dead-letter and --consumer go with --from", ExitCode.USAGE)
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


def _run_from(
    given: Given,
    url: str,
    group: str,
    stream: str | None,
    dead_letter: str | None,
    consumer: str | None,
    claim_after: float,
    *,
    as_json: bool,
) -> None:
    from .publish_from import publish_from, source_of

    source = source_of(
        url, group=group, stream=stream, dead_letter=dead_letter, consumer=consumer, claim_after=claim_after
    )
    run(publish_from(configure(given), source, as_json=as_json))  # a signal is the end that it is meant to have


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
