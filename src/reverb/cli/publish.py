"""``reverb publish``: publish events over the HTTP API. ``publish_from.py`` implements ``--from``."""

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
from .process import ExitCode, complete, exit_on_error, exit_on_unsendable, fail, run

__all__ = ["publish"]

_from_option = partial(typer.Option, rich_help_panel="From a stream")
_BATCH = 10
"""Events per batch. The progress bar moves after each batch."""


@takes_server(with_app_id=True)
def publish(
    given: Given,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CHANNEL... EVENT [DATA|-]",
            help="The channels, the event's name and its data. The data is JSON; - reads it from the standard "
            "input. Default: {}. With several channels, you must give the data.",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="LINES",
            help="Publish the events of a file, or of the standard input (-), instead of the arguments. Each line "
            """is a JSON object, such as {"channel": "news", "event": "article.published", "data": {"id": 12}}.""",
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Send the data as a text; it need not be JSON.")] = False,
    source: Annotated[
        str | None,
        _from_option(
            "--from",
            metavar="URL",
            help="Publish the entries of a stream, until you press Ctrl-C. The URL is redis://host:6379/0 (with "
            "TLS: rediss) or nats://host:4222 (with TLS: tls). Set the password in REVERB_RELAY_PASSWORD, because "
            "all users of this machine can see it here.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        _from_option(
            "--group",
            metavar="NAME",
            help="The consumer group. --from needs one. Processes of the same group share the entries.",
        ),
    ] = None,
    stream: Annotated[
        str | None,
        _from_option(
            "--stream",
            metavar="NAME",
            help="The name of the stream. Default: reverb:publish, or reverb-publish in JetStream.",
        ),
    ] = None,
    dead_letter: Annotated[
        str | None,
        _from_option(
            "--dead-letter",
            metavar="NAME",
            help="The stream for entries that can't be published. Default: the name of the stream with :dead, or "
            "-dead in JetStream.",
        ),
    ] = None,
    consumer: Annotated[
        str | None,
        _from_option(
            "--consumer",
            metavar="NAME",
            help="The name of this process in a Redis consumer group. Each process needs its own name. Default: "
            "the machine's host name.",
        ),
    ] = None,
    claim_after: Annotated[
        float,
        _from_option(
            "--claim-after",
            metavar="SECONDS",
            min=1,
            help="Seconds after which another process of the group publishes an entry that is not acknowledged.",
        ),
    ] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Publish events over the HTTP API: one event, a file of events, or a stream.

    If you give three arguments or more, the last one is the data:
    `reverb publish news sports published '{"id": 12}'`.

    With `--file`, the command first checks all lines. Then it sends the events in order, in batches of 10, and
    stops at the first error.

    With `--from`, each entry of the stream has the fields `channel`, `event` and `data`. The command publishes
    each entry once; after a crash, it may publish some again. Entries that can't be published go to the
    dead-letter stream, with the reason.
    """
    if source is not None:
        if arguments or text or file is not None:
            raise fail("--from excludes channels, event, data, --text and --file", ExitCode.USAGE)
        if not group:
            raise fail("--from needs a consumer group; name it with --group", ExitCode.USAGE)
        with exit_on_error():
            _run_from(given, source, group, stream, dead_letter, consumer, claim_after, as_json=as_json)
        return
    if any((group, stream, dead_letter, consumer)):
        raise fail("--group, --stream, --dead-letter and --consumer need --from", ExitCode.USAGE)
    if file is not None:
        if arguments or text:
            raise fail("--file excludes channels, event, data and --text", ExitCode.USAGE)
        lines = _read_lines(file)
    else:
        channels, event, data = _parse(arguments or [])
        if not all([*channels, event]):
            raise fail("the name of a channel or of the event is empty", ExitCode.USAGE)
        if not text:
            parse_json(data, "the data", "; to send it as a text, add --text")
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
    run(publish_from(configure(given), source, as_json=as_json))  # a signal is the normal end


async def _publish(config: ReverbConfig, channels: list[str], event: str, data: str) -> None:
    async with ReverbAPI(config) as api:
        with exit_on_unsendable():
            await api.trigger(channels, event, data)


async def _publish_lines(config: ReverbConfig, lines: list[_Line], *, as_json: bool) -> None:
    accepted = 0
    progress = progress_bar()
    async with ReverbAPI(config) as api:
        try:
            with progress, exit_on_unsendable():
                task = progress.add_task("Publishing", total=len(lines))
                while accepted < len(lines):
                    batch = [line.event for line in lines[accepted : accepted + _BATCH]]
                    accepted += (await api.trigger_batch(batch)).accepted
                    progress.update(task, completed=accepted)
        except BatchError as error:
            accepted += error.accepted
            raise (error.__cause__ or error) from None
        finally:
            text = f"published {accepted} of {len(lines)} events"
            if accepted < len(lines):
                text += f"; the server has not confirmed line {lines[accepted].number} and the lines after it"
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
            raise fail(
                "name a channel and an event, or use --file or --from; see reverb publish --help", ExitCode.USAGE
            )


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
        raise fail(f"can't read {file}: {error.strerror}", ExitCode.USAGE) from None
    except (ValueError, RecursionError) as error:
        message = f"line {number} of {file} is not an event: {error}; no event was sent"
        raise fail(message, ExitCode.USAGE) from None
    return lines
