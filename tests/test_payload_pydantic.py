"""Payloads and secrets of pydantic, which the client does without."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from reverb import ReverbConfig
from reverb._payload import MismatchError, reader
from reverb._protocol import parse_data
from reverb._settings import SecretStr

pytest.importorskip("pydantic")

import pydantic


class Model(pydantic.BaseModel):
    id: int
    on: date | None = None


class Named(pydantic.BaseModel):
    id: int
    name: str


@pydantic.dataclasses.dataclass
class Checked:
    id: int


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (Model, '{"id":1,"on":"2026-11-24"}', Model(id=1, on=date(2026, 11, 24))),
        (Checked, '{"id":1}', Checked(id=1)),
        (list[Model], '[{"id":1}]', [Model(id=1)]),
        (list[Named], r'[{"id":1,"name":"x\ud83d"}]', [Named(id=1, name="x�")]),
        (Named, r'{"id":1,"name":"x\ud83d"}', Named(id=1, name="x�")),
    ],
)
def test_what_fits(type_: Any, text: str, value: Any) -> None:
    assert reader(type_)(text) == value
    assert reader(type_)(parse_data(text)) == value


@pytest.mark.parametrize(
    ("type_", "text", "path", "reason"),
    [
        (Model, '{"id":"\\ud83d"}', "$.id", "valid integer"),
        (Model, '{"id":"x"}', "$.id", "valid integer"),
        (list[Model], '[{"id":1},{}]', "$[1].id", "required"),
        (Model, "text", "$", "dictionary"),
    ],
)
def test_what_does_not_fit_says_where(type_: Any, text: str, path: str, reason: str) -> None:
    for data in (text, parse_data(text)):
        with pytest.raises(MismatchError) as caught:
            reader(type_)(data)
        assert caught.value.path == path
        assert reason in str(caught.value)


def test_errors_do_not_show_the_data() -> None:
    with pytest.raises(MismatchError) as caught:
        reader(Model)('{"id":"hush-hush"}')
    assert "hush-hush" not in str(caught.value)


def test_its_secrets_are_taken_for_settings() -> None:
    config = ReverbConfig(app_key="key", host="host", app_secret=pydantic.SecretStr("hush-hush"))
    assert config.app_secret == SecretStr("hush-hush")
    assert "hush-hush" not in repr(config)
