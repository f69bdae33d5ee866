"""Replays the transcripts of a real Reverb, frame by frame, and compares the bytes.

What differs from one run to the next is put in place of what was recorded: socket ids, and with them signatures.
Dates and handshake keys are left out of the comparison. What can't be replayed is in
``NOT_REPLAYED``, with the reason.

The recording of the HTTP API and the edges has a form of its own, which ``replay.py`` plays. Lines in which we
differ from Reverb are in ``DIFFERS``, with the reason.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from reverb.auth import sign_channel, sign_request
from reverb.server import App, RateLimiting, ReverbServer
from tests.loops import every_loop
from tests.server import replay
from tests.server.clients import CLOSE, CONTINUATION, PING, PONG, TEXT, Client, Clients, soon

HERE = Path(__file__).parent / "transcripts"

KEEPALIVE = "TestKeepalive replays it, on a clock of its own"
NOT_REPLAYED = {
    "old timestamp": "nothing was recorded",
    "wss": "the recording is of another client library; test_tls in test_server.py has wss",
    "defaults: ping_interval=60 (real 60 s timer), silent + answers, connected at once": KEEPALIVE,
    "ping_interval=3, REVERB_TEST_TICK=1 (extra timer)": KEEPALIVE,
    "ping_interval=10, activity_timeout=7, NO extra tick (real 60 s timer)": KEEPALIVE,
}
"""Scenes that the replay leaves out, and why."""

NOT_COMPARED = {
    r"rc \(.*\)|\(.*\) \(.*\)|\(0, 0\.02\)|\(-9, 0\.01\)": "exit codes of the server's process",
    r"INFO  .*|server exit 0": "what artisan prints",
    r"-- .*": "remarks of who recorded it",
    r"(plain ws to tls port|without prefix): .*": "words of a client library; the status is compared",
    r"AUTH .*": "Laravel's answer, which the server has no part in",
    r"0 ": "exit code of Laravel's publishing",
    r"\(1, b'.*'\)": "a repetition of the line before",
    r"\(open\)": "a remark",
}
"""Lines that say nothing about the server's bytes, and why."""


SOCKET_ID = r'(?<=socket_id\\":\\")[\d.]+'


class Scene(NamedTuple):
    file: str
    title: str
    lines: list[str]


