"""Laravel Echo's names for what the client does, for those who know Echo from the browser.

An event is named after its class in the application's namespace, ``App\\Events`` unless you say so:
``"OrderShipped"``, ``"Admin.OrderShipped"``. With a leading dot or backslash a name is taken as it is:
``".order.shipped"``, where ``broadcastAs()`` returns that, or ``".PostUpdated"`` from a model that broadcasts. The
rules are those of Laravel Echo 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _binding, _payload, _protocol
from .bindable import lane_of
from .channel import Channel, PresenceChannel
from .client import ReverbClient, want
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
"""What Echo calls them; all others are "disconnected"."""
_LATE = "reverb:subscribed_before"
"""Tells those who came after the server's confirmation of it; seen by nobody who has not asked for all events."""

T = TypeVar("T")
_User = TypeVar("_User", bound="EchoChannel")


class Echo:
    """Channels and events of a client, by the names that Laravel Echo gives them.

    ``client`` is a :class:`ReverbClient`; without one it is made from the ``REVERB_…`` settings. ``namespace`` is
    that of event names, with dots or backslashes; None is for none.

    Asking for a channel returns at once, as in Echo. The channel is subscribed as soon as there is a connection,
    and whoever awaits it waits for the server to confirm::

        async with Echo() as echo:
            orders = echo.private("orders.1").listen("OrderShipped", on_shipped)
            await orders
            await echo.client.listen()

    A channel that is refused is logged, reported to error handlers, its own and the client's, raised to whoever
    awaits it, and tried again: until it works where that may be a passing thing, or else at the next reconnect.

    Each call gives a new user of the channel, with handlers of its own; the channel is unsubscribed when the last
    of them leaves. So let a client have one Echo, and don't unsubscribe what that has subscribed. Raises what
    :meth:`ReverbClient.subscribe` raises about its arguments.
    """

    def __init__(self, client: ReverbClient | None = None, *, namespace: str | None = "App.Events") -> None:
        self._client = ReverbClient() if client is None else client
        self._namespace = namespace
        self._users: dict[str, list[EchoChannel]] = {}
        """Who uses which channel, by its name on the wire."""

    @property
    def client(self) -> ReverbClient:
        return self._client

    async def connect(self) -> None:
        """Connect the client; see :meth:`ReverbClient.connect`."""
        await self._client.connect()

    async def disconnect(self) -> None:
        """Disconnect the client. Channels and handlers are kept for another :meth:`connect`."""
        await self._client.disconnect()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    def socket_id(self) -> str | None:
        """The server's name for this connection; None while there is none.

        Sent along as ``X-Socket-ID`` with requests to Laravel, it keeps what they broadcast ``toOthers()`` away
        from this client.
        """
        return self._client.socket_id

    def connection_status(self) -> str:
        """``"connected"``, ``"connecting"``, ``"failed"`` (also when it takes long to come back), or
        ``"disconnected"``. More is in ``client.state``, and ``Events.STATE_CHANGE`` tells of changes."""
        return _STATUSES.get(self._client.state, "disconnected")

    # --- channels ----------------------------------------------------------------------------------------------

    def channel(self, name: str) -> EchoChannel:
        """Join the public channel ``name``."""
        return self._add(EchoChannel, name)

    def private(self, name: str) -> EchoPrivateChannel:
        """Join ``private-`` and ``name``."""
        return self._add(EchoPrivateChannel, f"private-{name}")

    def encrypted_private(self, name: str) -> EchoChannel:
        """Join ``private-encrypted-`` and ``name``."""
        return self._add(EchoChannel, f"private-encrypted-{name}")

    def join(self, name: str, user_data: dict[str, Any] | None = None) -> EchoPresenceChannel:
        """Join ``presence-`` and ``name``; ``user_data`` as for :meth:`ReverbClient.subscribe`."""
        return self._add(EchoPresenceChannel, f"presence-{name}", user_data)

    def listen(self, channel: str, event: str, handler: Callable[..., Any]) -> EchoChannel:
        """Join the public channel, and :meth:`EchoChannel.listen` there."""
        return self.channel(channel).listen(event, handler)

    async def leave(self, name: str) -> None:
        """Leave a channel and its private, encrypted and presence forms, with all their users.

        A user leaves alone with :meth:`EchoChannel.leave`.
        """
        for prefix in ("", "private-", "private-encrypted-", "presence-"):
            await self.leave_channel(prefix + name)

    async def leave_channel(self, name: str) -> None:
        """Leave a channel, here by its whole name, with all its users."""
        for user in list(self._users.get(name, ())):
            await user.leave()

    async def leave_all(self) -> None:
        """Leave all channels."""
        for name in list(self._users):
            await self.leave_channel(name)

    def _add(self, kind: type[_User], name: str, user_data: dict[str, Any] | None = None) -> _User:
        channel = want(self._client, name, user_data)
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
    """A user of a channel; made by :class:`Echo`.

    Handlers get the event's data and nothing else, as Echo's callbacks do, not ``(event, data, channel)`` as
    elsewhere in this package: code that comes from Echo stays what it was, and who listens to an event by its
    class has no use for its name on the wire. Otherwise they are as with :meth:`Channel.bind`: plain functions or
    ``async def``, called in order, and one with a parameter ``user_id`` is told who sent a client event.

    What binds a handler returns the channel, so that calls can be chained; handlers that are bound before the
    channel is awaited miss nothing. Once the channel was left, binding and awaiting raise
    :class:`SubscriptionError`.
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
        """The channel's name on the wire, ``private-orders.1`` for instance."""
        return self._channel.name

    def __await__(self) -> Generator[Any, None, Self]:
        """Wait until the server has confirmed the subscription; return the channel.

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
        """Call ``handler(data)`` for each ``event``. ``type``, or else the annotation of the handler's parameter,
        is what the data is read into, as by :meth:`Channel.bind`."""
        name = self._name_of(event)
        parameters = _payload.check_handler(handler, "data")
        if type is None:
            type = _payload.annotated_type(handler, parameters, 0)
        call = _with_sender(handler) if _payload.takes_user_id(parameters) else _data_only(handler)
        return self._bind(name, handler, call, type)

    def stop_listening(self, event: str, handler: Callable[..., Any] | None = None) -> Self:
        """Remove ``handler`` from ``event``, or all of this user's handlers."""
        return self._unbind(self._name_of(event), handler)

    def listen_to_all(self, handler: Callable[[str, Any], Any]) -> Self:
        """Call ``handler(event, data)`` for each event, except for those of the protocol. ``event`` is its name as
        :meth:`listen` takes it."""
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
        return self._unbind("*", handler)

    def listen_for_whisper(self, event: str, handler: Callable[..., Any]) -> Self:
        """Call ``handler(data)`` for what other clients :meth:`~EchoPrivateChannel.whisper`."""
        return self.listen(f".client-{event}", handler)

    def stop_listening_for_whisper(self, event: str, handler: Callable[..., Any] | None = None) -> Self:
        return self.stop_listening(f".client-{event}", handler)

    def notification(self, handler: Callable[..., Any]) -> Self:
        """Call ``handler(data)`` for each notification of Laravel's that is broadcast on this channel."""
        return self.listen(_NOTIFICATION, handler)

    def stop_listening_for_notification(self, handler: Callable[..., Any] | None = None) -> Self:
        return self.stop_listening(_NOTIFICATION, handler)

    def subscribed(self, handler: Callable[[], Any]) -> Self:
        """Call ``handler()`` when the channel is subscribed, and again after each reconnect."""
        _payload.check_handler(handler)
        return self._bind_subscribed(handler, lambda data: handler())

    def error(self, handler: Callable[[Exception], Any]) -> Self:
        """Call ``handler(error)`` with what goes wrong on this channel: with the exception when it is refused, now
        or after a reconnect, or when a handler raises."""
        _payload.check_handler(handler, "error")
        return self._bind(
            Events.CLIENT_ERROR.value, handler, lambda event, data, channel: handler(data["exception"])
        )

    async def leave(self) -> None:
        """Leave: this user's handlers get no more events. When there are no other users of the channel, it is
        unsubscribed."""
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
        """Return what to bind for an event that Laravel Echo would call ``event``."""
        name = _format(_binding.check_name(event), self._namespace)
        return "[e]rror" if name == "error" else name  # which would stand for all that goes wrong, too

    def _require_user(self) -> None:
        if self._is_left:
            raise SubscriptionError(f"{self.name!r} was left")

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
        """Tell a handler that came after the server's confirmation; unless that still waits to be delivered, which
        it then is before this."""
        channel = self._channel
        if binding in self._bindings and channel.is_subscribed:
            channel.bind(_LATE, binding.call)
            members = channel.members if isinstance(channel, PresenceChannel) else {}
            lane_of(channel).put(_LATE, {"presence": {"ids": [*members], "hash": members}})


