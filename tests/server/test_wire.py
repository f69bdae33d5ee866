from __future__ import annotations

from typing import Any

import pytest

from reverb.server._wire import decode, encode, php_array, php_string, php_true


@pytest.mark.parametrize("text", ["", "{nope", "NaN", "[1e999]", '"\\ud800"', '"\\udc00"', "[" * 5000])
def test_decode_refuses_what_php_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        decode(text)


def test_encode_writes_as_json_encode_does() -> None:
    assert encode({"k": 'é € 😀 / <b> \u2028 "'}) == (r'{"k":"\u00e9 \u20ac \ud83d\ude00 \/ <b> \u2028 \""}')


def test_encode_twice() -> None:
    assert encode(encode({"name": "Al é/"})) == r'"{\"name\":\"Al \\u00e9\\\/\"}"'


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ({}, []),
        ({"a": {"b": {}}, "l": [{}]}, {"a": {"b": []}, "l": [[]]}),
        ({"0": "a", "1": "b"}, ["a", "b"]),
        ({"1": "a", "0": "b"}, {"1": "a", "0": "b"}),
        ({"1": "a"}, {"1": "a"}),
        ({"00": "a"}, {"00": "a"}),
        ([1, None, True, 1.5, "x"], [1, None, True, 1.5, "x"]),
    ],
)
def test_php_array(value: Any, made: Any) -> None:
    assert php_array(value) == made


def test_php_writes_whole_floats_without_a_fraction() -> None:
    assert encode(php_array([1.0, -2.0, 1e300])) == "[1,-2,1e+300]"


@pytest.mark.parametrize(
    ("value", "made"),
    [("x", "x"), (5, "5"), (5.0, "5"), (1.5, "1.5"), (True, "1"), (False, ""), (None, "")],
)
def test_php_string(value: Any, made: str) -> None:
    assert php_string(value) == made


@pytest.mark.parametrize("value", [{}, [1]])
def test_php_string_of_an_array(value: Any) -> None:
    with pytest.raises(ValueError, match="single value"):
        php_string(value)


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", "0", [], {}])
def test_php_false(value: Any) -> None:
    assert not php_true(value)


@pytest.mark.parametrize("value", [True, -1, "00", " ", [0], {"a": 0}])
def test_php_true(value: Any) -> None:
    assert php_true(value)


def test_depth() -> None:
    deepest = decode("[" * 512 + "]" * 512)
    assert php_array(deepest) == deepest
    assert php_array(decode('{"a":' * 511 + "{}" + "}" * 511))
    with pytest.raises(ValueError, match="nested more than 512 deep"):
        decode("[" * 513 + "]" * 513)
