from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from reverb.server._wire import (
    decode,
    encode,
    php_array,
    php_comparable,
    php_encode,
    php_equals,
    php_key,
    php_string,
    php_true,
)


@pytest.mark.parametrize("text", ["", "{nope", "NaN", "Infinity", '"\\ud800"', '"\\udc00"', "[" * 5000])
def test_decode_refuses_what_php_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        decode(text)


def test_encode_writes_as_json_encode_does() -> None:
    assert encode({"k": 'é € 😀 / <b> \u2028 "'}) == (r'{"k":"\u00e9 \u20ac \ud83d\ude00 \/ <b> \u2028 \""}')


@pytest.mark.parametrize("text", ["\x7f", "a\x7f\x7f/", "\\u007f", "\\\x7f", "\\\\u007f\x7f", '"\x7f'])
def test_encode_leaves_del_as_it_is(text: str) -> None:
    expected = '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("/", "\\/") + '"'
    assert encode(text) == php_encode(text) == expected


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


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ("1.0", "1"),
        ("-2.0", "-2"),
        ("-0", "0"),
        ("-0.0", "-0"),
        ("0.1", "0.1"),
        ("2.50", "2.5"),
        ("1e3", "1000"),
        ("0.0001", "0.0001"),
        ("0.00012", "0.00012"),
        ("0.00001", "1.0e-5"),
        ("-1.5e-9", "-1.5e-9"),
        ("1e-100", "1.0e-100"),
        ("1e16", "10000000000000000"),
        ("12345678901234567.0", "12345678901234568"),
        ("90071992547409950.0", "90071992547409950"),
        ("1e17", "1.0e+17"),
        ("1e300", "1.0e+300"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9.223372036854776e+18"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("-9223372036854775809", "-9.223372036854776e+18"),
        ("12345678901234567890", "1.2345678901234567e+19"),
        ("1" + "0" * 30, "1.0e+30"),
    ],
)
def test_php_writes_numbers(sent: str, written: str) -> None:
    assert php_encode(decode(sent)) == written
    assert php_encode(decode(f'{{"a":[{sent}]}}')) == f'{{"a":[{written}]}}'


@pytest.mark.parametrize("number", ["1E400", "-1e999", "1" + "0" * 400, "-1" + "0" * 400])
def test_php_does_not_write_what_is_infinite(number: str) -> None:
    assert php_encode(decode(f'{{"a":[{number}]}}')) is False


@pytest.mark.parametrize(
    "value", ["", 'é/"\\\n\0', [], {}, [[], {}], {"": None, "a/b": [True, False, 1, "x"]}, {"a": {"b": {"c": []}}}]
)
def test_php_writes_the_rest_as_json_encode(value: Any) -> None:
    assert php_encode(value) == encode(value)
    assert json.loads(encode(value)) == value


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("x", "x"),
        (5, "5"),
        (5.0, "5"),
        (1.5, "1.5"),
        (0.1 + 0.2, "0.3"),
        (12345678901.2345678, "12345678901.235"),
        (1e14, "1.0E+14"),
        (-0.0, "-0"),
        (1.5e-9, "1.5E-9"),
        (1 << 70, "1.1805916207174E+21"),
        (float("inf"), "INF"),
        (float("-inf"), "-INF"),
        (True, "1"),
        (False, ""),
        (None, ""),
    ],
)
def test_php_string(value: Any, made: str) -> None:
    assert php_string(value) == made


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("x", "x"),
        ("1.0", "1.0"),
        (5, "5"),
        (1.5, "1"),
        (-1.5, "-1"),
        (9999999999999999999, "-8446744073709551616"),
        (float("inf"), "0"),
        (True, "1"),
        (False, "0"),
        (None, ""),
    ],
)
def test_php_key(value: Any, key: str) -> None:
    assert php_key(value) == key


class TestEquality:
    """What PHP 8 finds equal with ``==``."""

    SAME: tuple[tuple[Any, ...], ...] = (
        (1, 1.0, "1", "1.0", " 1", "01", "1e0", "+1 "),
        (0, 0.0, -0.0, "0", "0.0", "-0"),
        (1000, "1e3", "1000"),
        (1.5, "1.5", "15e-1"),
        (9223372036854775807, "9223372036854775807"),
        ("a",),
        ("A",),
        ("a b",),
        ("1_000",),
        ("9999999999999999999",),
        ("9999999999999999998",),
        ("1e999",),
        ("1e998",),
        ("",),
        (" ",),
    )
    """Values that are equal to those beside them, and to no other but true, false and null."""
    VALUES = (*itertools.chain(*SAME), True, False, None)

    def equal(self, one: Any, other: Any) -> bool:
        for value, swapped in ((one, other), (other, one)):
            if isinstance(value, bool):
                return php_true(value) == php_true(swapped)
            if value is None:
                return swapped is None or (isinstance(swapped, str) and not swapped) or swapped == 0
        return any(one in same and other in same for same in self.SAME)

    @pytest.mark.parametrize("one", VALUES, ids=repr)
    def test_is_symmetrical(self, one: Any) -> None:
        for other in self.VALUES:
            (names, equals), (other_names, other_equals) = php_equals(one), php_equals(other)
            equal = not names.isdisjoint(other_equals)
            assert equal == (not other_names.isdisjoint(equals)) == self.equal(one, other), (one, other)

    def test_of_texts(self) -> None:
        assert php_comparable("007") == php_comparable("7") != php_comparable("7a")


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
    deepest = decode("[" * 511 + "]" * 511)
    assert php_array(deepest) == deepest
    assert php_array(decode('{"a":' * 510 + "{}" + "}" * 510))
    with pytest.raises(ValueError, match="nested more than 511 deep"):
        decode("[" * 512 + "]" * 512)