def read_scenes() -> list[Scene]:
    scenes = []
    for path in sorted(HERE.glob("*.txt")):
        for part in re.split(r"^### ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
            title, *lines = part.split("\n")
            scenes.append(
                Scene(path.stem.removeprefix("reverb-1.10.2-"), title, [each for each in lines if each.strip()])
            )
    return scenes


SCENES = read_scenes()
FILES = sorted({scene.file for scene in SCENES})

# --- what a scene needs that its lines do not say ---------------------------------------------------------------

SERVERS: dict[str, dict[str, Any]] = {
    "max_message_size=100": {"apps": [App(max_message_size=100)]},
    "max_connections=1": {"apps": [App(max_connections=1)]},
    "accept_client_events_from=none": {"apps": [App(accept_client_events_from="none")]},
    "accept_client_events_from=all, sender NOT subscribed, extra fields": {
        "apps": [App(accept_client_events_from="all")]
    },
    "rate limiting 3 per 5 s": {
        "apps": [App(rate_limiting=RateLimiting(enabled=True, max_attempts=3, decay_seconds=0.5))]
    },
    "rate limiting 3, terminate": {
        "apps": [App(rate_limiting=RateLimiting(enabled=True, max_attempts=3, terminate_on_limit=True))]
    },
    "allowed_origins=example.com": {"apps": [App(allowed_origins=["example.com"])]},
    "path prefix REVERB_SERVER_PATH=/ws": {"path": "/ws"},
    "private-encrypted: Laravel auth + publish": {},
    "request head > max_request_size (10000)": {},
}
"""Scenes that begin with a new server, and its settings."""

HEADER_ONLY = "too long, header only (only the 10-byte frame header + mask of 20000 bytes payload, nothing else)"
PATHS = {
    "wrong key": "/app/wrong",
    "no query string at all": "/app/app-key",
    "protocol=99": "/app/app-key?protocol=99",
}
HEADERS = {
    ("A", "allowed_origins=example.com"): {"Origin": "https://example.com"},
    ("bad", "allowed_origins=example.com"): {"Origin": "https://evil.com"},
    ("A", "permessage-deflate offered"): {"Sec-WebSocket-Extensions": "permessage-deflate"},
    ("A", "subprotocol offered"): {"Sec-WebSocket-Protocol": "pusher"},
}
REFUSED = {
    ("C", "max_connections=1"),
    ("bad", "allowed_origins=example.com"),
    ("no-origin", "allowed_origins=example.com"),
    ("W", "wrong key"),
}
"""Clients that get no greeting."""
FRESH = {
    "upgrade response + connection_established",
    "wrong key",
    "no query string at all",
    "protocol=99",
    "permessage-deflate offered",
    "subprotocol offered",
    "presence: A (user 1)",
    'presence user_id "0" alone, then "1"',
    HEADER_ONLY,
    "too long as fragments 6000+6000",
    "SIGTERM: what clients see",
}
"""Scenes that begin with connections of their own."""
QUERIES = {
    ("channels", 1): {"info": "subscription_count,user_count"},
    ("channels", 2): {"filter_by_prefix": "presence-", "info": "user_count"},
    ("channel", 0): {"info": "subscription_count"},
}
"""The queries of a scene's requests, by their number; they are not in the recording."""
SIGNED_WRONG = {
    "publish bad signature": "secret",
    "publish unsigned": "none",
    "wrong auth_key with good signature": "key",
}
A_IN_PRESENCE = "616538523.916355255"
"""The socket id of A in the scenes with HTTP requests."""
UNRECORDED = {
    ("A", "same connection re-subscribes presence as a different user"): (
        r'{"event":"pusher_internal:member_added","data":"{\"user_id\":\"9\",\"user_info\":[]}",'
        r'"channel":"presence-n1"}'
    ),
    ("A", "publish payload with unicode/escapes: raw bytes"): (
        '{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"u"}'
    ),
}
"""What a client must have received, and was not written down, before what was."""
STOPS = {"SIGTERM: what clients see", "artisan reverb:restart", "SIGKILL", "SIGINT"}
"""Scenes in which the process ends: here the server stops."""
DROPS = {"B drops TCP": "B", 'B drops: member_removed for "1"; then A (user "0") leaves with B2 watching': "B"}


class Stage:
    """A server, and the clients of a transcript by their names."""

    def __init__(self, clients: Clients) -> None:
        self.server = ReverbServer()
        self.actors: dict[str, Client] = {}
        self.checked = 0
        self._clients = clients
        self._scene = SCENES[0]
        self._requests = 0
        self._sent = 0
        self._answer = b""
        self._unrecorded = dict(UNRECORDED)

    async def play(self, scene: Scene) -> None:
        self._scene, self._requests, self._sent = scene, 0, 0
        title = scene.title
        if title in SERVERS:
            await self.server.stop()
            self.server, self.actors = ReverbServer(**SERVERS[title]), {}
            await self.server.start()
        if title in FRESH | STOPS:
            self.actors = {}
        if title in DROPS:
            self.actors.pop(DROPS[title]).drop()
        if title in SPECIAL:
            await SPECIAL[title](self, scene)
            return
        for name in dict.fromkeys(
            match[1] for line in scene.lines if (match := re.match(r"  (\w+) <- TCP EOF", line))
        ):
            if title in STOPS:
                await self.actor(name)
        for line in scene.lines:
            await self._line(line)

    async def _line(self, line: str) -> None:
        text = line.strip()
        if any(re.fullmatch(pattern, text) for pattern in NOT_COMPARED):
            return
        if match := re.fullmatch(r"HTTP -> (\S+) (\S+) ?(.*)", text):
            await self._request(match[1], match[2], match[3])
        elif match := re.fullmatch(r"HTTP <- (HTTP/1\.. .*?) \| (.*)", text):
            head, _, body = self._answer.partition(b"\r\n\r\n")
            assert (head.decode().splitlines()[0], body.decode()) == (match[1], match[2])
            self.checked += 1
        elif match := re.fullmatch(r"(\w+) -> (b'.*?')(?: \.\.\. \(.*\))?(?: \[op (0x.)\])?", text):
            await self._send(match[1], ast.literal_eval(match[2]), int(match[3] or "1", 16), line)
        elif match := re.fullmatch(r"(?:\+ +[\d.]+s )?([\w-]+)(?: \(not subscribed\))? <- (.*)", text):
            await self._expect(match[1], match[2])
        elif match := re.fullmatch(r"HTTP/1\.1 404 Not Found b'Not found.'", text):
            client = await self._clients.raw(self.server, "/nowhere")
            assert (client.head.splitlines()[0], await client.rest()) == ("HTTP/1.1 404 Not Found", b"Not found.")
            self.checked += 1
        else:
            raise AssertionError(f"this line is not understood: {line!r}")

    async def actor(self, name: str) -> Client:
        """Return the client of this name; one that is new connects, and has its greeting still to read."""
        if name not in self.actors:
            title = self._scene.title
            path = f"{SERVERS.get(title, {}).get('path', '')}{PATHS.get(title, '/app/app-key')}"
            headers = HEADERS.get((name, title), {})
            self.actors[name] = await self._clients.raw(self.server, path, headers=headers)
        return self.actors[name]

    async def greeted(self, name: str) -> Client:
        client = await self.actor(name)
        if not client.socket_id:
            await client.greeted()
        return client

    async def _send(self, name: str, payload: bytes, opcode: int, line: str) -> None:
        refused = (name, self._scene.title) in REFUSED
        client = await (self.actor(name) if refused else self.greeted(name))
        if "300-char" in self._scene.title:
            payload = payload[: payload.index(b"x")] + b"x" * 300 + b'"}}'
        self._sent += 1
        if self._scene.title == "rate limiting 3 per 5 s" and self._sent == 6:
            await asyncio.sleep(0.6)  # the recording waited until the limit's time was over
        fragment = self._scene.title == "fragmented text" and opcode == TEXT
        client.send(self._signed(client, payload), opcode, fin=not fragment)
        if self._scene.title in STOPS:
            await client.text()  # not in the recording

    def _signed(self, client: Client, payload: bytes) -> bytes:
        """Sign anew what was signed right for the recorded socket id."""
        match = re.search(rb'"auth":"(?:([\w-]+):)?([0-9a-f]{64})"', payload)
        if match is None or set(match[2]) == {ord("0")}:
            return payload
        data = json.loads(payload)["data"]
        auth = sign_channel("app-key", "app-secret", client.socket_id, data["channel"], data.get("channel_data"))
        prefix = b"" if match[1] is None else match[1] + b":"
        signature = auth.partition(":")[2].encode()
        return payload[: match.start()] + b'"auth":"' + prefix + signature + b'"' + payload[match.end() :]

    async def _expect(self, name: str, what: str) -> None:
        is_greeting = "connection_established" in what
        refused = (name, self._scene.title) in REFUSED
        client = await (self.actor(name) if is_greeting or refused else self.greeted(name))
        unrecorded = self._unrecorded.pop((name, self._scene.title), None)
        if unrecorded is not None:
            assert await client.text() == unrecorded
        if what == "(nothing)":
            await client.quiet()
            return
        self.checked += 1
        if what.startswith("TCP EOF"):
            if self._scene.title in STOPS:
                await self.server.restart()
            assert await client.rest() == b""
            del self.actors[name]
        elif what.startswith("TEXT "):
            expected = what.removeprefix("TEXT ")
            got = await (client.text() if client.socket_id or not is_greeting else client.greeted())
            assert re.sub(SOCKET_ID, "ID", got) == re.sub(SOCKET_ID, "ID", expected)
        else:
            opcode, payload = what.split(" ")[0], ast.literal_eval(re.match(r"\w+ (b'.*?')", what)[1])  # type: ignore[index]
            assert await client.frame() == (0x80 | {"PONG": PONG, "PING": PING, "CLOSE": CLOSE}[opcode], payload)

    async def _request(self, method: str, path: str, body: str) -> None:
        title = self._scene.title
        if title == "publish > 10000 bytes":
            body = json.dumps({"name": "e", "channel": "pub", "data": "x" * 10_000}, separators=(",", ":"))
        if A_IN_PRESENCE in body:
            body = body.replace(A_IN_PRESENCE, (await self.greeted("A")).socket_id)
        query = QUERIES.get((title, self._requests), {})
        self._requests += 1
        wrong = SIGNED_WRONG.get(title)
        key = "other" if wrong == "key" else "app-key"
        secret = "wrong" if wrong == "secret" else "app-secret"
        signed = sign_request(key, secret, method, path, query, body.encode(), 0)
        if wrong == "none" or path == "/app/app-key":
            signed = {}
        prefix = SERVERS.get(title, {}).get("path", "")
        self._answer = await self.http(method, prefix + path, signed, body.encode())

    async def http(
        self, method: str, path: str, query: dict[str, str], body: bytes = b"", head: str = ""
    ) -> bytes:
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        target = path + ("?" if query else "") + "&".join(f"{name}={value}" for name, value in query.items())
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{head}{length}\r\n".encode() + body)
        answer = await soon(reader.read())
        writer.close()
        return answer


# --- scenes that are more than lines ----------------------------------------------------------------------------


def without_key(head: str) -> str:
    return re.sub("(?<=Sec-WebSocket-Accept: ).*", "KEY", head.replace("\r\n", "\n").strip())


async def handshake(stage: Stage, scene: Scene) -> None:
    """The head of the answer, then lines as elsewhere."""
    name = re.match(r"  (\w+) <-", next(line for line in scene.lines if " <- " in line))[1]  # type: ignore[index]
    client = await stage.actor(name)
    head = [line for line in scene.lines if not line.startswith("  ")]
    assert without_key(client.head) == without_key("\n".join(head))
    stage.checked += 1
    for line in scene.lines:
        if line.startswith("  "):
            await stage._line(line)


async def up(stage: Stage, scene: Scene) -> None:
    answer = (await stage.http("GET", "/up", {})).decode().replace("\r\n", "\n")
    recorded = "\n".join([*scene.lines[:-1], "", scene.lines[-1]])
    date = "(?<=Date:).*"
    assert re.sub(date, "", answer) == re.sub(date, "", recorded)
    stage.checked += 1


async def sizes(stage: Stage, scene: Scene) -> None:
    for size in (9000, 10_000, 10_001):
        at = scene.lines.index(f"  size {size}")
        (await stage.greeted("A")).send('{"event":"pusher:ping"}'.ljust(size))
        await stage._line(scene.lines[at + 1])
    await stage._line(scene.lines[-1])


async def header_only(stage: Stage, scene: Scene) -> None:
    client = await stage.greeted("A")
    client._writer.write(b"\x81\xff" + (20_000).to_bytes(8, "big") + b"mask")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client._reader.read(1), 0.3)
    stage.actors.clear()
    stage.checked += 1


