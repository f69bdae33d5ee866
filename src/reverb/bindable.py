"""What handlers are bound to: the ways to get events that clients, channels and users have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from ._binding import Binding, Handler, check_name, warn_of_name
from .events import Events
from .exceptions import ConnectionError, ReverbError, TimeoutError, plural
from .stream import Buffer, Event, EventStream, Gap

if TYPE_CHECKING:
    from typing_extensions import Self, TypeForm

    from ._dispatch import Lane

__all__ = ["Bindable"]

T = TypeVar("T")
AnyHandler = TypeVar("AnyHandler", bound="Handler[Any]")
T_contra = TypeVar("T_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class SenderHandler(Protocol[T_contra, Result_co]):
    """A handler that is told who sent a client event, and what it returns."""

    def __call__(
        self, event: str, data: T_contra, channel: str | None, /, *, user_id: str | None
    ) -> Result_co: ...


class TypedDecorator(Protocol[T]):
    """Takes a handler that wants its data in this type, and returns it."""

    @overload
    def __call__(self, handler: SenderHandler[T, Result], /) -> SenderHandler[T, Result]: ...

    @overload
    def __call__(
        self, handler: Callable[[str, T, str | None], Result], /
    ) -> Callable[[str, T, str | None], Result]: ...

    @overload
    def __call__(self, handler: Handler[T], /) -> Handler[T]: ...


class Bindable:
    """Has events, and handlers for them.

    The name of an event may be a glob pattern, such as ``order.*``, in which ``*`` stands for any characters,
    ``?`` for one and ``[…]`` for one of some.

    ``type`` is what handlers get the data as: a :class:`msgspec.Struct`, a dataclass, a TypedDict, an attrs class,
    a pydantic model, or a generic of such, read straight from the JSON. A handler whose parameter for the data is
    annotated with such a type gets it without ``type``; annotations that say no more than JSON does, such as
    ``dict``, change nothing, and neither do those that can't be used, because they are not there at run time or
    nothing can be read into them. (The log has those, at INFO.) Where data does not fit, the handler is not
    called, and those of ``"error"`` get a :class:`PayloadError` that names the field.

    With :class:`msgspec.Raw` as type or annotation it is the JSON text as it was received, unparsed:
    ``bytes(data)`` is UTF-8, and always JSON. A text that is no JSON comes as a JSON string, no data at all as
    ``null``.
    """

    __slots__ = ()

    _lane: Lane

    @overload
    def bind(self, event: str, handler: Handler[Any], *, once: bool = False) -> Self: ...

    @overload
    def bind(self, event: str, handler: Handler[T], *, type: type[T], once: bool = False) -> Self: ...

    @overload
    def bind(self, event: str, handler: Handler[T], *, type: TypeForm[T], once: bool = False) -> Self: ...

    def bind(self, event: str, handler: Handler[Any], *, type: Any = None, once: bool = False) -> Self:
        """Call ``handler(event, data, channel)`` for each ``event``; return the object itself.

        ``event`` is a name, a glob pattern, one of :class:`Events`, ``"*"`` for every event, or ``"error"`` for
        what goes wrong: ``pusher:error``, ``reverb:error``, and an application's own event ``error``, which the
        pattern ``[e]rror`` stands for alone. ``once`` unbinds the handler when it is called.

        ``handler`` is an ``async def`` or a plain function; ``data`` is parsed JSON, or the string itself when it
        isn't JSON, or None when the event has none; or ``type``. A handler with a parameter named ``user_id`` also
        gets the sender of a client event on a presence channel (a string; None for all other events). Events of a
        channel are delivered one after another, in order: a slow handler delays this channel and nothing else.
        What a handler raises is logged and reported to the error handlers. All handlers of an event that take JSON
        get the same object: one that changes it changes it for those behind.

        Raises :class:`TypeError` for a handler that can't be called, or not so, as far as its signature says, for
        a name that is no string, and for a type that nothing can be read into. Names as Laravel Echo writes them
        (``.order.shipped``, ``App.Events.OrderShipped``) are warned of in the log: see :class:`reverb.Echo`.
        """
        self._bind((event,), handler, type, once=once)
        return self

    @overload
    def binding(self, event: str, handler: Handler[Any], *, once: bool = False) -> Binding: ...

    @overload
    def binding(self, event: str, handler: Handler[T], *, type: type[T], once: bool = False) -> Binding: ...

    @overload
    def binding(self, event: str, handler: Handler[T], *, type: TypeForm[T], once: bool = False) -> Binding: ...

    def binding(self, event: str, handler: Handler[Any], *, type: Any = None, once: bool = False) -> Binding:
        """As :meth:`bind`, but return the :class:`Binding`, which unbinds this handler from this event: by its
        ``unbind()``, or at the end of a ``with``."""
        return self._bind((event,), handler, type, once=once)

    def unbind(self, event: str, handler: Handler[Any] | None = None) -> Self:
        """Remove ``handler`` from ``event``, as both were given to :meth:`bind`, or all handlers bound to it;
        return the object itself. Who waits for the event or iterates over it still gets it."""
        self._lane.unbind(event, handler)
        return self

    @overload
    def on(self, event: str, *, once: bool = False) -> Callable[[AnyHandler], AnyHandler]: ...

    @overload
    def on(self, event: str, *, type: type[T], once: bool = False) -> TypedDecorator[T]: ...

    @overload
    def on(self, event: str, *, type: TypeForm[T], once: bool = False) -> TypedDecorator[T]: ...

    def on(self, event: str, *, type: Any = None, once: bool = False) -> Callable[[Any], Any]:
        """Decorate a handler: :meth:`bind` it, and leave it as it is."""
        check_name(event)

        def bind(handler: Any) -> Any:
            self._bind((event,), handler, type, once=once)
            return handler

        return bind

    @overload
    def events(
        self, *events: str, include_gaps: Literal[False] = False, buffer: int = 100
    ) -> EventStream[Event[Any]]: ...

    @overload
    def events(
        self, *events: str, type: type[T], include_gaps: Literal[False] = False, buffer: int = 100
    ) -> EventStream[Event[T]]: ...

    @overload
    def events(
        self, *events: str, type: TypeForm[T], include_gaps: Literal[False] = False, buffer: int = 100
    ) -> EventStream[Event[T]]: ...

    @overload
    def events(
        self, *events: str, include_gaps: Literal[True], buffer: int = 100
    ) -> EventStream[Event[Any] | Gap]: ...

    @overload
    def events(
        self, *events: str, type: type[T], include_gaps: Literal[True], buffer: int = 100
    ) -> EventStream[Event[T] | Gap]: ...

    @overload
    def events(
        self, *events: str, type: TypeForm[T], include_gaps: Literal[True], buffer: int = 100
    ) -> EventStream[Event[T] | Gap]: ...

    def events(
        self, *events: str, type: Any = None, include_gaps: bool = False, buffer: int = 100
    ) -> EventStream[Any]:
        """Iterate over events, from now on: ``async for event in channel.events("order.*"): …``.

        Without names it is over all events but those of the protocol itself (``pusher:…``, ``pusher_internal:…``)
        and of this client (``reverb:…``). Goes on over reconnects; with ``include_gaps`` a :class:`Gap` stands
        where events of a channel may be missing. When ``buffer`` events wait, those behind them wait on their
        channel, as with a slow handler. How it ends: see :class:`EventStream`.
        """
        if buffer < 1:
            raise ValueError("the buffer of a stream must have room for an event")
        return EventStream(self._collect(events, type, buffer, include_gaps=include_gaps))

    @overload
    async def wait_for(
        self, event: str, *, timeout: float | None = None, where: Callable[[Event[Any]], bool] | None = None
    ) -> Event[Any]: ...

    @overload
    async def wait_for(
        self,
        event: str,
        *,
        type: type[T],
        timeout: float | None = None,
        where: Callable[[Event[T]], bool] | None = None,
    ) -> Event[T]: ...

    @overload
    async def wait_for(
        self,
        event: str,
        *,
        type: TypeForm[T],
        timeout: float | None = None,
        where: Callable[[Event[T]], bool] | None = None,
    ) -> Event[T]: ...

    async def wait_for(
        self,
        event: str,
        *,
        type: Any = None,
        timeout: float | None = None,
        where: Callable[[Event[Any]], bool] | None = None,
    ) -> Event[Any]:
        """Wait for the next ``event``, or the next for which ``where`` is true.

        Goes on over reconnects. Raises :class:`TimeoutError` after ``timeout`` seconds (None: never), what
        ``where`` raises, and when no more events can come :class:`ConnectionError`, or what
        :meth:`ReverbClient.listen` raises. In a handler of the same channel, for which the next event waits, it
        raises :class:`RuntimeError`.
        """
        collected = self._collect((event,), type)
        deadline = None if timeout is None else monotonic() + timeout
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - monotonic())
                each: Event[Any] = await collected.next(left)
                if where is None or where(each):
                    return each
        except StopAsyncIteration:
            raise ConnectionError(f"unsubscribed or disconnected while waiting for {event!r}") from None
        except asyncio.TimeoutError as error:
            if timeout is None or isinstance(error, ReverbError):  # what ended the stream, or of "where"
                raise
            raise TimeoutError(f"no {event!r} on {self!r} within {plural(timeout, 'second')}") from None
        finally:
            collected.close()

    def _collect(
        self, names: tuple[str, ...], type_: Any, size: int = 100, *, include_gaps: bool = False
    ) -> Buffer:
        """Collect events from now on, in a buffer that has to be closed, or given to a stream."""
        buffer = self._new_buffer(size)
        buffer.add(self._bind(names, buffer.put, type_))
        if include_gaps:
            buffer.add(self._bind((Events.RESUBSCRIBED,), buffer.put_gap))
            buffer.add(self._bind((Events.EVENTS_DROPPED,), buffer.put_dropped))
        return buffer

    def _bind(
        self, names: tuple[str, ...], handler: Handler[Any], type_: Any = None, *, once: bool = False
    ) -> Binding:
        binding = self._lane.bind(names, handler, type_, once=once)
        for name in names:
            warn_of_name(name)
        return binding

    def _new_buffer(self, size: int) -> Buffer:
        raise NotImplementedError


def lane_of(bindable: Bindable) -> Lane:
    """Where its events go, for what else in this package is built on it."""
    return bindable._lane