class EchoPrivateChannel(EchoChannel):
    """A user of a private channel."""

    async def whisper(self, event: str, data: Any) -> None:
        """Send a client event to the channel's other subscribers, once the channel is subscribed.

        Raises what :meth:`Channel.trigger` raises, and what awaiting the channel raises.
        """
        await self
        await self._channel.trigger(f"client-{event}", data)


class EchoPresenceChannel(EchoPrivateChannel):
    """A user of a presence channel. Its handlers get what members have as ``user_info``."""

    def here(self, handler: Callable[[list[dict[str, Any]]], Any]) -> Self:
        """Call ``handler(members)`` when the channel is subscribed, and again after each reconnect, with everybody
        who is there, ourselves included."""
        _payload.check_handler(handler, "members")
        return self._bind_subscribed(handler, lambda data: handler([*_protocol.parse_members(data).values()]))

    def joining(self, handler: Callable[[dict[str, Any]], Any]) -> Self:
        """Call ``handler(member)`` for everybody who comes."""
        _payload.check_handler(handler, "member")
        return self._bind(
            Events.MEMBER_ADDED.value, handler, lambda event, data, channel: handler(data["user_info"])
        )

    def leaving(self, handler: Callable[[dict[str, Any]], Any]) -> Self:
        """Call ``handler(member)`` for everybody who leaves."""
        _payload.check_handler(handler, "member")
        return self._bind(
            Events.MEMBER_REMOVED.value, handler, lambda event, data, channel: handler(data["user_info"])
        )


