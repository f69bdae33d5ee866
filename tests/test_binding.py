"""Which events a binding is for, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from reverb import Binding


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
    binding.call("e", 2, "a")  # from another lane, which had seen it bound
    assert calls == [("e", 1, "a")]


def test_what_can_not_be_called_is_no_handler() -> None:
    with pytest.raises(TypeError, match="not int"):
        make("e", handler=7)


def test_its_repr_names_handler_and_events() -> None:
    assert repr(make("a", "b.*")) == "<Binding print of 'a', 'b.*'>"
