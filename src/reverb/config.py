"""Settings: the ``REVERB_…`` variables, their defaults, and their valid values."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypedDict

from ._checks import flag, header, is_host, one_of, seconds, text, url, whole
from ._settings import Checked, SecretStr, setting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from typing_extensions import Self, Unpack

__all__ = ["Credentials", "ReverbConfig", "Secret", "SecretStr", "Settings"]


class Secret(Protocol):
    """An object that holds a secret: this package's :class:`SecretStr`, or pydantic's."""

    def get_secret_value(self) -> str:
        """Return the secret."""


class CredentialSettings(TypedDict, total=False):
    """The settings as keyword arguments of :class:`Credentials`."""

    app_key: str
    app_secret: str | Secret | None
    app_id: str | None
    encryption_master_key: str | Secret | None


class Settings(CredentialSettings, total=False):
    """The settings as keyword arguments of :class:`ReverbConfig` and :class:`ReverbClient`."""

    auth_endpoint: str | Secret | None
    auth_token: str | Secret | None
    auth_concurrency: int
    host: str
    port: int
    scheme: str
    path: str
    origin: str | None
    proxy: str | Secret | None
    reconnect_enabled: bool
    reconnect_delay_min: float
    reconnect_delay_max: float
    reconnect_max_attempts: int | None
    ping_interval: float
    pong_timeout: float
    connect_timeout: float
    subscribe_timeout: float
    request_timeout: float
    drain_timeout: float
    max_message_size: int
    max_request_size: int
    pool_size: int
    max_pending_bytes: int
    log_level: str | None


# --- checks ----------------------------------------------------------------------------------------------------


def _master_key(value: Any) -> str:
    try:
        size = len(b64decode(text(value), validate=True))
    except ValueError:
        size = 0
    if size != 32:
        raise ValueError("must be 32 bytes in base64: openssl rand -base64 32")
    return str(value)


def _host(value: Any) -> str:
    host = text(value).strip().removeprefix("[").removesuffix("]")
    if not is_host(host):
        raise ValueError(
            "must be a host name or an IP address only; scheme, port and path have their own settings"
        )
    return host


def _path(value: Any) -> str:
    path = text(value).strip().strip("/") if value != "" else ""
    return f"/{path}" if path else ""


# --- the settings ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Credentials(Checked):
    """The application's keys: everything a backend needs to authorise other clients.

    ``Credentials(...)`` takes keyword arguments only. :meth:`from_env` also reads the environment and ``.env``.

    Raises:
        ConfigurationError: Settings are missing or invalid. The message lists all of them.
    """

    app_key: str = setting(text)
    """The public key of the application, which the server knows it by. Required."""
    app_secret: SecretStr | None = setting(text, None, is_secret=True)
    """Signs subscriptions to private and presence channels. Public channels don't need it, and neither does
    another authorizer. Default: None."""
    app_id: str | None = setting(text, None)
    """The id of the application in the HTTP API. The HTTP API needs it. Default: None."""
    encryption_master_key: SecretStr | None = setting(_master_key, None, is_secret=True)
    """32 bytes in base64, from which the keys of encrypted channels are derived. Use it together with
    ``app_secret``. Default: None."""

    if TYPE_CHECKING:

        def __init__(self, **settings: Unpack[CredentialSettings]) -> None: ...

        @classmethod
        def from_env(  # type: ignore[override]
            cls,
            *,
            dotenv: str | PathLike[str] | None = ".env",
            env: Mapping[str, str] | None = None,
            **settings: Unpack[CredentialSettings],
        ) -> Self:
            """Read the settings from the keyword arguments, the environment, and the file ``.env``, in this order.

            The variable of a setting is ``REVERB_`` and its name in upper case. An empty one counts as not set.

            Args:
                dotenv: Path of the file, which is read as Laravel reads it. None: no file. Default: ``.env``.
                env: Variables to use instead of the environment. Default: None, the environment.
                **settings: Settings as keyword arguments.

            Raises:
                ConfigurationError: Settings are missing or invalid, or the file can't be read.
            """


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ReverbConfig(Credentials):
    """All settings: the server, the application, and the times to wait.

    Plain data that you can't change. ``ReverbConfig(...)`` takes keyword arguments only. :meth:`from_env` also
    reads the environment and ``.env``; ``ReverbClient()`` calls it.

    Raises:
        ConfigurationError: Settings are missing or invalid. The message lists all of them.
    """

    ALTERNATIVES: ClassVar[Mapping[str, str]] = {"auth_endpoint": "app_secret"}
    """Settings that replace each other: the one from the nearer source counts."""

    auth_endpoint: SecretStr | None = setting(
        url("http", "https", example="https://example.com/api/broadcasting/auth"), None, is_secret=True
    )
    """The URL that signs instead of the secret: Laravel's ``/broadcasting/auth``, or another endpoint that answers
    like it. If both are set, the endpoint signs. Default: None."""
    auth_token: SecretStr | None = setting(text, None, is_secret=True)
    """Bearer token for ``auth_endpoint``. Default: None."""
    auth_concurrency: int = setting(whole(1), 8)
    """How many channels are authorised at the same time, so that a reconnect with many channels does not overload
    the endpoint. Default: 8."""

    host: str = setting(_host)
    """Host name or IP address of the server, without scheme and port. Required."""
    port: int = setting(whole(1, 65535), 443)
    """Port of the server. Default: 443."""
    scheme: Literal["ws", "wss"] = setting(one_of("ws", "wss", aliases={"http": "ws", "https": "wss"}), "wss")
    """``wss`` (TLS) or ``ws``. Laravel's ``https`` and ``http`` mean the same. Default: ``wss``."""
    path: str = setting(_path, "")
    """Path before ``/app/…``: the server's ``REVERB_SERVER_PATH``. Default: empty."""
    origin: str | None = setting(header, None)
    """The ``Origin`` header to send, for servers that restrict ``allowed_origins``. Default: None, no header."""
    proxy: SecretStr | None = setting(
        url("http", "https", "socks5", example="http://host:port, https://host:port or socks5://host:port"),
        None,
        is_secret=True,
    )
    """URL of a proxy: ``http://``, ``https://`` or ``socks5://``. It may contain a user name and a password.
    Default: None."""

    reconnect_enabled: bool = setting(flag, True)
    """Whether the client reconnects when the connection is lost. Default: True."""
    reconnect_delay_min: float = setting(seconds(), 1.0)
    """The shortest delay before the client reconnects, in seconds. Default: 1."""
    reconnect_delay_max: float = setting(seconds(), 30.0)
    """The longest delay, in seconds. Delays are random; their limit doubles with each attempt up to this. Default:
    30."""
    reconnect_max_attempts: int | None = setting(whole(1), None)
    """After how many failed attempts in a row the client gives up. Default: None, never."""
    ping_interval: float = setting(seconds(), 30.0)
    """Seconds of silence after which the client sends a ping; fewer if the server asks for that. Default: 30."""
    pong_timeout: float = setting(seconds(), 10.0)
    """Seconds to wait for the answer to a ping. Default: 10."""
    connect_timeout: float = setting(seconds(), 10.0)
    """Seconds from opening the socket to ``pusher:connection_established``. Default: 10."""
    subscribe_timeout: float = setting(seconds(), 10.0)
    """Seconds from sending a subscribe to the server's confirmation. Default: 10."""
    request_timeout: float = setting(seconds(), 10.0)
    """Seconds for a call of the HTTP API, with its retries. Default: 10."""
    drain_timeout: float = setting(seconds(or_none=True), 5.0)
    """Seconds that handlers have to finish the events that have arrived, when ``disconnect()`` has closed the
    connection. Default: 5."""
    max_message_size: int = setting(whole(1), 10_000)
    """Bytes that the server accepts in one message from a client. Default: 10,000."""
    max_request_size: int = setting(whole(1), 10_000)
    """Bytes that the server accepts in one request to the HTTP API, with its headers. Default: 10,000."""
    pool_size: int = setting(whole(1), 20)
    """How many connections to the HTTP API may be open at the same time. Further calls wait. Default: 20."""
    max_pending_bytes: int = setting(whole(1), 16 * 1024 * 1024)
    """Bytes of memory for events that wait for handlers, over all channels. At this limit the client stops reading
    from the server, until handlers have caught up. Default: 16 MiB."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None = setting(
        one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), None
    )
    """Level of the logger ``reverb``. Default: None, which means ``INFO`` if the logger has no level yet, and no
    change if the program has set one."""

    if TYPE_CHECKING:

        def __init__(self, **settings: Unpack[Settings]) -> None: ...

        @classmethod
        def from_env(  # type: ignore[override]
            cls,
            *,
            dotenv: str | PathLike[str] | None = ".env",
            env: Mapping[str, str] | None = None,
            **settings: Unpack[Settings],
        ) -> Self: ...

    @property
    def address(self) -> str:
        """``host:port``, as in URLs and messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _compare(self) -> Iterator[str]:
        least = self.reconnect_delay_min
        if self.reconnect_delay_max < least:
            yield f"REVERB_RECONNECT_DELAY_MAX must not be less than REVERB_RECONNECT_DELAY_MIN ({least:g})"


def config_of(config: ReverbConfig | None, settings: Settings) -> ReverbConfig:
    """Return the config that was passed, or else make one from the settings and the environment.

    Empties ``settings``, so that the caller's frame keeps no secret.
    """
    try:
        if config is None:
            return ReverbConfig.from_env(**settings)
        if settings:
            raise TypeError("pass either a config or settings, not both")
        return config
    finally:
        settings.clear()  # type: ignore[attr-defined]
