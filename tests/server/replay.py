"""Plays the recording ``reverb-1.10.2-http-api-and-edges.txt`` against our server, line by line.

A line says what was received, and not always what was sent for it. What it does not say stands here.
"""

from __future__ import annotations

import ast
import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from reverb.auth import sign_request
from reverb.server import ReverbServer
from tests.server.clients import Client, Clients, soon

PATH = Path(__file__).parent / "transcripts" / "reverb-1.10.2-http-api-and-edges.txt"

SILENCE = 1.0
"""Seconds in which something comes that was recorded, or does not come at all."""
MAX_LINE = 1500
"""Characters of a line that were recorded."""

SOCKET_ID = re.compile(r'(?<=socket_id\\":\\")[\d.]+')
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
END_OF_HEAD = "\r\n\r\n"
PONG = '{"event":"pusher:pong"}'


class Line(NamedTuple):
    number: int
    text: str


Step = list[Line]
"""Lines that belong together: what was done, and what was received then."""


def read_scenes() -> dict[str, list[Step]]:
    """Return the steps of each scene, by its title."""
    scenes: dict[str, list[Line]] = {}
    for number, text in enumerate(PATH.read_text(encoding="utf-8").split("\n"), 1):
        if text.startswith("=== "):
            lines = scenes[text.removeprefix("=== ")] = []
        elif text.strip() and scenes:
            lines.append(Line(number, text))
    return {title: list(_steps(lines)) for title, lines in scenes.items()}


def _steps(lines: list[Line]) -> Iterator[Step]:
    for _, group in itertools.groupby(lines, lambda line: _what_was_done(line.text)):
        step: Step = []
        for line in group:
            # A request is one step, with what clients received for it.
            if line.text.startswith("HTTP ") and step:
                yield step
                step = []
            step.append(line)
        yield step


def _what_was_done(line: str) -> str:
    if line.startswith(("HTTP ", "after ")):
        return "HTTP"
    if line.startswith("open "):
        return " ".join(line.split(" ")[:2])
    return line.partition(" | ")[0]


# --- what the lines don't say -----------------------------------------------------------------------------------

HEADERS: dict[str, dict[str, str | None]] = {
    "v8": {"Sec-WebSocket-Version": "8"},
    "v0": {"Sec-WebSocket-Version": None},
    "noup": {"Upgrade": None},
    "onlycon": {"Upgrade": None, "Sec-WebSocket-Key": None, "Sec-WebSocket-Version": None},
    "ext": {"Sec-WebSocket-Extensions": "permessage-deflate"},
    "orig": {"Origin": "https://example.com"},
    "upper": {"Upgrade": "WEBSOCKET", "Connection": "UPGRADE"},
}
"""What is different in a client's handshake; None: this header is not there."""
REQUEST_LINES = {"http10": "GET {} HTTP/1.0", "post": "POST {} HTTP/1.1", "head": "HEAD {} HTTP/1.1"}

ONE = '{"user_id":1,"user_info":{"n":1}}'
Message = tuple[str, str, str | None]
"""Who subscribes, to what, and with which ``channel_data``."""
SUBSCRIPTIONS: dict[tuple[str, str], list[Message]] = {
    ("http_batch", "sub"): [("a", "x", None)],
    ("http_channels", "sub x"): [("a", "x", None)],
    ("http_channels", "sub x b"): [("b", "x", None)],
    ("http_channels", "sub y"): [("a", "private-y", None)],
    ("http_channels", "sub z"): [("a", "presence-z", ONE)],
    ("http_channels", "sub z b"): [("b", "presence-z", ONE)],
    ("http_channels", "cache"): [("a", "cache-c", None)],
    ("http_channels", "pcache"): [("a", "presence-cache-c", '{"user_id":"7","user_info":{}}')],
    ("terminate", "a"): [("a", "presence-z", ONE)],
    ("terminate", "b"): [("b", "presence-z", '{"user_id":"1","user_info":{"n":1}}')],
    ("terminate", "d"): [("d", "presence-z", '{"user_id":"2","user_info":{"n":1}}')],
    ("term_mixed", "public first"): [("p", "x", None)],
    ("term_mixed", "a"): [("a", "presence-z", '{"user_id":"1","user_info":{}}')],
    ("term_mixed", "b"): [("b", "presence-z", '{"user_id":"2","user_info":{}}')],
    ("term_own_public", "public"): [("a", "x", None)],
    ("term_own_public", "a"): [("a", "presence-z", '{"user_id":"1","user_info":{}}')],
    ("term_nobody_public", "public"): [("a", "x", None)],
    ("client_events", "s"): [
        (who, channel, f'{{"user_id":{user_id},"user_info":{{}}}}' if channel == "presence-p" else None)
        for who, user_id in (("a", "1"), ("b", '"2"'))
        for channel in ("private-x", "pub", "private-encrypted-e", "presence-p", "private-cache-c")
    ],
    ("client_events", "what is cached after a client event"): [("z", "private-cache-c", None)],
}
MESSAGES = {
    "from non member": ("n", '{"event":"client-e","channel":"private-x","data":{}}'),
    "from non member pub": ("n", '{"event":"client-e","channel":"pub","data":{}}'),
    "9900 data": ("a", '{"event":"client-e","channel":"private-x","data":{"a":"' + "x" * 9900 + '"}}'),
    "depth": (
        "a",
        '{"event":"client-e","channel":"private-x","data":{"a":' + "[" * 600 + "]" * 600 + "}}",
    ),
}
"""Who sends what where the line has another name for it."""


