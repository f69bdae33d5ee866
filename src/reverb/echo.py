"""Laravel Echo's names for the client's methods, for those who know Echo from the browser.

An event has the name of its class in the application's namespace, by default ``App\\Events``: ``"OrderShipped"``,
``"Admin.OrderShipped"``. A name with a leading dot or backslash is complete: ``".order.shipped"``, if
``broadcastAs()`` returns that, or ``".PostUpdated"`` from a model that broadcasts. These are the rules of Laravel
Echo 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _binding, _payload, _protocol
from .bindable import queue_of
from .channel import Channel, PresenceChannel
from .client import ReverbClient, subscribe_later
from .events import ConnectionState, Events
from .exceptions import SubscriptionError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, TypeForm

__all__ = ["Echo", "EchoChannel", "EchoPresenceChannel", "EchoPrivateChannel"]

_NOTIFICATION = ".Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"
_STATUSES = {
    ConnectionState.CONNECTED: "connected",
    ConnectionState.CONNECTING: "connecting",
    ConnectionState.FAILED: "failed",
    ConnectionState.UNAVAILABLE: "failed",
}
"""Echo's words for states. All others are "disconnected"."""
_LATE = "reverb:subscribed_before"
"""Tells a handler that was bound after the server's confirmation. Only handlers of all events see it besides."""

T = TypeVar("T")
_User = TypeVar("_User", bound="EchoChannel")


class Echo:
    """Channels and events of a client, with the names of Laravel Echo.

    A call for a channel returns at once, as in Echo. The client subscribes to the channel as soon as it is
    connected. Await the channel to wait for the server's confirmation::

        async with Echo() as echo:
            orders = echo.private("orders.1").listen("OrderShipped", on_shipped)
            await orders
            await echo.client.listen()

    If the server refuses a channel, the client logs that and calls the error handlers of the channel and of the
    client. Tasks that await the channel get the exception. The client tries again: by itself if the reason may
    pass, or else after the next reconnect.

    Each call returns a new user of the channel, with its own handlers. When the last user leaves, the client
    unsubscribes. So make one Echo for a client, and don't call :meth:`ReverbClient.unsubscribe` for its channels.
    The calls raise what :meth:`ReverbClient.subscribe` raises about its arguments.

    Args:
        client: The client. Default: a new :class:`ReverbClient` with the ``REVERB_…`` settings.
        namespace: The namespace of event names, with dots or backslashes. None: no namespace. Default:
            ``App.Events``.
    """

    def __init__(self, client: ReverbClient | None = None, *, namespace: str | None = "App.Events") -> None:
        self._client = ReverbClient() if client is None else client
        self._namespace = namespace
        self._users: dict[str, list[EchoChannel]] = {}
        """The users of each channel, by its name on the wire."""

    @property
    def client(self) -> ReverbClient:
        """The client that Echo uses, for everything that Echo has no method for."""
        return self._client

    async def connect(self) -> None:
        """Connect the client; see :meth:`ReverbClient.connect`."""
        await self._client.connect()

    async def disconnect(self) -> None:
        """Disconnect the client. Channels and handlers stay for another :meth:`connect`."""
        await self._client.disconnect()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    def socket_id(self) -> str | None:
        """Return the id that the server gave to this connection. None without a connection.

        Send it as ``X-Socket-ID`` with requests to Laravel: events that they broadcast ``toOthers()`` then don't
        come to this client.
        """
        return self._client.socket_id

    def connection_status(self) -> str:
        """Return ``"connected"``, ``"connecting"``, ``"failed"`` or ``"disconnected"``.

        ``"failed"`` also means that the client has tried to connect for more than 10 seconds. ``client.state``
        says more, and each change is an event, ``Events.STATE_CHANGE``.
        """
        return _STATUSES.get(self._client.state, "disconnected")

    # --- channels ----------------------------------------------------------------------------------------------

    def channel(self, name: str) -> EchoChannel:
        """Subscribe to the public channel ``name``."""
        return self._add(EchoChannel, name)

    def private(self, name: str) -> EchoPrivateChannel:
        """Subscribe to the private channel ``private-`` and ``name``."""
        return self._add(EchoPrivateChannel, f"private-{name}")

    def encrypted_private(self, name: str) -> EchoChannel:
        """Subscribe to the encrypted channel ``private-encrypted-`` and ``name``."""
        return self._add(EchoChannel, f"private-encrypted-{name}")

    def join(self, name: str, user_data: dict[str, Any] | None = None) -> EchoPresenceChannel:
        """Subscribe to the presence channel ``presence-`` and ``name``.

        Args:
            name: The name without ``presence-``.
            user_data: See :meth:`ReverbClient.subscribe`.
        """
        return self._add(EchoPresenceChannel, f"presence-{name}", user_data)

    def listen(self, channel: str, event: str, handler: Callable[..., Any]) -> EchoChannel:
        """Subscribe to a public channel and call :meth:`EchoChannel.listen` of it.

        Args:
            channel: The name of the channel.
            event: See :meth:`EchoChannel.listen`.
            handler: See :meth:`EchoChannel.listen`.
        """
        return self.channel(channel).listen(event, handler)

    async def leave(self, name: str) -> None:
        """Leave the channel ``name`` and its private, encrypted and presence forms, with all their users.

        For one user use :meth:`EchoChannel.leave`.
        """
        for prefix in ("", "private-", "private-encrypted-", "presence-"):
            await self.leave_channel(prefix + name)

    async def leave_channel(self, name: str) -> None:
        """Leave the channel with the full name ``name``, with all its users."""
        for user in list(self._users.get(name, ())):
            await user.leave()

    async def leave_all(self) -> None:
        """Leave all channels."""
        for name in list(self._users):
            await self.leave_channel(name)

    def _add(self, kind: type[_User], name: str, user_data: dict[str, Any] | None = None) -> _User:
        channel = subscribe_later(self._client, name, user_data)
        user = kind(self._client, channel, self._namespace, self._remove)
        self._users.setdefault(name, []).append(user)
        return user

    async def _remove(self, user: EchoChannel) -> None:
        users = self._users[user.name]
        users.remove(user)
        if not users:
            del self._users[user.name]
            await self._client.unsubscribe(user.name)