async def large_fragments(stage: Stage, scene: Scene) -> None:
    client = await stage.greeted("A")
    client.send(b"x" * 6000, fin=False)
    client.send(b"x" * 6000, CONTINUATION)
    for line in scene.lines[1:]:
        await stage._line(line)


def raw(frame: bytes) -> Callable[[Stage, Scene], Any]:
    """A frame that a client must not send, then what is received."""

    async def play(stage: Stage, scene: Scene) -> None:
        (await stage.greeted("A"))._writer.write(frame)
        for line in scene.lines:
            if " <- " in line:
                await stage._line(line)

    return play


def rewritten(data: bytes) -> tuple[str, str]:
    """Split what a server sent into its head and the text of its first frame."""
    head, _, frame = data.partition(b"\r\n\r\n")
    text = frame[2:].decode()
    return without_key(head.decode()), re.sub(SOCKET_ID, "ID", text)


async def early_frame(stage: Stage, scene: Scene) -> None:
    """A handshake in one piece with a frame, or one of an old version: the answer, byte for byte."""
    recorded = ast.literal_eval(scene.lines[0].strip())
    version = 8 if "version 8" in scene.title else 13
    reader, writer = await asyncio.open_connection(stage.server.host, stage.server.port)
    head = "GET /app/app-key HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: {version}\r\n\r\n"
    ping = Client(reader, writer)
    writer.write(head.encode())
    if version == 13:
        ping.send('{"event":"pusher:ping"}')
    received = b""
    while b"activity_timeout" not in received or not received.endswith(b'"}'):
        received += await soon(reader.read(1000))
    assert rewritten(received) == rewritten(recorded)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    writer.close()
    stage.checked += 1


