"""What others wrote, in messages of exceptions and in log records: visible, harmless, bounded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import reverb
from reverb import AuthenticationError, ChannelAuth, ReverbAPI, ReverbError
from reverb._visible import event_fields, quoted, visible

from .scripted import Peer, ScriptedServer
from .scripted_http import ScriptedHTTPServer, answer
from .test_client import connected, make_client
from .test_dispatch import Recorder
from .watching import until

HOSTILE = "\x1b[2J\r\n2026-01-01 ERROR forged\u202e\x9b31m\x00\u2028"
LONG = HOSTILE + "x" * 9_000
BOUND = 1_500
"""Characters that a message has at most, whatever others wrote."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with 'quotes' and a \\", "plain, with 'quotes' and a \\"),
        ("Grüße, 你好, مرحبا, नमस्ते, 🎉", "Grüße, 你好, مرحبا, नमस्ते, 🎉"),
        ("नम\u200cस्ते 👩\u200d🔧", "नम\u200cस्ते 👩\u200d🔧"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("one\r\ntwo\tthree\x0b\x0c\x85\u2028\u2029", r"one\r\ntwo\tthree\x0b\x0c\x85\u2028\u2029"),
        ("\x9b2J\x7f\x00", r"\x9b2J\x7f\x00"),
        ("a\u202eb\u2066c\u200fd\ufeffe\u00ad", r"a\u202eb\u2066c\u200fd\ufeffe\xad"),
        ("half an emoji \ud83d", r"half an emoji \ud83d"),
        ("\U000e0041 tag", r"\U000e0041 tag"),
        ("x" * 201, "x" * 200 + "…"),
        ("", ""),
    ],
)
def test_what_is_not_printable_stands_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown or len(shown) > 200
    visible(text).encode()  # a lone half of a pair could not be written anywhere


def test_a_text_is_cut_unless_it_must_not_be() -> None:
    assert visible("x" * 10, 3) == "xxx…"
    assert visible("x" * 10_000, None) == "x" * 10_000


def test_names_are_quoted() -> None:
    assert quoted("orders") == "'orders'"
    assert quoted("a'\x1b\n") == '"a\'\\x1b\\n"'
    assert quoted("x" * 300) == repr("x" * 200 + "…")


def test_fields_of_a_record_are_harmless_too() -> None:
    assert event_fields("a\nb", None) == {"reverb_channel": None, "reverb_event": r"a\nb"}
    assert event_fields("e", "c\x1b") == {"reverb_channel": r"c\x1b", "reverb_event": "e"}


@pytest.mark.parametrize("kind", [reverb.ConnectionError, reverb.TimeoutError, AuthenticationError, ReverbError])
def test_every_error_of_ours_makes_its_message_visible(kind: type[ReverbError]) -> None:
    """Those of authorizers, too, which may quote what an endpoint has answered."""
    error = kind(f"they say: {LONG}", code=1)
    assert str(error).startswith(r"they say: \x1b[2J\r\n2026-01-01 ERROR forged\u202e")
    assert str(error).isprintable()
    assert len(str(error)) < 5_000


def test_a_list_of_settings_keeps_its_lines() -> None:
    error = reverb.ConfigurationError("invalid settings:\n  REVERB_HOST is \x1b[31mred\r")
    assert str(error) == "invalid settings:\n  REVERB_HOST is \\x1b[31mred\\r"


# --- on the way through the client ------------------------------------------------------------------------------


def check(text: str) -> None:
    assert text.isprintable()
    assert len(text) < BOUND


def check_records(caplog: pytest.LogCaptureFixture) -> None:
    for record in caplog.records:
        check(record.getMessage())
        for name, value in vars(record).items():
            if name.startswith("reverb_") and value is not None:
                check(value)


async def greeting_error(peer: Peer) -> None:
    await peer.upgrade()
    await peer.send("pusher:error", {"code": 4001, "message": LONG})


async def greeting_error_that_is_none(peer: Peer) -> None:
    await peer.upgrade()
    await peer.send("pusher:error", [LONG])


async def close_reason(peer: Peer) -> None:
    await peer.upgrade()
    await peer.close(4001, "\x1b[2J\r\n\x9b\u202e")


async def status_line(peer: Peer) -> None:
    await peer.read_request()
    await peer.send_raw(f"HTTP/9 \x1b]0;title\x07 {'x' * 9000}\r\n\r\n".encode())


async def body(peer: Peer) -> None:
    await peer.refuse(500, LONG, {"Server": "\x1b[2Jnginx" + "x" * 5000})


async def location(peer: Peer) -> None:
    await peer.refuse(302, "", {"Location": "https://\x1b[2J\x9b/" + "x" * 5000})