class EchoChannel:
    """A user of a channel; :class:`Echo` makes it.

    Handlers get only the data of the event, as Echo's callbacks do, not ``(event, data, channel)``. Everything
    else is as with :meth:`Channel.bind`: handlers are plain functions or ``async def``, the client calls them in
    order, and a handler with a parameter ``user_id`` gets the sender of a client event.

    Methods that bind a handler return the channel, so that you can chain calls. Handlers that you bind before you
    await the channel miss no event. After :meth:`leave`, binding and awaiting raise :class:`SubscriptionError`.
    """

    def __init__(
        self,
        client: ReverbClient,
        channel: Channel,
        namespace: str | None,
        remove: Callable[[EchoChannel], Awaitable[None]],
    ) -> None:
        self._client = client
        self._channel = channel
        self._namespace = namespace
        self._remove_from_echo = remove
        self._bindings: list[_Binding] = []
        self._is_left = False

    @property
    def name(self) -> str:
        """The full name of the channel, ``private-orders.1`` for instance."""
        return self._channel.name

    def __await__(self) -> Generator[Any, None, Self]:
        """Wait for the server's confirmation; return the channel.

        Raises what :meth:`ReverbClient.subscribe` raises.
        """
        return self._wait_subscribed().__await__()

    @overload
    def listen(self, event: str, handler: Callable[..., Any]) -> Self: ...

    @overload
    def listen(self, event: str, handler: Callable[[T], Any], *, type: type[T]) -> Self: ...

    @overload
    def listen(self, event: str, handler: Callable[[T], Any], *, type: TypeForm[T]) -> Self: ...

    def listen(self, event: str, handler: Callable[..., Any], *, type: Any = None) -> Self:
        """Call ``handler(data)`` for each ``event``.

        Args:
            event: The class of the event; with a leading dot or backslash, the complete name.
            handler: A plain function or an ``async def``.
            type: The type of the data, as with :meth:`Channel.bind`. Default: the annotation of the handler, or
                JSON.
        """
        name = self._name_of(event)
        parameters = _payload.check_handler(handler, "data")
        if type is None:
            type = _payload.annotated_type(handler, parameters, 0)
        call = _with_sender(handler) if _payload.takes_user_id(parameters) else _data_only(handler)
        return self._bind(name, handler, call, type)

    def stop_listening(self, event: str, handler: Callable[..., Any] | None = None) -> Self:
        """Unbind one handler of an event, or all that this user has bound to it.

        Args:
            event: The event, as you gave it to :meth:`listen`.
            handler: The handler. Default: None, all of them.
        """
        return self._unbind(self._name_of(event), handler)

    def listen_to_all(self, handler: Callable[[str, Any], Any]) -> Self:
        """Call ``handler(event, data)`` for each event of the application.

        ``event`` is the name as :meth:`listen` takes it. Events of the protocol are left out.
        """
        _payload.check_handler(handler, "event", "data")
        namespace = self._namespace

        def call(event: str, data: Any, channel: str | None) -> Any:
            return (
                None
                if event.startswith(_protocol.PROTOCOL_PREFIXES)
                else handler(_shorten(event, namespace), data)
            )

        return self._bind("*", handler, call)

    def stop_listening_to_all(self, handler: Callable[[str, Any], Any] | None = None) -> Self:
        """Unbind one handler of :meth:`listen_to_all`. Default: all of them."""
        return self._unbind("*", handler)

    def listen_for_whisper(self, event: str, handler: Callable[..., Any]) -> Self:
        """Call ``handler(data)`` for each client event ``event`` that another client sends with
        :meth:`~EchoPrivateChannel.whisper`."""
        return self.listen(f".client-{event}", handler)

    def stop_listening_for_whisper(self, event: str, handler: Callable[..., Any] | None = None) -> Self:
        """Unbind one handler of :meth:`listen_for_whisper`. Default: all handlers of this event."""
        return self.stop_listening(f".client-{event}", handler)

    def notification(self, handler: Callable[..., Any]) -> Self:
        """Call ``handler(data)`` for each Laravel notification on this channel."""
        return self.listen(_NOTIFICATION, handler)

    def stop_listening_for_notification(self, handler: Callable[..., Any] | None = None) -> Self:
        """Unbind one handler of :meth:`notification`. Default: all of them."""
        return self.stop_listening(_NOTIFICATION, handler)

    def subscribed(self, handler: Callable[[], Any]) -> Self:
        """Call ``handler()`` when the channel is subscribed, and again after each reconnect."""
        _payload.check_handler(handler)
        return self._bind_subscribed(handler, lambda data: handler())

    def error(self, handler: Callable[[Exception], Any]) -> Self:
        """Call ``handler(error)`` with the exception of each error of this channel.

        That is when the server refuses it, now or after a reconnect, or when a handler raises.
        """
        _payload.check_handler(handler, "error")
        return self._bind(
            Events.CLIENT_ERROR.value, handler, lambda event, data, channel: handler(data["exception"])
        )

    async def leave(self) -> None:
        """Leave the channel: the handlers of this user get no more events.

        When the last user leaves, the client unsubscribes.
        """
        if not self._is_left:
            self._is_left = True
            while self._bindings:
                self._remove(self._bindings[0])
            await self._remove_from_echo(self)

    def __repr__(self) -> str:
        is_subscribed = self._channel.is_subscribed and not self._is_left
        return f"<{type(self).__name__} {self.name!r} {'subscribed' if is_subscribed else 'not subscribed'}>"

    async def _wait_subscribed(self) -> Self:
        self._require_user()
        await self._client.subscribe(self.name)
        self._require_user()
        return self

    def _name_of(self, event: str) -> str:
        """Return the name to bind for Echo's name of an event."""
        name = _format(_binding.check_name(event), self._namespace)
        return "[e]rror" if name == "error" else name  # "error" would mean all errors

    def _require_user(self) -> None:
        if self._is_left:
            raise SubscriptionError(f"you have left {self.name!r}: ask Echo for the channel again")

    # --- handlers ----------------------------------------------------------------------------------------------

    def _bind(self, event: str, handler: Callable[..., Any], call: Callable[..., Any], type_: Any = Any) -> Self:
        self._add(_Binding(event, handler, call, type_))
        return self

    def _unbind(self, event: str, handler: Callable[..., Any] | None) -> Self:
        for binding in list(self._bindings):
            if binding.event == event and (handler is None or binding.handler == handler):
                self._remove(binding)
        return self

    def _add(self, binding: _Binding) -> None:
        self._require_user()
        self._bindings.append(binding)
        self._channel.bind(binding.event, binding.call, type=binding.type)

    def _remove(self, binding: _Binding) -> None:
        self._bindings.remove(binding)
        self._channel.unbind(binding.event, binding.call).unbind(_LATE, binding.call)

    def _bind_subscribed(self, handler: Callable[..., Any], act: Callable[[Any], Any]) -> Self:
        def call(event: str, data: Any, channel: str | None) -> Any:
            if event == _LATE and binding.is_told:
                return None
            binding.is_told = True
            return act(data)

        binding = _Binding(Events.SUBSCRIPTION_SUCCEEDED.value, handler, call)
        self._add(binding)
        if self._channel.is_subscribed:
            asyncio.get_running_loop().call_soon(self._tell_late, binding)
        return self

    def _tell_late(self, binding: _Binding) -> None:
        """Call a handler that was bound after the server's confirmation.

        If the confirmation still waits to be delivered, the handler gets that instead.
        """
        channel = self._channel
        if binding in self._bindings and channel.is_subscribed:
            channel.bind(_LATE, binding.call)
            members = channel.members if isinstance(channel, PresenceChannel) else {}
            queue_of(channel).put(_LATE, {"presence": {"ids": [*members], "hash": members}})