async def large_event(stage: Stage, scene: Scene) -> None:
    client = await stage.greeted("A")
    await stage._request(
        "POST", "/apps/app-id/events", json.dumps({"name": "e", "channel": "pub", "data": "x" * 9000})
    )
    assert scene.lines == [f"  len received by A: [{len(await client.text())}]"]
    await stage.actors["B"].text()
    stage.checked += 1


async def prefix(stage: Stage, scene: Scene) -> None:
    client = await stage.actor("A")
    assert re.sub(SOCKET_ID, "ID", await client.greeted()) == re.sub(SOCKET_ID, "ID", scene.lines[0])
    for line in scene.lines[1:]:
        await stage._line(line)
    outside = await stage._clients.raw(stage.server)
    assert "HTTP 404" in scene.lines[3]
    assert outside.head.startswith("HTTP/1.1 404 ")


async def encrypted(stage: Stage, scene: Scene) -> None:
    client = await stage.greeted("A")
    assert await client.joined("private-encrypted-open") == scene.lines[1]
    data = json.loads(scene.lines[3])["data"]
    await stage._request(
        "POST",
        "/apps/app-id/events",
        json.dumps({"name": "enc-event", "channel": "private-encrypted-open", "data": data}),
    )
    assert await client.text() == scene.lines[3]
    stage.checked += 2


