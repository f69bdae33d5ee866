"""Settings: the ``REVERB_…`` variables, their defaults, and what is valid."""

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

__all__ = ["Credentials", "ReverbConfig", "Secret", "SecretStr", "Settings", "config_of"]


class Secret(Protocol):
    """What holds a secret: a :class:`SecretStr`, of ours or of pydantic."""

    def get_secret_value(self) -> str: ...


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


# --- what is valid ---------------------------------------------------------------------------------------------


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
            "must be a host name or IP address alone; scheme, port and path have settings of their own"
        )
    return host


def _path(value: Any) -> str:
    path = text(value).strip().strip("/") if value != "" else ""
    return f"/{path}" if path else ""


# --- the settings ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Credentials(Checked):
    """What an application is known by, and signs with: all that a backend needs to authorise others.

    Made of keyword arguments alone; :meth:`from_env` also looks into the environment and into ``.env``. Raises
    :class:`ConfigurationError`, which lists everything that is missing or invalid.
    """

    app_key: str = setting(text)
    """Names the application to the server."""
    app_secret: SecretStr | None = setting(text, None, is_secret=True)
    """Signs private and presence channels; not needed for public ones, or with another authorizer."""
    app_id: str | None = setting(text, None)
    """Names the application in the HTTP API, which can't do without."""
    encryption_master_key: SecretStr | None = setting(_master_key, None, is_secret=True)
    """32 bytes in base64, from which the keys of encrypted channels are derived; goes with ``app_secret``."""

    if TYPE_CHECKING:

        def __init__(self, **settings: Unpack[CredentialSettings]) -> None: ...

        @classmethod
        def from_env(  # type: ignore[override]
            cls,
            *,
            dotenv: str | PathLike[str] | None = ".env",
            env: Mapping[str, str] | None = None,
            **settings: Unpack[CredentialSettings],
        ) -> Self: ...


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ReverbConfig(Credentials):
    """Where the server is, who we are to it, and how patient to be.

    Plain data, made of keyword arguments alone; :meth:`from_env`, which ``ReverbClient()`` calls, also looks into
    the environment and into ``.env``. Raises :class:`ConfigurationError`, which lists everything that is missing
    or invalid.
    """

    ALTERNATIVES: ClassVar[Mapping[str, str]] = {"auth_endpoint": "app_secret"}

    auth_endpoint: SecretStr | None = setting(
        url("http", "https", example="https://example.com/api/broadcasting/auth"), None, is_secret=True
    )
    """URL that signs in place of the secret: of Laravel's ``/broadcasting/auth``, or what answers like it. With
    both, the endpoint signs."""
    auth_token: SecretStr | None = setting(text, None, is_secret=True)
    """Bearer token for that."""
    auth_concurrency: int = setting(whole(1), 8)
    """Channels that are authorised at the same time, so that a reconnect with many is no stampede."""

    host: str = setting(_host)
    """Host name or IP address of the server, without scheme and port."""
    port: int = setting(whole(1, 65535), 443)
    scheme: Literal["ws", "wss"] = setting(one_of("ws", "wss", aliases={"http": "ws", "https": "wss"}), "wss")
    """``wss`` (TLS) or ``ws``; Laravel's ``https`` and ``http`` mean the same."""
    path: str = setting(_path, "")
    """Prefix in front of ``/app/…``: the server's ``REVERB_SERVER_PATH``."""
    origin: str | None = setting(header, None)
    """``Origin`` header to send, for servers with restricted ``allowed_origins``."""
    proxy: SecretStr | None = setting(
        url("http", "https", "socks5", example="http://host:port, https://host:port or socks5://host:port"),
        None,
        is_secret=True,
    )
    """URL of a proxy, ``http://``, ``https://`` or ``socks5://``; may hold a user name and password."""

    reconnect_enabled: bool = setting(flag, True)
    reconnect_delay_min: float = setting(seconds(), 1.0)
    """Delays before reconnecting start here, in seconds, …"""
    reconnect_delay_max: float = setting(seconds(), 30.0)
    """… and double up to here."""
    reconnect_max_attempts: int | None = setting(whole(1), None)
    """Attempts in a row after which the connection is given up; None for never."""
    ping_interval: float = setting(seconds(), 30.0)
    """Seconds of silence after which we ask whether the server is there (sooner if the server wants it)."""
    pong_timeout: float = setting(seconds(), 10.0)
    """Seconds to wait for the answer to that."""
    connect_timeout: float = setting(seconds(), 10.0)
    """Seconds from opening the socket to ``pusher:connection_established``."""
    subscribe_timeout: float = setting(seconds(), 10.0)
    """Seconds from asking for a channel to the server's confirmation."""
    request_timeout: float = setting(seconds(), 10.0)
    """Seconds for a call of the HTTP API, its retries included."""
    drain_timeout: float = setting(seconds(or_none=True), 5.0)
    """Seconds that handlers get on ``disconnect()`` to finish what was received."""
    max_message_size: int = setting(whole(1), 10_000)
    """Bytes that the server accepts in one message from a client."""
    max_request_size: int = setting(whole(1), 10_000)
    """Bytes that the server accepts in one request to the HTTP API, its head included."""
    pool_size: int = setting(whole(1), 20)
    """Connections of the HTTP API at the same time; calls beyond that wait."""
    max_pending_bytes: int = setting(whole(1), 16 * 1024 * 1024)
    """Bytes of memory that events may take while they wait for handlers, over all channels, before reading from
    the server is paused."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] | None = setting(
        one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), None
    )
    """Level of the logger ``reverb``; None is ``INFO`` for a logger without a level of its own, and changes
    nothing where the program has set one."""

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
    """Return the config that was passed, or else that of the settings and the environment; empties ``settings``,
    for they are in the frame of the caller."""
    try:
        if config is None:
            return ReverbConfig.from_env(**settings)
        if settings:
            raise TypeError("pass either a config or settings, not both")
        return config
    finally:
        settings.clear()  # type: ignore[attr-defined]
