"""The methods to bind handlers and to wait for events that clients, channels and users share."""

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

    from ._dispatch import EventQueue

__all__ = ["Bindable"]

T = TypeVar("T")
AnyHandler = TypeVar("AnyHandler", bound="Handler[Any]")
T_contra = TypeVar("T_contra", contravariant=True)
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class SenderHandler(Protocol[T_contra, Result_co]):
    """A handler with a parameter ``user_id``, the sender of a client event."""

    def __call__(
        self, event: str, data: T_contra, channel: str | None, /, *, user_id: str | None
    ) -> Result_co: ...


class TypedDecorator(Protocol[T]):
    """Decorates a handler whose data has this type; returns the handler unchanged."""

    @overload
    def __call__(self, handler: SenderHandler[T, Result], /) -> SenderHandler[T, Result]: ...

    @overload
    def __call__(
        self, handler: Callable[[str, T, str | None], Result], /
    ) -> Callable[[str, T, str | None], Result]: ...

    @overload
    def __call__(self, handler: Handler[T], /) -> Handler[T]: ...


class Bindable:
    """Base of :class:`ReverbClient`, :class:`Channel` and :class:`User`: binds handlers to events.

    **Event names.** A name may be a glob pattern, such as ``order.*``. In it ``*`` stands for any characters,
    ``?`` for one character, and ``[…]`` for one of the characters in the brackets.

    **Types.** With ``type``, the client reads the data from the JSON into that type: a :class:`msgspec.Struct`, a
    dataclass, a TypedDict, an attrs class, a pydantic model, or a generic of these. The annotation of the
    handler's parameter for the data does the same without ``type``. Annotations that JSON has, too, such as
    ``dict``, change nothing. Neither do annotations that can't be used: they don't exist at run time, or no data
    can be read into them. The log names those at level INFO. If the data does not fit the type, the client does
    not call the handler; handlers of ``"error"`` get a :class:`PayloadError` that names the field.

    With :class:`msgspec.Raw` as type or annotation, the data is the JSON text as it was received, not parsed.
    ``bytes(data)`` is UTF-8, and always valid JSON. Text that is not JSON comes as a JSON string; an event without
    data comes as ``null``.
    """

    __slots__ = ()

    _queue: EventQueue

    @overload
    def bind(self, event: str, handler: Handler[Any], *, once: bool = False) -> Self: ...

    @overload
    def bind(self, event: str, handler: Handler[T], *, type: type[T], once: bool = False) -> Self: ...

    @overload
    def bind(self, event: str, handler: Handler[T], *, type: TypeForm[T], once: bool = False) -> Self: ...

    def bind(self, event: str, handler: Handler[Any], *, type: Any = None, once: bool = False) -> Self:
        """Bind a handler: the client calls ``handler(event, data, channel)`` for each event.

        The client delivers the events of a channel one after another, in order. A slow handler delays its own
        channel only. If a handler raises, the client logs it, calls the error handlers, and continues. All
        handlers of an event that take JSON get the same object: if one of them changes it, the others see that.

        Names that look like those of Laravel Echo (``.order.shipped``, ``App.Events.OrderShipped``) cause a
        warning in the log; see :class:`reverb.Echo`.

        Args:
            event: A name, a glob pattern, one of :class:`Events`, ``"*"`` for every event, or ``"error"`` for all
                errors. ``"error"`` means ``pusher:error``, ``reverb:error``, and an application's own event
                ``error``; the pattern ``[e]rror`` means only the last.
            handler: A plain function or an ``async def``. ``data`` is the parsed JSON; the string itself if it is
                not JSON; None if the event has no data; or ``type``. A handler with a parameter ``user_id`` also
                gets the sender of a client event on a presence channel, a string; None for all other events.
            type: The type of the data; see :class:`Bindable`. Default: the annotation of the handler, or JSON.
            once: Whether to unbind the handler when it is called. Default: False.

        Returns:
            The object itself, so that you can chain calls.

        Raises:
            TypeError: The handler can't be called with these arguments, the name is not a string, or no data can
                be read into the type.
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
        """Bind a handler, and return the :class:`Binding`, which unbinds it.

        Call its :meth:`Binding.unbind`, or use it in a ``with`` statement: the end of the block unbinds.

        Args:
            event: See :meth:`bind`.
            handler: See :meth:`bind`.
            type: See :meth:`bind`.
            once: See :meth:`bind`.
        """
        return self._bind((event,), handler, type, once=once)

    def unbind(self, event: str, handler: Handler[Any] | None = None) -> Self:
        """Unbind one handler or all handlers of an event.

        Iterators (:meth:`events`) and calls of :meth:`wait_for` still get the event.

        Args:
            event: The name or pattern, as you gave it to :meth:`bind`.
            handler: The handler. Default: None, all handlers that are bound to ``event``.

        Returns:
            The object itself, so that you can chain calls.
        """
        self._queue.unbind(event, handler)
        return self

    @overload
    def on(self, event: str, *, once: bool = False) -> Callable[[AnyHandler], AnyHandler]: ...

    @overload
    def on(self, event: str, *, type: type[T], once: bool = False) -> TypedDecorator[T]: ...

    @overload
    def on(self, event: str, *, type: TypeForm[T], once: bool = False) -> TypedDecorator[T]: ...

    def on(self, event: str, *, type: Any = None, once: bool = False) -> Callable[[Any], Any]:
        """Decorate a function to bind it as a handler. The function stays as it is.

        Args:
            event: See :meth:`bind`.
            type: See :meth:`bind`.
            once: See :meth:`bind`.
        """
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
        """Iterate over events from now on: ``async for event in channel.events("order.*"): …``.

        Continues over reconnects. :class:`EventStream` says how the iteration ends.

        Args:
            *events: Names or patterns. Without any, you get all events of the application: none of the protocol
                (``pusher:…``, ``pusher_internal:…``) and none of the client (``reverb:…``).
            type: The type of the data; see :class:`Bindable`.
            include_gaps: Whether you also get a :class:`Gap` where events of a channel may be missing. Default:
                False.
            buffer: How many events may wait for the loop. When it is full, later events of the channel wait, as
                with a slow handler. Default: 100.

        Raises:
            ValueError: ``buffer`` is less than 1.
            TypeError: See :meth:`bind`.
        """
        if buffer < 1:
            raise ValueError("buffer must be 1 or more")
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
        """Wait for the next event with this name. Continues over reconnects.

        Args:
            event: A name or pattern; see :meth:`bind`.
            type: The type of the data; see :class:`Bindable`.
            timeout: Seconds to wait. None: no limit.
            where: Only an event for which this returns true counts. If it raises, so does this method.

        Raises:
            TimeoutError: No such event within ``timeout`` seconds.
            ConnectionError: No event can come: the client is not connected, it disconnects, the channel is
                unsubscribed, or the connection is lost for good.
            RuntimeError: A handler of the same channel calls this. The next event waits for that handler.
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
            if timeout is None or isinstance(error, ReverbError):  # the end of the stream, or raised by "where"
                raise
            raise TimeoutError(f"no {event!r} on {self!r} within {plural(timeout, 'second')}") from None
        finally:
            collected.close()

    def _collect(
        self, names: tuple[str, ...], type_: Any, size: int = 100, *, include_gaps: bool = False
    ) -> Buffer:
        """Collect events from now on. The caller has to close the buffer, or give it to a stream."""
        buffer = self._new_buffer(size)
        buffer.add(self._bind(names, buffer.put, type_))
        if include_gaps:
            buffer.add(self._bind((Events.RESUBSCRIBED,), buffer.put_gap))
            buffer.add(self._bind((Events.EVENTS_DROPPED,), buffer.put_dropped))
        return buffer

    def _bind(
        self, names: tuple[str, ...], handler: Handler[Any], type_: Any = None, *, once: bool = False
    ) -> Binding:
        binding = self._queue.bind(names, handler, type_, once=once)
        for name in names:
            warn_of_name(name)
        return binding

    def _new_buffer(self, size: int) -> Buffer:
        raise NotImplementedError


def queue_of(bindable: Bindable) -> EventQueue:
    """Return the queue of its events, for modules of this package that build on it."""
    return bindable._queue