async def large_head(stage: Stage, scene: Scene) -> None:
    answer = await stage.http("GET", "/app/app-key", {}, head=f"X: {'x' * 10_000}\r\n")
    assert answer.partition(b"\r\n")[0] == ast.literal_eval(scene.lines[0])
    await stage._line(scene.lines[1])
    stage.checked += 1


SPECIAL: dict[str, Callable[[Stage, Scene], Any]] = {
    "upgrade response + connection_established": handshake,
    "wrong key": handshake,
    "permessage-deflate offered": handshake,
    "subprotocol offered": handshake,
    "GET /up": up,
    "[default max_message_size 10000] text of 10000 bytes (pusher:ping padded)": sizes,
    HEADER_ONLY: header_only,
    "too long as fragments 6000+6000": large_fragments,
    "unmasked frame": raw(b'\x81\x17{"event":"pusher:ping"}'),
    "rsv1 set without negotiation": raw(b'\xc1\x97\0\0\0\0{"event":"pusher:ping"}'),
    "frame sent together with the handshake (before 101)": early_frame,
    "Upgrade: WebSocket header bad version 8": early_frame,
    "publish 9000 bytes": large_event,
    "path prefix REVERB_SERVER_PATH=/ws": prefix,
    "private-encrypted: Laravel auth + publish": encrypted,
    "request head > max_request_size (10000)": large_head,
}


@pytest.fixture
async def stage(clients: Clients) -> AsyncIterator[Stage]:
    stage = Stage(clients)
    await stage.server.start()
    yield stage
    await stage.server.stop()


@every_loop
@pytest.mark.parametrize("file", FILES)
async def test_replay(stage: Stage, file: str) -> None:
    for scene in SCENES:
        if scene.file == file and scene.title not in NOT_REPLAYED:
            before = stage.checked
            try:
                await stage.play(scene)
            except BaseException as error:
                error.args = (f"in the scene {scene.title!r}: {error}",)
                raise
            silent = {
                "pusher:pong from client",
                "event without client- prefix",
                "unsubscribe",
                "websocket pong frame",
            }
            assert (
                stage.checked > before
                or all("<- TEXT" not in line for line in scene.lines)
                or scene.title in silent
            )


def test_every_scene_is_replayed_or_listed() -> None:
    titles = {scene.title for scene in SCENES}
    assert NOT_REPLAYED.keys() <= titles
    for names in (SERVERS, SPECIAL, PATHS, FRESH, STOPS, DROPS, SIGNED_WRONG):
        assert set(names) <= titles


def test_recorded_signatures_are_those_that_we_make() -> None:
    socket_id = "697736332.449543751"
    signature = "eb6eec438af99c7f43db1090f4f7b06f0b45f6eee64218cc2235d95212e82506"
    text = (HERE / "reverb-1.10.2-channels-and-bad-input.txt").read_text()
    assert f'"channel":"private-x","auth":"app-key:{signature}"' in text
    assert sign_channel("app-key", "app-secret", socket_id, "private-x") == f"app-key:{signature}"


