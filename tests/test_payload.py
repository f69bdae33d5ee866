"""What data is read into, and how the type that a handler wants is found."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import types
import typing
import unittest.mock
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import date
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, NewType, Protocol, Union

import attrs
import msgspec
import pytest
from typing_extensions import TypedDict

from reverb._payload import MismatchError, annotated_type, check_handler, handler_name, reader, signature_of
from reverb._protocol import parse_data

if TYPE_CHECKING:
    from elsewhere import Unknown  # type: ignore[import-not-found]


class Line(msgspec.Struct):
    quantity: int


class Item(msgspec.Struct):
    id: int
    lines: list[Line] = []


@dataclasses.dataclass
class Data:
    id: int


class Typed(TypedDict):
    id: int


@attrs.define
class Attrs:
    id: int


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (Item, '{"id":1,"lines":[{"quantity":2}]}', Item(1, [Line(2)])),
        (Data, '{"id":1}', Data(1)),
        (Typed, '{"id":1}', {"id": 1}),
        (Attrs, '{"id":1}', Attrs(1)),
        (dict[str, Item], '{"a":{"id":1}}', {"a": Item(1)}),
        (dict[int, date], '{"7":"2026-11-24"}', {7: date(2026, 11, 24)}),
        (Item | None, "null", None),
        (Annotated[int, msgspec.Meta(gt=0)], "7", 7),
        (tuple[int, ...], "[1,2]", (1, 2)),
        (str, "no JSON at all", "no JSON at all"),
    ],
)
def test_data_is_read_into_its_type(type_: Any, text: str, value: Any) -> None:
    read = reader(type_)
    assert read(text) == value
    assert type(read(text)) is type(value)
    # Client events hold their data as a value, and not as text.
    assert read(parse_data(text)) == value


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        (Item, r'{"id":1,"name":"\ud83d"}', Item(1)),
        (dict[str, str], r'{"\ud83d":"\ude00"}', {"�": "�"}),
        (dict[str, float], '{"a":1e999}', {"a": inf}),
        (dict[int, float], '{"7":-%s}' % ("9" * 5000), {7: -inf}),
        (list[float], "[1e999]", [inf]),
    ],
)
def test_unusual_json_is_read_into_its_type(type_: Any, text: str, value: Any) -> None:
    assert reader(type_)(text) == value


def test_json_as_it_comes() -> None:
    for anything in (None, Any):
        read = reader(anything)
        assert [read('{"id":"1"}'), read("text"), read(None)] == [{"id": "1"}, "text", None]


@pytest.mark.parametrize(
    "text",
    [
        '{"b":1,"a":{"c":[]}}',
        ' { "b" : 1.0,\n"a":-0 }\t\n',
        '{"a":1,"a":2}',
        r'"\u00e9\/\ud83d\ude00"',
        '"é😀"',
        "[1E+2,1e999,-1e-999,12345678901234567890123,%s]" % ("9" * 5000),
        "null",
        "false",
        '"text"',
        r'{"name":"\ud83d"}',
        r'{"\ude00":"\\\ud83d\ud83d\ude00"}',
        "[" * 100 + "]" * 100,
    ],
)
def test_raw_is_the_text_as_it_was_received(text: str) -> None:
    raw = reader(msgspec.Raw)(text)
    assert type(raw) is msgspec.Raw
    assert bytes(raw) == text.encode()
    assert bytes(msgspec.json.encode({"data": raw})) == b'{"data":%s}' % text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "text",
        "nul",
        '{"a":1',
        "{'a':1}",
        "[1,]",
        "01",
        "[NaN]",
        "Infinity",
        '"a\nb"',
        r'"\x"',
        r'"\ud8"',
        r'"\ud83d" "',
        "\ufeff{}",
        "[" * 200_000,
        "[" * 200_000 + "]" * 200_000,
    ],
)
def test_raw_of_a_text_that_is_no_json_is_a_json_string(text: str) -> None:
    assert json.loads(bytes(reader(msgspec.Raw)(text))) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "null"),
        ({"b": 1, "a": ["é", None, 1.5]}, '{"b":1,"a":["é",null,1.5]}'),
        ([], "[]"),
        (True, "true"),
        ({"n": 10**40}, '{"n":1%s}' % ("0" * 40)),
        ({"n": inf}, '{"n":null}'),
        ({"message": "no", "exception": ValueError("no")}, '{"message":"no","exception":"no"}'),
    ],
)
def test_raw_of_data_that_came_as_a_value_is_its_json(data: Any, text: str) -> None:
    assert bytes(reader(msgspec.Raw)(data)) == text.encode()


@pytest.mark.parametrize(
    ("type_", "text", "path", "reason"),
    [
        (Item, '{"id":"1"}', "$.id", "Expected `int`, got `str`"),
        (Item, '{"id":1,"lines":[{"quantity":1},{"quantity":null}]}', "$.lines[1].quantity", "Expected `int`"),
        (Item, "{}", "$", "missing required field `id`"),
        (Item, "[]", "$", "Expected `object`"),
        (Item, "text", "$", "Expected `object`, got `str`"),
        (Item, '{"id":1e999}', "$.id", "Expected `int`, got `float`"),
        (Item, '{"id":"\\ud83d"}', "$.id", "Expected `int`, got `str`"),
        (Item, "null", "$", "Expected `object`, got `null`"),
    ],
)
def test_what_does_not_fit_says_where(type_: Any, text: str, path: str, reason: str) -> None:
    for data in (text, parse_data(text)):
        with pytest.raises(MismatchError) as caught:
            reader(type_)(data)
        assert caught.value.path == path
        assert reason in str(caught.value)
        assert str(caught.value).endswith(f"at {path}")


def test_handlers_that_want_the_same_type_share_a_reader() -> None:
    assert reader(list[Item]) is reader(list[Item])


class Plain:
    pass


@pytest.mark.parametrize("type_", [Plain, list[Plain], Item | dict[str, int]])
def test_types_that_nothing_can_be_read_into(type_: Any) -> None:
    with pytest.raises(TypeError):
        reader(type_)


# --- handlers --------------------------------------------------------------------------------------------------


def three(event: str, data: Any, channel: str | None) -> None: ...
def default(event: str, data: Any, channel: str | None, retries: int = 3) -> None: ...
def sender(event: str, data: Any, channel: str | None, user_id: str | None) -> None: ...
def sender_by_name(event: str, data: Any, channel: str | None, *, user_id: str | None) -> None: ...
def any_number(*arguments: Any) -> None: ...
def any_name(event: str, *rest: Any, **more: Any) -> None: ...
def user_in_place(event: str, data: Any, channel: str | None, user_id: Any = None, /) -> None: ...


def two(event: str, data: Any) -> None: ...
def none() -> None: ...
def four(event: str, data: Any, channel: str | None, more: Any) -> None: ...
def sender_in_the_place_of_the_channel(event: str, data: Any, user_id: str | None) -> None: ...
def by_name(event: str, data: Any, channel: str | None, *, more: Any) -> None: ...


@functools.wraps(four)
def adds_one(*arguments: Any) -> None: ...


@functools.wraps(two)
def takes_one_away(event: str, data: Any, channel: str | None) -> None:
    two(event, data)


@functools.wraps(four)
def adds_nothing(event: str) -> None: ...


class Methods:
    def three(self, event: str, data: Any, channel: str | None) -> None: ...
    def two(self, event: str, data: Any) -> None: ...
    def __call__(self, event: str, data: Any, channel: str | None) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [
        three,
        default,
        sender,
        sender_by_name,
        any_number,
        any_name,
        user_in_place,
        adds_one,
        takes_one_away,
        functools.partial(four, more=1),
        functools.partial(adds_one),
        Methods().three,
        Methods(),
        unittest.mock.Mock(),
        unittest.mock.AsyncMock(),
        lambda *_: None,
        print,
        max,  # which has no signature
    ],
)
def test_handlers_that_can_be_called(handler: Any) -> None:
    check_handler(handler, "event", "data", "channel")


@pytest.mark.parametrize(
    "handler",
    [
        two,
        none,
        four,
        sender_in_the_place_of_the_channel,
        by_name,
        adds_nothing,
        functools.partial(three, "e"),
        Methods().two,
        Methods.three,
        [].append,
        lambda data: None,
    ],
)
def test_handlers_that_can_not_be_called_as_handlers_are(handler: Any) -> None:
    name = handler_name(handler).replace(".", "[.]")
    with pytest.raises(TypeError, match=rf"handler {name} can't be called with \(event, data, channel.*\): "):
        check_handler(handler, "event", "data", "channel")


def generator_function(event: str, data: Any, channel: str | None) -> Iterator[None]:
    yield


async def async_generator_function(event: str, data: Any, channel: str | None) -> AsyncIterator[None]:
    yield


class Generates:
    def method(self, event: str, data: Any, channel: str | None) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    "handler",
    [
        generator_function,
        async_generator_function,
        Generates().method,
        functools.partial(generator_function),
    ],
)
def test_a_generator_is_no_handler(handler: Any) -> None:
    with pytest.raises(TypeError, match=f"{handler_name(handler)} is a generator function"):
        check_handler(handler, "event", "data", "channel")


def test_a_generator_that_can_be_awaited_is_one() -> None:
    check_handler(types.coroutine(generator_function), "event", "data", "channel")


def test_handlers_have_names_that_show_nothing_they_carry() -> None:
    assert handler_name(three) == "three"
    assert handler_name(Methods().three) == "Methods.three"
    assert handler_name(functools.partial(functools.partial(four, "e"), more="hush-hush")) == "four"
    assert "Methods" in handler_name(Methods())


def found(handler: Any) -> Any:
    signature = signature_of(handler)
    return annotated_type(handler, [] if signature is None else list(signature.parameters.values()))


class Handlers:
    def method(self, event: str, data: Item, channel: str | None) -> None: ...

    def __call__(self, event: str, data: Item, channel: str | None) -> None: ...


def plain(event: str, data: Item, channel: str | None) -> None: ...


async def awaited(event: str, data: Item, channel: Unknown) -> None: ...


def with_first(first: int, event: str, data: Item, channel: str | None) -> None: ...


@functools.wraps(plain)
def wrapped(*arguments: Any) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [plain, awaited, Handlers().method, Handlers(), functools.partial(with_first, 1), wrapped],
    ids=["function", "async", "method", "object", "partial", "wrapped"],
)
def test_the_type_is_that_of_the_second_parameter(handler: Any) -> None:
    assert found(handler) is Item


def no_annotation(event, data, channel): ...  # type: ignore[no-untyped-def]
def anything(event: str, data: Any, channel: str | None) -> None: ...
def an_object(event: str, data: object, channel: str | None) -> None: ...
def a_dict(event: str, data: dict, channel: str | None) -> None: ...  # type: ignore[type-arg]
def a_dict_of_anything(event: str, data: dict[str, Any], channel: str | None) -> None: ...
def a_list_of_numbers(event: str, data: list[int] | None, channel: str | None) -> None: ...
def a_sequence(event: str, data: Sequence[dict[str, Any]], channel: str | None) -> None: ...
def variadic(*arguments: int) -> None: ...
def too_short(event: str) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [
        no_annotation,
        anything,
        an_object,
        a_dict,
        a_dict_of_anything,
        a_list_of_numbers,
        a_sequence,
        variadic,
        too_short,
        print,
        dict.fromkeys,
    ],
)
def test_annotations_that_say_no_more_than_json_change_nothing(handler: Any) -> None:
    assert found(handler) is None


def test_raw_is_a_type_that_handlers_are_annotated_with() -> None:
    def handler(event: str, data: msgspec.Raw, channel: str | None) -> None: ...

    assert found(handler) is msgspec.Raw


def test_an_optional_type_is_one() -> None:
    def handler(event: str, data: Item | None, channel: str | None) -> None: ...

    assert found(handler) == (Item | None)


class Ordinary:
    """What nothing can be read into."""


class Speaks(Protocol):
    def speak(self) -> None: ...


class Unresolved(msgspec.Struct):
    later: Unknown


Tree = Union[dict[str, "Tree"], list["Tree"], str]  # noqa: UP007 - which can't be made with "|"
Identified = NewType("Identified", dict[str, Any])


def not_there(event: str, data: Unknown, channel: str | None) -> None: ...
def not_there_in_part(event: str, data: list[Unknown] | None, channel: str | None) -> None: ...
def ordinary(event: str, data: Ordinary, channel: str | None) -> None: ...
def ordinary_in_part(event: str, data: dict[str, Ordinary], channel: str | None) -> None: ...
def protocol(event: str, data: Speaks, channel: str | None) -> None: ...
def generator(event: str, data: Iterable[int], channel: str | None) -> None: ...
def called(event: str, data: Callable[[], None], channel: str | None) -> None: ...
def unresolved(event: str, data: Unresolved, channel: str | None) -> None: ...
def recursive(event: str, data: Tree, channel: str | None) -> None: ...
def ambiguous(event: str, data: Item | Line, channel: str | None) -> None: ...
def prose(event: str, data: "what was ordered", channel: str | None) -> None: ...  # type: ignore # noqa: F722
def number(event: str, data: 5, channel: str | None) -> None: ...  # type: ignore[valid-type]
def fails(event: str, data: 1 / 0, channel: str | None) -> None: ...  # type: ignore[valid-type]


@pytest.mark.parametrize(
    "handler",
    [
        not_there,
        not_there_in_part,
        ordinary,
        ordinary_in_part,
        protocol,
        generator,
        called,
        unresolved,
        recursive,
        ambiguous,
        prose,
        number,
        fails,
    ],
)
def test_annotations_that_can_not_be_used_change_nothing_and_the_log_says_so(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="reverb"):
        assert found(handler) is None
    (message,) = caplog.messages
    assert message.startswith(f"handler {handler.__name__} gets its data as JSON")


def test_a_class_that_is_not_known_where_the_handler_is_defined() -> None:
    class Local(msgspec.Struct):
        id: int

    def handler(event: str, data: Local, channel: str | None) -> None: ...

    assert found(handler) in (None, Local)  # from Python 3.14 on, annotations know what is around them


@pytest.mark.parametrize("quoted", ["Item", "'Item'", "typing.Optional['Item']", "Annotated[Item, 'x']"])
def test_names_that_are_quoted(quoted: str) -> None:
    def handler(event: str, data: Any, channel: str | None) -> None: ...

    handler.__annotations__["data"] = quoted
    assert found(handler) == typing.get_type_hints(handler, include_extras=True)["data"]
    assert reader(found(handler))('{"id":1}') == Item(1)


def identified(event: str, data: Identified, channel: str | None) -> None: ...


def test_another_name_for_a_type_of_json_changes_nothing() -> None:
    assert found(identified) is None


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 made the statement")
@pytest.mark.parametrize(
    ("alias", "is_read"), [("dict[str, int]", False), ("Item", True), ("dict[str, Alias]", False)]
)
def test_a_type_by_a_statement(alias: str, is_read: bool) -> None:
    names: dict[str, Any] = {"Item": Item}
    exec(f"type Alias = {alias}\ndef handler(event: str, data: Alias, channel: str): ...", names)
    assert (found(names["handler"]) is not None) is is_read


@pytest.mark.parametrize("type_", [Ordinary, list[Ordinary], Iterable[int], Callable[[], None], Speaks])
def test_a_type_that_is_asked_for_has_to_be_one(type_: Any) -> None:
    with pytest.raises(TypeError, match="can't be read into"):
        reader(type_)