def _event(**fields: object) -> str:
    return json.dumps({"name": "e", "channel": "x", "data": "1", **fields})


CUT = {
    '{"name": "<SIG>': _event(name="e" * 128),
    '{"name": "e", "channel": "xxxx': _event(channel="x" * 300),
    '{"name": "e", "channels": ["c0", ': json.dumps(
        {"name": "e", "channels": [f"c{number}" for number in range(101)], "data": "1"}
    ),
    '{"batch": [{"name": "e0", ': json.dumps(
        {"batch": [{"name": f"e{number}", "channel": "x", "data": "1"} for number in range(12)]}
    ),
}
"""Bodies of which only the beginning was recorded."""


def _named_request(name: str, socket_id: str) -> tuple[str, str]:
    """Return the path and the body of a request that has only a name in the recording."""
    sid_at_first = [{"name": "e", "channel": "x", "data": "1", "socket_id": socket_id}]
    sid_at_last = [{"name": "e1", "channel": "x", "data": "1"}, *sid_at_first]
    return {
        "12000 body": ("events", _event(data="x" * 12_000)),
        "depth 600": ("events", '{"name":"e","channel":"x","data":"1","more":' + "[" * 600 + "]" * 600 + "}"),
        "batch with sid": ("batch_events", json.dumps({"batch": sid_at_first})),
        "batch with sid 2nd": ("batch_events", json.dumps({"batch": sid_at_last})),
        "event with sid": ("events", _event(socket_id=socket_id)),
    }[name]


# --- playing ----------------------------------------------------------------------------------------------------