class TestKeepalive:
    """The scenes with pings, on a clock of our own: Reverb looked once a second, or once a minute."""

    LINE = re.compile(r"  \+ +([\d.]+)s (\S+) <- (.*)|  (\S+) -> (b'.*?')(?: \[op (0x.)\])?|  (late) <- (.*)")

    @pytest.mark.parametrize(
        ("title", "app", "tick", "early"),
        [
            ("ping_interval=3, REVERB_TEST_TICK=1 (extra timer)", App(ping_interval=3), 1, set()),
            (
                "defaults: ping_interval=60 (real 60 s timer), silent + answers, connected at once",
                App(),
                60,
                {"answers"},
            ),
            (
                "ping_interval=10, activity_timeout=7, NO extra tick (real 60 s timer)",
                App(ping_interval=10, activity_timeout=7),
                60,
                set(),
            ),
        ],
    )
    async def test_replay(
        self, clients: Clients, monkeypatch: pytest.MonkeyPatch, title: str, app: App, tick: int, early: set[str]
    ) -> None:
        now = 0.0
        monkeypatch.setattr("reverb.server._websocket.time", SimpleNamespace(monotonic=lambda: now))
        (scene,) = (scene for scene in SCENES if scene.title == title)
        actors: dict[str, Client] = {}
        looked = -1.0
        async with ReverbServer([app]) as server:
            for line in scene.lines:
                match = self.LINE.fullmatch(line)
                if match is None:
                    assert line.startswith("rc "), line
                    continue
                at, receiver, what, sender, payload, opcode, late, greeting = match.groups()
                if late:
                    client = await clients.raw(server)
                    got = re.sub(SOCKET_ID, "ID", await client.greeted())
                    assert f"TEXT {got}" == re.sub(SOCKET_ID, "ID", greeting)
                elif sender:
                    if sender not in actors:
                        # Looked at for the first time when it has been there for the whole interval, or just not.
                        now = 0.5 if sender in early else -0.2
                        actors[sender] = await clients.open(server)
                        if sender.startswith("ctl"):
                            actors[sender].send(b"", PONG)
                    actors[sender].send(ast.literal_eval(payload), int(opcode or "1", 16))
                    if b"subscribe" in payload.encode():
                        await actors[sender].text()
                    elif int(opcode or "1", 16) == PONG:
                        await self._handled(server, actors[sender])
                    else:
                        await actors[sender].quiet()
                else:
                    moment = (
                        float(at) - float(at) % tick + (0.9 if tick == 1 else 0.0) if what != "TCP EOF" else looked
                    )
                    if tick == 1 and moment > float(at):
                        moment -= 1
                    while looked < moment:
                        looked = looked + tick if looked >= 0 else (0.9 if tick == 1 else 60.0)
                        now = looked
                        for node in server._engine.nodes:
                            node.check_alive()
                    await self._receive(actors[receiver], what)

    async def _handled(self, server: ReverbServer, client: Client) -> None:
        """Wait until a pong was handled, in a way that does not make the client one who sends something else."""
        client.send(b"", PING)
        assert await client.frame() == (0x80 | PONG, b"")

    async def _receive(self, client: Client, what: str) -> None:
        if what == "TCP EOF":
            assert await client.rest() == b""
        elif what == "PING b''":
            assert await client.frame() == (0x80 | PING, b"")
        else:
            assert f"TEXT {await client.text()}" == what


# --- the HTTP API and the edges ---------------------------------------------------------------------------------

DIFFERS: dict[int, str] = {}
"""Lines of ``replay.PATH``, by their numbers, and why our answer is another one. At present none is."""


HTTP_SCENES = replay.read_scenes()


@every_loop
@pytest.mark.parametrize("title", HTTP_SCENES)
async def test_replay_of_the_http_api_and_edges(server: ReverbServer, clients: Clients, title: str) -> None:
    differing = {}
    async for line, ours in replay.Player(server, clients).play(title, HTTP_SCENES[title]):
        if (line.number in DIFFERS) == replay.is_equal(line.text, ours):
            differing[line.number] = (line.text, ours)
    assert not differing, "\n".join(
        f"line {number} is equal, and listed in DIFFERS: {recorded}"
        if number in DIFFERS
        else f"line {number}:\n  recorded: {recorded}\n  ours:     {ours}"
        for number, (recorded, ours) in differing.items()
    )


def test_every_line_of_the_http_api_and_edges_is_played() -> None:
    text = replay.PATH.read_text(encoding="utf-8")
    played = {line.number for steps in HTTP_SCENES.values() for step in steps for line in step}
    lines = text.partition("\n=== ")[2].split("\n")
    assert len(played) == sum(1 for line in lines[1:] if line and not line.startswith("=== ")) > 700
    assert set(DIFFERS) <= played
