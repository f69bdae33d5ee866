"""Frozen data that is checked when it is made, and where settings are looked up."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import sys
import traceback
from dataclasses import FrozenInstanceError, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reverb import ConfigurationError
from reverb._checks import text, whole
from reverb._settings import Checked, Found, SecretStr, look_up, setting, variables_of


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Colours(Checked):
    ALTERNATIVES = {"paint": "dye"}  # noqa: RUF012

    shade: str = setting(text)
    dye: SecretStr | None = setting(text, None, is_secret=True)
    paint: SecretStr | None = setting(text, None, is_secret=True)
    depth: int = setting(whole(1, 9), 5)


def test_making_one_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_DYE", "environment")
    Path(".env").write_text("REVERB_DEPTH=1\n")
    made = Colours(shade="red")
    assert (made.shade, made.dye, made.depth) == ("red", None, 5)


def test_they_are_frozen_data() -> None:
    made = Colours(shade="red", dye="D7E", depth="7")
    assert made.depth == 7
    assert made == Colours(shade="red", dye=SecretStr("D7E"), depth=7)
    assert hash(made) == hash(Colours(shade="red", dye="D7E", depth=7))
    assert replace(made, depth=2) == Colours(shade="red", dye="D7E", depth=2)
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made
    assert "D7E" not in f"{made!r} {made} {made.dye} {made.dye!r}"
    with pytest.raises(FrozenInstanceError):
        made.depth = 3  # type: ignore[misc]


@pytest.mark.parametrize("make", [Colours, Colours.from_env])
def test_all_that_is_wrong_is_told_at_once(make: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(dye="", depth=10)
    first, *lines = str(caught.value).splitlines()
    assert first == "invalid settings:"
    assert [line.split()[0] for line in lines] == ["REVERB_SHADE", "REVERB_DYE", "REVERB_DEPTH"]
    assert "is missing" in lines[0]
    assert lines[1:] == ["  REVERB_DYE must not be empty", "  REVERB_DEPTH must be a whole number from 1 to 9"]


def test_where_something_wrong_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_DEPTH", "10")
    Path(".env").write_text("REVERB_SHADE='red\nREVERB_DYE=a b\n")
    with pytest.raises(ConfigurationError) as caught:
        Colours.from_env()
    assert str(caught.value).splitlines()[1:] == [
        "  REVERB_SHADE in .env, line 1, begins with a quote that is not closed",
        "  REVERB_DYE in .env, line 2, has more text after a space or a quote; put the whole value in quotes",
        "  REVERB_DEPTH in the environment must be a whole number from 1 to 9",
    ]


def test_the_sources_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REVERB_SHADE", "environment")
    Path(".env").write_text("REVERB_SHADE=file\nREVERB_DEPTH=1\n")
    (tmp_path / "other.env").write_text("REVERB_DEPTH=2\nREVERB_DYE=${X}\n")
    assert Colours.from_env() == Colours(shade="environment", depth=1)
    assert Colours.from_env(dotenv=None) == Colours(shade="environment")
    assert Colours.from_env(env={}) == Colours(shade="file", depth=1)
    assert Colours.from_env(env={"X": "y"}, dotenv=tmp_path / "other.env", shade="argument") == Colours(
        shade="argument", depth=2, dye="y"
    )
    assert Colours.from_env(dotenv=tmp_path / "no.env", env={"REVERB_SHADE": "red"}) == Colours(shade="red")
    with pytest.raises(ConfigurationError, match="REVERB_SHADE is missing"):
        Colours.from_env(dotenv=None, env={})


@pytest.mark.parametrize(
    ("passed", "env", "in_file", "dye", "paint"),
    [
        ({"dye": "d"}, {"PAINT": "p"}, "", "d", None),
        ({"dye": "d"}, {}, "REVERB_PAINT=p", "d", None),
        ({}, {"DYE": "d"}, "REVERB_PAINT=p", "d", None),
        ({"paint": "p"}, {"DYE": "d"}, "", "d", "p"),
        ({}, {"PAINT": "p"}, "REVERB_DYE=d", "d", "p"),
        ({}, {"PAINT": "p", "DYE": "d"}, "", "d", "p"),
        ({"dye": None}, {"PAINT": "p"}, "", None, "p"),
        ({"paint": None}, {"PAINT": "p"}, "", None, None),
    ],
)
def test_of_alternatives_the_nearer_counts(
    passed: Any, env: dict[str, str], in_file: str, dye: str | None, paint: str | None
) -> None:
    Path(".env").write_text(in_file)
    environment = {f"REVERB_{name}": value for name, value in env.items()}
    assert Colours.from_env(shade="red", env=environment, **passed) == Colours(shade="red", dye=dye, paint=paint)


def test_an_alternative_that_does_not_count_is_named() -> None:
    Path(".env").write_text("REVERB_PAINT=p")
    file = str(Path(".env").resolve())
    assert look_up(Colours, {"dye": "d"}, env={})["paint"] == Found(None, "default", (file,))


def test_a_value_that_may_have_been_cut_off_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Path(".env").write_text("REVERB_SHADE=red\nREVERB_DYE=s3cret#2024\n")
    assert Colours.from_env().dye == SecretStr("s3cret")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("REVERB_DYE in .env, line 2, ends before the #, which begins a comment")
    assert "s3cret" not in record.getMessage()


def test_an_unknown_setting_is_a_mistake_of_the_program() -> None:
    for make in (Colours, Colours.from_env):
        with pytest.raises(TypeError, match="unknown settings: color"):
            make(color="red")


@pytest.mark.parametrize("content", [b"\xff\xfeR\0", "REVERB_SHADE=x".encode("utf-16-le"), b"REVERB_SHADE=r\xe4d"])
def test_a_file_in_another_encoding(content: bytes) -> None:
    Path(".env").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"the file \.env is not UTF-8 text: save it as UTF-8"):
        Colours.from_env()


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    Path(".env").write_bytes(b"\xef\xbb\xbfREVERB_SHADE=red")
    assert Colours.from_env().shade == "red"


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="needs the rights of Unix")
def test_a_file_that_cannot_be_read() -> None:
    Path(".env").mkdir()
    with pytest.raises(ConfigurationError, match=r"the file \.env cannot be read: Is a directory"):
        Colours.from_env()


def test_the_variables() -> None:
    assert variables_of(Colours) == {
        "REVERB_SHADE": "shade",
        "REVERB_DYE": "dye",
        "REVERB_PAINT": "paint",
        "REVERB_DEPTH": "depth",
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"dye": "S3CR3T", "depth": 0},
        {"dye": ["S3CR3T"], "paint": "S3CR3T"},
        {"dye": "S3CR3T\n"},
        {"dye": "S3CR3T", "colour": 1},
    ],
)
@pytest.mark.parametrize("make", [Colours, Colours.from_env])
def test_no_frame_of_an_exception_holds_a_secret(
    make: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVERB_PAINT", "S3CR3T")
    with pytest.raises((ConfigurationError, TypeError)) as caught:
        make(**settings)
    error = caught.value
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in shown.stack if "reverb" in Path(frame.filename).parts]
    assert frames
    assert "S3CR3T" not in f"{error}{[frame.locals for frame in frames]}"
    assert error.__cause__ is None
