"""Frames, and what Reverb's library says about those that break the rules."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from reverb.server._frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FrameReader,
    close_frame,
    error_frame,
    frame,
)
from tests.scripted import masked


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_frame(size: int, head: bytes) -> None:
    assert frame(1, b"x" * size) == head + b"x" * size


def test_close_frame() -> None:
    assert close_frame(1000, "bye") == b"\x88\x05\x03\xe8bye"


def test_error_frame() -> None:
    assert error_frame(1, "x")[2:] == rb'{"event":"pusher:error","data":"{\"code\":1,\"message\":\"x\"}"}'
    assert error_frame(1, "x", strict=True)[2:] == b'{"event":"pusher:error","data":{"code":1,"message":"x"}}'


def sent(payload: bytes, opcode: int = TEXT, *, fin: bool = True, rsv: int = 0) -> bytes:
    """Return a frame as a client sends it."""
    mask, size = b"\x01\x02\xf3\x04", len(payload)
    first = (0x80 if fin else 0) | rsv | opcode
    length = bytes((0x80 | size,)) if size < 126 else bytes((0xFE,)) + size.to_bytes(2, "big")
    return bytes((first,)) + length + mask + masked(payload, mask)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 300, 10_000])
@pytest.mark.parametrize("step", [1, 7, 20_000])
def test_reader_takes_bytes_as_they_come(size: int, step: int) -> None:
    reader = FrameReader(10_000)
    stream = sent(b"x" * size) + sent(b"p", PING) + sent(b"y" * size, BINARY)
    got = [each for at in range(0, len(stream), step) for each in reader.feed(stream[at : at + step])]
    assert got == [(TEXT, b"x" * size), (PING, b"p"), (BINARY, b"y" * size)]


def test_reader_joins_fragments() -> None:
    parts = [sent(b"a", fin=False), sent(b"", PONG), sent(b"b", CONTINUATION, fin=False), sent(b"c", CONTINUATION)]
    assert list(FrameReader(10_000).feed(b"".join(parts))) == [(PONG, b""), (TEXT, b"abc")]


def violation(code: int, reason: str) -> list[tuple[int, bytes]]:
    return [(CLOSE, code.to_bytes(2, "big") + reason.encode())]


@pytest.mark.parametrize(
    ("stream", "code", "reason"),
    [
        (frame(TEXT, b"x"), 1002, "incorrect frame mask"),
        (sent(b"x", rsv=0x40), 1002, "invalid reserve code"),
        (sent(b"x", 11), 1002, "invalid OP code"),
        (sent(b"x", CONTINUATION), 1002, "the first frame of a message was a continue"),
        (sent(b"x", fin=False) + sent(b"y"), 1002, "invalid OP code when expecting continue frame"),
        (b"\x81\xff" + b"\xff" * 200, 1002, "Invalid frame length"),
        (b"\x81\xff\x80" + b"\0" * 200, 1002, "Invalid frame length"),
        (b"\x81\xff\x7f" + b"\xff" * 200, 1009, "Maximum message size exceeded"),
        (sent(b"x", PING, fin=False), 1002, "a mismatch between final bit and indicated payload length"),
        (sent(b"x" * 126, PING), 1002, "a mismatch between final bit and indicated payload length"),
        (sent(b"\xff"), 1007, "an invalid UTF-8 payload"),
        (sent(b"\x03", CLOSE), 1002, "an invalid close code"),
        (sent(b"\x03\xed", CLOSE), 1002, "an invalid close code"),
        (sent(b"\x03\xe8\xff", CLOSE), 1007, "an invalid UTF-8 payload in the close reason"),
    ],
)
def test_reader_turns_violations_into_close_frames(stream: bytes, code: int, reason: str) -> None:
    ((opcode, payload),) = FrameReader(10_000).feed(stream + sent(b"never read"))
    assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
    assert reason in payload[2:].decode()


def test_reader_limits_the_size() -> None:
    too_large = violation(1009, "Maximum message size exceeded")
    assert list(FrameReader(100).feed(sent(b"x" * 101))) == too_large
    assert list(FrameReader(100).feed(sent(b"x" * 60, fin=False) + sent(b"x" * 41, CONTINUATION))) == too_large
    reader = FrameReader(100)
    assert list(reader.feed(b"\x81\xff" + (20_000).to_bytes(8, "big") + b"mask")) == []
    assert list(reader.feed(b"x" * 117)) == too_large


def test_reader_answers_an_empty_close_with_1000() -> None:
    assert list(FrameReader(100).feed(sent(b"", CLOSE))) == violation(1000, "")


def pings(count: int) -> bytes:
    return sent(b"", PING) * count


def messages(count: int) -> bytes:
    return sent(b"x") * count


def empty_fragments(count: int) -> bytes:
    return sent(b"", fin=False) + sent(b"", CONTINUATION, fin=False) * count


def fragments(count: int) -> bytes:
    return sent(b"", fin=False) + sent(b"x", CONTINUATION, fin=False) * count


def one_message(count: int) -> bytes:
    return b"\x81\xff" + (6 * count).to_bytes(8, "big") + b"mask" + b"x" * 6 * count


@pytest.mark.parametrize("step", [6, 4_096, 10_000_000])
@pytest.mark.parametrize("stream", [pings, messages, empty_fragments, fragments, one_message])
def test_time_grows_with_the_size_and_not_with_its_square(stream: Callable[[int], bytes], step: int) -> None:
    def measure(count: int) -> float:
        data, reader = stream(count), FrameReader(10_000_000)
        begin = time.process_time()
        for at in range(0, len(data), step):
            for _ in reader.feed(data[at : at + step]):
                pass
        return time.process_time() - begin

    def is_linear() -> bool:
        # 8 times as long is right, 64 would be the square; what takes no time at all is right, too.
        return measure(160_000) < 20 * min(measure(20_000) for _ in range(3)) + 0.02

    assert is_linear() or is_linear(), "even at the second measurement, for a machine that was busy"
