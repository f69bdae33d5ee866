"""The tree of exceptions, as the documentation promises it."""

from __future__ import annotations

import asyncio
import builtins
import pickle
import sys
import traceback
from typing import Any

import pytest

import reverb
from reverb import ReverbError
from reverb.exceptions import again, plural


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (reverb.ConfigurationError, (reverb.ReverbError, ValueError)),
        (reverb.ConnectionError, (reverb.ReverbError, builtins.ConnectionError, OSError)),
        (reverb.AuthenticationError, (reverb.ReverbError,)),
        (reverb.SubscriptionError, (reverb.ReverbError,)),
        (reverb.ProtocolError, (reverb.ReverbError,)),
        (reverb.TimeoutError, (reverb.ReverbError, builtins.TimeoutError)),
    ],
)
def test_bases_message_and_code(error: type[reverb.ReverbError], bases: tuple[type[Exception], ...]) -> None:
    for base in bases:
        assert issubclass(error, base)
    assert str(error("what failed")) == "what failed"
    assert error("what failed").code is None
    assert error("what failed", code=4001).code == 4001


async def test_what_the_names_of_python_catch() -> None:
    own = [reverb.TimeoutError("what failed"), builtins.TimeoutError()]
    if sys.version_info >= (3, 11):
        with pytest.raises(builtins.TimeoutError) as caught:
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        own.append(caught.value)
    assert all(isinstance(each, builtins.TimeoutError) for each in own)
    assert [isinstance(each, reverb.TimeoutError) for each in own] == [True] + [False] * (len(own) - 1)
    with pytest.raises(asyncio.TimeoutError) as waited:
        await asyncio.wait_for(asyncio.sleep(60), 0.001)
    assert isinstance(waited.value, builtins.TimeoutError) == (sys.version_info >= (3, 11))
    assert not isinstance(waited.value, reverb.ReverbError)


def test_errors_of_the_http_api() -> None:
    error = reverb.APIError(404, "what failed")
    assert (str(error), error.status, error.code) == ("what failed", 404, 404)
    stopped = reverb.BatchError("what failed", accepted=10, code=413)
    assert (str(stopped), stopped.accepted, stopped.code) == ("what failed", 10, 413)
    assert isinstance(error, reverb.ReverbError)
    assert isinstance(stopped, reverb.ReverbError)


class Renamed(reverb.ConnectionError):
    """Is made with other arguments than it hands on."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} is down", code=port)
        self.host = host


class Prefixed(reverb.AuthenticationError):
    """Says something else when it is made of its own message."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"refused {channel}", is_temporary=True)


class Made(reverb.ReverbError):
    """Can't be made anew."""

    def __new__(cls, *arguments: Any, key: str) -> Made:
        return super().__new__(cls)

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)


KEPT: list[reverb.ReverbError] = [
    reverb.ReverbError("what failed", code=1),
    reverb.ConfigurationError("what failed"),
    reverb.ConnectionError("what failed", code=4001),
    reverb.AuthenticationError("what failed", code=403, is_temporary=True),
    reverb.SubscriptionError("what failed"),
    reverb.ProtocolError("what failed", code=4301),
    reverb.PayloadError("what failed", path="$.id"),
    reverb.TimeoutError("what failed"),
    reverb.APIError(404, "what failed", retry_after=7),
    reverb.BatchError("what failed", accepted=10, code=413),
    Renamed("example.com", 80),
    Prefixed("private-x"),
]


def test_every_class_is_among_them() -> None:
    classes = {each for each in vars(reverb).values() if isinstance(each, type) and issubclass(each, ReverbError)}
    assert classes == {type(error) for error in KEPT} - {Renamed, Prefixed}


@pytest.mark.parametrize("error", KEPT, ids=lambda error: type(error).__name__)
def test_what_is_raised_again_says_the_same(error: reverb.ReverbError) -> None:
    cause = ValueError("why")
    error.__cause__, error.__suppress_context__ = cause, False
    same = again(error)
    assert same is not error
    assert type(same) is type(error)
    assert (str(same), same.args, vars(same)) == (str(error), error.args, vars(error))
    assert (same.__cause__, same.__suppress_context__, same.__traceback__) == (cause, False, None)
    assert again(same).__cause__ is cause


@pytest.mark.parametrize("error", [*KEPT, Made("what failed", key="k")], ids=lambda error: type(error).__name__)
def test_raised_again_and_again_it_gathers_no_traceback(error: reverb.ReverbError) -> None:
    lengths = set()
    for _ in range(1000):
        with pytest.raises(type(error)) as caught:
            raise again(error)
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert lengths == {1}


def test_a_note_is_for_the_one_who_adds_it() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("notes came with Python 3.11")
    error = reverb.ConnectionError("what failed")
    error.add_note("kept")
    first, second = again(error), again(error)
    first.add_note("mine")
    assert error.__notes__ == second.__notes__ == ["kept"]
    assert first.__notes__ == ["kept", "mine"]


def test_it_can_be_copied_and_sent_to_another_process_as_before() -> None:
    for error in KEPT[:10]:
        same = pickle.loads(pickle.dumps(again(error)))
        assert (type(same), str(same), vars(same)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    ("number", "said"),
    [(1, "1 second"), (1.0, "1 second"), (0.5, "0.5 seconds"), (0, "0 seconds"), (2, "2 seconds")],
)
def test_how_many(number: float, said: str) -> None:
    assert plural(number, "second") == said