class Player:
    """Plays scenes on a server, and writes down what happens as the recording does."""

    def __init__(self, server: ReverbServer, clients: Clients) -> None:
        self._server = server
        self._clients = clients
        self._open: dict[str, Client] = {}
        self._received: dict[str, list[str]] = {}

    async def play(self, title: str, steps: list[Step]) -> AsyncIterator[tuple[Line, str | None]]:
        """Yield each recorded line with ours, which is None when nothing came.

        What came beyond the recording stands behind the last line of its step.
        """
        for step in steps:
            got = await self._play(title, step)
            for line in step:
                receiver = _receiver(line.text)
                ours = next((each for each in got if _receiver(each) == receiver), None)
                if ours is not None:
                    got.remove(ours)
                if line is step[-1] and got:
                    ours = "\n".join([ours or "", *got])
                yield line, ours

    async def _play(self, title: str, step: Step) -> list[str]:
        """Do what was done and return our lines: in order for each client, which is all that a recording tells."""
        first = step[0].text
        what = _what_was_done(first)
        if first.startswith("open "):
            return await self._connect(first, len(step) - 1)
        lines = []
        if first.startswith("HTTP "):
            lines.append(await self._request(first))
            # A name in the place of method and path is of this recording only.
            what = step[1].text.partition(" | ")[0] if step[1:] else what
        elif (title, what) in SUBSCRIPTIONS:
            for who, channel, channel_data in SUBSCRIPTIONS[title, what]:
                self._open[who].subscribe(channel, channel_data)
                await self._read(who)
        elif title == "presence":
            await self._play_presence(what, number=_receiver(first)[1:])
        else:
            who, message = MESSAGES.get(what, ("a", what))
            self._open[who].send(message)
            await self._read(who)
        ends = {_receiver(text) for _, text in step if text.endswith(" <- EOF")}
        for name in [*self._open]:
            await self._read(name, ends=name in ends)
        received, self._received = self._received, {}
        return lines + [f"{what} | {name} <- {text}" for name, texts in received.items() for text in texts]

    async def _play_presence(self, what: str, number: str) -> None:
        """Have one watch, another do something, and a third come later, on a channel of their own."""
        channel = f"presence-p{number}"
        who = {"watch": "w", "late": "l"}.get(what, "o") + number
        if what == "watch":
            self._open[who].subscribe(channel, '{"user_id":"w","user_info":{"i":1}}')
        elif what == "late":
            self._open[who].subscribe(channel, '{"user_id":"late","user_info":{}}')
        elif what.startswith("cd "):
            self._open[who].subscribe(channel, what.removeprefix("cd "))
        else:
            self._open[who].send(what)
        await self._read(who)

    async def _connect(self, line: str, count: int) -> list[str]:
        """Shake hands as the line says, and return our lines for it and for the ``count`` ones behind it."""
        name, path = re.match(r"open (\w+) (\S+): ", line).groups()  # type: ignore[union-attr]
        client = await self._clients.raw(
            self._server,
            path,
            headers={"Sec-WebSocket-Key": KEY, **HEADERS.get(name, {})},
            request_line=REQUEST_LINES.get(name, "GET {} HTTP/1.1"),
        )
        lines = [f"open {name} {path}: {client.head.removesuffix(END_OF_HEAD).encode()!r}"]
        try:
            if not client.head.startswith("HTTP/1.1 101 "):
                while len(lines) <= count:
                    data = await asyncio.wait_for(client.raw(), SILENCE)
                    lines.append(
                        f"open {name} <- {SOCKET_ID.sub('<SID>', data.decode('latin-1'))!r}" if data else ""
                    )
                    if not data:
                        lines[-1] = f"open {name} <- 'EOF'"
                        break
                return lines
            text = await client.text()
        except asyncio.TimeoutError:
            return lines
        lines.append(f"open {name} <- {SOCKET_ID.sub('<SID>', text)}")
        if socket_id := SOCKET_ID.search(text):
            client.socket_id = socket_id[0]
            self._open[name] = client
        elif count > 1:
            lines.append(f"open {name} <- {'EOF' if await client.rest() == b'' else 'more'}")
        return lines

    async def _request(self, line: str) -> str:
        """Send a signed request and return our line for it, with the answer to the end of the stream."""
        said = line.removeprefix("HTTP ").rpartition(" -> [")[0]
        named = re.fullmatch(r"(GET|POST|PUT|PATCH|DELETE|OPTIONS|HEAD) (\S+) (b'.*?'?) ?({'.*'})?", said)
        query: dict[str, str] = {}
        if named is None:
            method, (path, body) = "POST", _named_request(said, self._open["a"].socket_id if self._open else "")
            path = f"/apps/app-id/{path}"
        else:
            method, path, body, query = named[1], named[2], _body(named[3]), ast.literal_eval(named[4] or "{}")
        if path.startswith("/apps/"):
            query = sign_request("app-key", "app-secret", method, path, query, body.encode("latin-1"), 0)
        target = path + ("?" if query else "") + "&".join(f"{name}={value}" for name, value in query.items())
        reader, writer = await asyncio.open_connection(self._server.host, self._server.port)
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n" + (f"Content-Length: {len(body)}\r\n" if body else "")
        writer.write(f"{head}\r\n{body}".encode("latin-1"))
        answer = re.sub("(?<=\r\nDate: ) *[^\r]*", "<D>", (await soon(reader.read())).decode("latin-1"))
        writer.close()
        return f"HTTP {said} -> {[answer, 'EOF']!r}"

    async def _read(self, name: str, *, ends: bool = False) -> None:
        """Note what a client has received by now, and that its connection is at an end if it is.

        Where the end is sure to come, nothing is sent: it could turn the end into a reset.
        """
        client = self._open[name]
        if not ends:
            client.send('{"event":"pusher:ping"}')
        texts = self._received.setdefault(name, [])
        try:
            while (text := await client.text()) != PONG:
                texts.append(text)
        except (asyncio.IncompleteReadError, ConnectionError):
            texts.append("EOF")
            del self._open[name]


def _receiver(line: str) -> str:
    """Return who received what is in a line: a client, or who made the request."""
    opened = re.match(r"open (\w+) ", line)
    client = re.search(r" \| (\w+) <- ", line)
    return opened[1] if opened else client[1] if client else "HTTP"


def _body(recorded: str) -> str:
    """Return a body as it was sent, a character for each byte."""
    for beginning, whole in CUT.items():
        if recorded.startswith("b'" + beginning):
            return whole
    body: bytes = ast.literal_eval(recorded)
    return body.decode("latin-1")


def is_equal(recorded: str, ours: str | None) -> bool:
    """Compare lines. The length of a greeting depends on its socket id, and long lines were cut."""
    if ours is None:
        return False
    greeting = re.compile(r"(?<=<- '\\x81).(?={)")
    recorded, ours = greeting.sub("", recorded), greeting.sub("", ours)
    return ours[:MAX_LINE] == recorded