class _Binding:
    """A handler, and what is bound to the channel in its place."""

    def __init__(
        self, event: str, handler: Callable[..., Any], call: Callable[..., Any], type_: Any = Any
    ) -> None:
        call.__qualname__ = _payload.handler_name(handler)
        _payload.reader(type_)  # raises, here and not when the channel is subscribed, if there is none
        self.event = event
        self.handler = handler
        self.call = call
        self.type = type_
        self.is_told = False
        """Whether it has heard that the channel is subscribed."""


def _data_only(handler: Callable[..., Any]) -> Callable[..., Any]:
    def call(event: str, data: Any, channel: str | None) -> Any:
        return handler(data)

    return call


def _with_sender(handler: Callable[..., Any]) -> Callable[..., Any]:
    def call(event: str, data: Any, channel: str | None, *, user_id: str | None) -> Any:
        return handler(data, user_id=user_id)

    return call


def _format(event: str, namespace: str | None) -> str:
    """Return the name on the wire of an event that Laravel Echo would call ``event``."""
    if event.startswith((".", "\\")):
        return event[1:]
    return (f"{namespace}.{event}" if namespace else event).replace(".", "\\")


def _shorten(event: str, namespace: str | None) -> str:
    """Return what :func:`_format` makes ``event`` from."""
    prefix = _format("", namespace)
    return event.removeprefix(prefix) if prefix and event.startswith(prefix) else f".{event}"
