"""Handlers, and the events that they are bound to."""

from __future__ import annotations

import fnmatch
import inspect
import logging
import re
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Union
from weakref import WeakKeyDictionary

from . import _payload
from ._protocol import PROTOCOL_PREFIXES

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

log = logging.getLogger("reverb.binding")

ERROR_EVENT = "reverb:error"
WILDCARD = "*"

_ALIASES = {
    "pusher:subscription_succeeded": "pusher_internal:subscription_succeeded",
    "pusher:member_added": "pusher_internal:member_added",
    "pusher:member_removed": "pusher_internal:member_removed",
    "pusher:subscription_count": "pusher_internal:subscription_count",
}
"""pusher-js uses the names on the left; servers send those on the right."""
_PUBLIC_NAMES = {wire: public for public, wire in _ALIASES.items()}
_ERROR_NAMES = frozenset({"error", "pusher:error", ERROR_EVENT})
"""The events that a handler of ``"error"`` gets."""

T_contra = TypeVar("T_contra", contravariant=True)


class PlainHandler(Protocol[T_contra]):
    """A handler that takes ``(event, data, channel)``."""

    def __call__(self, event: str, data: T_contra, channel: str | None, /) -> Any: ...


class UserHandler(Protocol[T_contra]):
    """A handler with a parameter ``user_id``: the sender of a client event on a presence channel."""

    def __call__(self, event: str, data: T_contra, channel: str | None, /, *, user_id: str | None) -> Any: ...


Handler = Union[PlainHandler[T_contra], UserHandler[T_contra]]  # noqa: UP007 - Python 3.10 can't "|" generic protocols
"""A function ``(event, data, channel)``, plain or ``async def``; optionally with a keyword parameter ``user_id``.
"""


def check_name(event: Any) -> str:
    """Return the name of an event as a plain string; raise TypeError if it is not a string."""
    if not isinstance(event, str):
        hint = '; pass the name to the decorator: @on("order.shipped")' if callable(event) else ""
        raise TypeError(f"the name of an event must be a string, not {type(event).__name__}{hint}")
    return str.__str__(event)  # str() of an enum member may return another text


def warn_of_name(event: str) -> None:
    """Warn if a name looks like one of Laravel Echo, which changes names."""
    if re.match(r"[.\\]\w", event):
        meant, how = event[1:], f"a leading {event[0]!r} means that the name is complete"
    elif event.startswith("App.Events."):
        meant, how = event.replace(".", "\\"), "dots mean backslashes"
    else:
        return
    log.warning(
        "a handler is bound to %r, but Laravel sends %r: in Echo, %s. Bind that name, or use reverb.Echo",
        event,
        meant,
        how,
    )


class _Signature:
    """What the signature of a handler says."""

    __slots__ = ("_parameters", "_type", "is_async", "takes_user_id")

    def __init__(self, handler: Handler[Any]) -> None:
        self._parameters: list[inspect.Parameter] | None
        self._parameters = _payload.check_handler(handler, "event", "data", "channel")
        self._type: Any = None
        self.is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
        self.takes_user_id = _payload.takes_user_id(self._parameters)

    def annotated_type(self, handler: Handler[Any]) -> Any:
        if self._parameters is not None:
            self._type = _payload.annotated_type(handler, self._parameters)
            self._parameters = None
        return self._type


_signatures: WeakKeyDictionary[Any, _Signature] = WeakKeyDictionary()
"""Signatures of functions that were bound before. To inspect one takes longer than the rest of a bind."""


def _signature_of(handler: Handler[Any]) -> _Signature:
    if not isinstance(handler, FunctionType):  # a bound method, for example, is a new object each time
        return _Signature(handler)
    signature = _signatures.get(handler)
    if signature is None:
        signature = _signatures[handler] = _Signature(handler)
    return signature


class Binding:
    """A handler that is bound; :meth:`reverb.ReverbClient.binding` returns it.

    In a ``with`` statement, the end of the block unbinds the handler.
    """

    __slots__ = (
        "_names",
        "_patterns",
        "_remove",
        "call",
        "handler",
        "is_async",
        "is_of_stream",
        "is_simple",
        "read",
        "takes_user_id",
        "wants_json",
    )

    def __init__(
        self,
        names: tuple[str, ...],
        handler: Handler[Any],
        type_: Any,
        remove: Callable[[Binding], bool],
        *,
        once: bool,
    ) -> None:
        signature = _signature_of(handler)
        self._names = tuple([_on_the_wire(name) for name in names])
        self._patterns = tuple([_pattern(name) for name in self._names if _GLOB.search(name)])
        self._remove = remove
        self.is_of_stream = False
        """Whether a stream made it. Then only the stream unbinds it."""
        self.handler = handler
        """The handler."""
        self.call: Any = self._call_once if once else handler
        self.is_async = signature.is_async
        self.takes_user_id = signature.takes_user_id
        if type_ is None:
            type_ = signature.annotated_type(handler)
        self.wants_json = type_ in (None, Any)
        self.read = _payload.reader(type_)
        self.is_simple = self.wants_json and not self.takes_user_id
        """Whether the handler takes three arguments, and JSON."""

    def unbind(self) -> None:
        """Unbind the handler. Does nothing if it is unbound already."""
        self._remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unbind()

    def __repr__(self) -> str:
        return f"<Binding {self.handler_name} of {', '.join(map(repr, self._names))}>"

    @property
    def handler_name(self) -> str:
        """The name of the handler, for the log."""
        return _payload.handler_name(self.handler)

    def matches(self, event: str) -> bool:
        """Return whether the handler gets events with this name."""
        names = self._names
        if not names:
            return not event.startswith(PROTOCOL_PREFIXES)
        return (
            event in names
            or WILDCARD in names
            or ("error" in names and event in _ERROR_NAMES)
            or any(each.match(event) or each.match(_PUBLIC_NAMES.get(event, event)) for each in self._patterns)
        )

    def is_of(self, event: str, handler: Handler[Any] | None) -> bool:
        """Return whether ``bind(event, handler)`` made it; None means any handler."""
        is_of_event = self._names == (_ALIASES.get(event, event),) and not self.is_of_stream
        return is_of_event and handler in (None, self.handler)

    def _call_once(self, *arguments: Any, **user_id: Any) -> Any:
        # Queues run in parallel; more than one may be about to call.
        return self.handler(*arguments, **user_id) if self._remove(self) else None


def _on_the_wire(event: str) -> str:
    name = check_name(event)
    return _ALIASES.get(name, name)


_GLOB = re.compile(r"[*?\[]")


@lru_cache(maxsize=1000)
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(name))