async def connection_header(peer: Peer) -> None:
    await peer.upgrade({"Connection": "\x1b[2J\x9b" + "x" * 5000})


async def garbage(peer: Peer) -> None:
    await peer.read_request()
    await peer.send_raw(b"\x1b]0;title\x07\xff\r\n\r\n" + b"x" * 100)


Script = Callable[[Peer], Coroutine[Any, Any, None]]


@pytest.mark.parametrize(
    "script",
    [
        greeting_error,
        greeting_error_that_is_none,
        close_reason,
        status_line,
        body,
        location,
        connection_header,
        garbage,
    ],
)
async def test_why_there_is_no_connection(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedServer(script) as server:
        client = make_client(server)
        with pytest.raises(ReverbError) as caught:
            await client.connect()
        check(str(caught.value))
    check_records(caplog)


@pytest.mark.parametrize(
    "refusal",
    [
        ("pusher:subscription_error", {"type": "AuthError", "error": LONG, "status": 401}, "private-x"),
        ("pusher:error", {"code": 4009, "message": f"Connection is unauthorized {LONG}"}),
    ],
)
async def test_why_a_channel_is_refused(refusal: Any) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.send(*refusal)
        await peer.wait_closed()

    async with ScriptedServer(script) as server, connected(server) as client:
        with pytest.raises(ReverbError) as caught:
            await client.subscribe("private-x")
        check(str(caught.value))


async def test_what_a_server_says_goes_into_the_log_as_text(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("news")
        await peer.send_text('{"event": "\\u001b[2J", nonsense')
        await peer.send(f"reverb:{LONG}", "{}", LONG)
        await peer.send("pusher:error", {"code": 4299, "message": LONG})
        await peer.send("pusher:error", {"code": 4299, "message": LONG}, LONG)
        await peer.send(LONG, "{}", "news")
        await peer.send("number", {LONG: [{"a": LONG}]}, "news")
        await peer.close(4299, "\x1b[2J\r\n\x9b\u202e")

    def fail(event: str, data: Any, channel: str | None) -> None:
        raise ReverbError(event)

    caplog.set_level(logging.INFO, "reverb")
    errors = Recorder()
    async with ScriptedServer(script) as server, connected(server, reconnect_enabled=False) as client:
        client.bind("error", errors)
        channel = await client.subscribe("news")
        channel.bind("*", fail)
        channel.bind("number", Recorder(), type=dict[str, list[dict[str, int]]])
        await until(lambda: client.state == "failed")
        await errors.wait_for(3)
    messages = [record.getMessage() for record in caplog.records]
    said = (
        "skipped a message",
        "skipped 'reverb:",
        " sent an error: ",
        "raised",
        "does not fit",
        "closed it with code",
    )
    for part in said:
        assert any(part in message for message in messages), part
    check_records(caplog)
    for event, data, _ in errors.calls:
        if event == "reverb:error":  # that of the client; the server's own is data, as it came
            check(data["message"])


async def test_what_cannot_be_decrypted(caplog: pytest.LogCaptureFixture) -> None:
    async def authorize(socket_id: str, channel: str) -> ChannelAuth:
        return ChannelAuth("app-key:0", shared_secret="c2hhcmVkIHNlY3JldCBvZiAzMiBieXRlcy4uLi4uLi4=")

    async def script(peer: Peer) -> None:
        await peer.establish()
        await peer.expect("pusher:subscribe")
        await peer.confirm("private-encrypted-x")
        await peer.send(LONG, LONG, "private-encrypted-x")
        await peer.wait_closed()

    errors = Recorder()
    async with ScriptedServer(script) as server, make_client(server, authorizer=authorize) as client:
        client.bind("error", errors)
        (await client.subscribe("private-encrypted-x")).bind("*", Recorder())
        await errors.wait_for(1)
    assert any("could not be decrypted" in record.getMessage() for record in caplog.records)
    check_records(caplog)


@pytest.mark.parametrize(
    "said",
    [
        answer(400, '{"error": "\\u001b[2J\\u202e\\u009b' + "x" * 5000 + '"}'),
        answer(422, '{"\\u001b[2Jname": ["\\u202e\\r\\n' + "x" * 5000 + '"]}'),
        answer(500, "\x1b[2J\x9b" + "x" * 5000),
        b"HTTP/1.1 \x1b[2J 200\r\n\r\n",
    ],
)
async def test_what_the_http_api_answers(said: bytes) -> None:
    async with ScriptedHTTPServer(said) as server:
        settings: Any = {"host": server.host, "port": server.port, "scheme": "ws"}
        async with ReverbAPI(app_id="1", app_key="k", app_secret="s", **settings) as api:
            with pytest.raises(ReverbError) as caught:
                await api.trigger("news", "e", {})
    check(str(caught.value))
