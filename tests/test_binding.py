"""Which events a binding is for, and how it ends."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from reverb import Binding
from reverb._binding import check_name, warn_of_name


def make(*names: str, handler: Any = print, once: bool = False) -> Binding:
    removed: list[Binding] = []

    def remove(binding: Binding) -> bool:
        removed.append(binding)
        return len(removed) == 1

    return Binding(names, handler, None, remove, once=once)


@pytest.mark.parametrize(
    ("names", "matching", "others"),
    [
        (("order.shipped",), ["order.shipped"], ["order.shipped.late", "order", "Order.shipped", "*"]),
        (("order.*",), ["order.", "order.shipped", "order.a.b", "order.*"], ["order", "reorder.a", "Order.a"]),
        (("*.shipped",), ["order.shipped"], ["shipped"]),
        (("item.?",), ["item.1"], ["item.", "item.10"]),
        (("item.[12]",), ["item.1", "item.2", "item.[12]"], ["item.3"]),
        (("App\\Events\\*",), ["App\\Events\\OrderShipped"], ["App\\Models\\Order"]),
        (("a", "b.*"), ["a", "b.c"], ["b", "c"]),
        (("*",), ["order.shipped", "pusher:error", "reverb:error"], []),
        (("error",), ["error", "pusher:error", "reverb:error"], ["order.error"]),
        (("pusher:member_added",), ["pusher_internal:member_added"], ["pusher_internal:member_removed"]),
        (
            ("pusher:member_*",),
            ["pusher_internal:member_added", "pusher_internal:member_removed"],
            ["pusher:pong"],
        ),
        (
            (),
            ["order.shipped", "client-typing", "pushers"],
            ["pusher:error", "pusher_internal:member_added", "reverb:error"],
        ),
    ],
)
def test_what_names_match(names: tuple[str, ...], matching: list[str], others: list[str]) -> None:
    binding = make(*names)
    assert [name for name in matching + others if binding.matches(name)] == matching


def test_a_binding_is_found_by_its_event_and_handler() -> None:
    binding = make("pusher:member_added", handler=print)
    assert binding.is_of("pusher_internal:member_added", print)
    assert binding.is_of("pusher:member_added", None)
    assert not binding.is_of("pusher:member_added", breakpoint)
    assert not binding.is_of("pusher:member_removed", None)


def test_a_handler_that_is_called_once_is_unbound_before() -> None:
    calls: list[Any] = []
    binding = make("e", handler=lambda *arguments: calls.append(arguments), once=True)
    binding.call("e", 1, "a")
    binding.call("e", 2, "a")  # from another queue, which had seen it bound
    assert calls == [("e", 1, "a")]


def test_what_can_not_be_called_is_no_handler() -> None:
    with pytest.raises(TypeError, match="not int"):
        make("e", handler=7)


@pytest.mark.parametrize("name", [None, 7, b"e", ("e",), print, lambda *_: None])
def test_what_is_no_text_is_no_name(name: Any) -> None:
    with pytest.raises(TypeError, match=f"must be a string, not {type(name).__name__}"):
        make(name)


class Names(str, Enum):
    SHIPPED = "order.shipped"


def test_members_of_enums_are_their_values() -> None:
    binding = make(Names.SHIPPED)
    assert binding.matches("order.shipped")
    assert binding.is_of("order.shipped", None)
    assert type(check_name(Names.SHIPPED)) is str


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (".order.shipped", "order.shipped"),
        ("\\App\\Events\\OrderShipped", "App\\Events\\OrderShipped"),
        ("App.Events.OrderShipped", "App\\Events\\OrderShipped"),
        ("App.Events.*", "App\\Events\\*"),
    ],
)
def test_names_that_are_meant_for_echo(name: str, meant: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_name(name)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith(f"a handler is bound to {name!r}, but Laravel sends {meant!r}: ")


@pytest.mark.parametrize(
    "name",
    [
        "order.shipped",
        "App\\Events\\OrderShipped",
        "App\\Events\\*",
        "App.Models.User",
        "app.events.closed",
        "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated",
        "client-typing",
        "*",
        "*.shipped",
        "error",
        "pusher:member_added",
        "my.App.Events.Closed",
        "a b/c:d é 😀",
        ".",
        "../up",
        ".*",
        "",
    ],
)
def test_names_that_nothing_speaks_against(name: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_name(name)
    assert not caplog.records


def test_its_repr_names_handler_and_events() -> None:
    assert repr(make("a", "b.*")) == "<Binding print of 'a', 'b.*'>"