class EchoPrivateChannel(EchoChannel):
    """A user of a private channel."""

    async def whisper(self, event: str, data: Any) -> None:
        """Send a client event to the other subscribers. Waits until the channel is subscribed.

        Raises what :meth:`Channel.trigger` raises, and what awaiting the channel raises.

        Args:
            event: The name, without ``client-``.
            data: See :meth:`Channel.trigger`.
        """
        await self
        await self._channel.trigger(f"client-{event}", data)


class EchoPresenceChannel(EchoPrivateChannel):
    """A user of a presence channel. Its handlers get the ``user_info`` of members."""

    def here(self, handler: Callable[[list[dict[str, Any]]], Any]) -> Self:
        """Call ``handler(members)`` when the channel is subscribed, and again after each reconnect.

        ``members`` is a list of the ``user_info`` of all members, including your own.
        """
        _payload.check_handler(handler, "members")
        return self._bind_subscribed(handler, lambda data: handler([*_protocol.parse_members(data).values()]))

    def joining(self, handler: Callable[[dict[str, Any]], Any]) -> Self:
        """Call ``handler(member)`` with the ``user_info`` of each member who joins."""
        _payload.check_handler(handler, "member")
        return self._bind(
            Events.MEMBER_ADDED.value, handler, lambda event, data, channel: handler(data["user_info"])
        )

    def leaving(self, handler: Callable[[dict[str, Any]], Any]) -> Self:
        """Call ``handler(member)`` with the ``user_info`` of each member who leaves."""
        _payload.check_handler(handler, "member")
        return self._bind(
            Events.MEMBER_REMOVED.value, handler, lambda event, data, channel: handler(data["user_info"])
        )


class _Binding:
    """A handler, and the function that is bound to the channel for it."""

    def __init__(
        self, event: str, handler: Callable[..., Any], call: Callable[..., Any], type_: Any = Any
    ) -> None:
        call.__qualname__ = _payload.handler_name(handler)
        _payload.reader(type_)  # raises here, not only when the channel is subscribed
        self.event = event
        self.handler = handler
        self.call = call
        self.type = type_
        self.is_told = False
        """Whether the handler was called for the subscription."""


def _data_only(handler: Callable[..., Any]) -> Callable[..., Any]:
    def call(event: str, data: Any, channel: str | None) -> Any:
        return handler(data)

    return call


def _with_sender(handler: Callable[..., Any]) -> Callable[..., Any]:
    def call(event: str, data: Any, channel: str | None, *, user_id: str | None) -> Any:
        return handler(data, user_id=user_id)

    return call


def _format(event: str, namespace: str | None) -> str:
    """Return the name on the wire for Echo's name of an event."""
    if event.startswith((".", "\\")):
        return event[1:]
    return (f"{namespace}.{event}" if namespace else event).replace(".", "\\")


def _shorten(event: str, namespace: str | None) -> str:
    """Return Echo's name for ``event``; the inverse of :func:`_format`."""
    prefix = _format("", namespace)
    return event.removeprefix(prefix) if prefix and event.startswith(prefix) else f".{event}"
