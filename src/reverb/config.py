"""Settings: the ``REVERB_…`` variables, their defaults, and what is valid."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypedDict
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Credentials", "ReverbConfig", "Settings"]

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CredentialSettings(TypedDict, total=False):
    """The settings as keyword arguments of :class:`Credentials`."""

    app_key: str
    app_secret: str
    app_id: str
    encryption_master_key: str


class Settings(CredentialSettings, total=False):
    """The settings as keyword arguments of :class:`ReverbConfig` and :class:`ReverbClient`."""

    auth_endpoint: str
    auth_token: str
    auth_concurrency: int
    host: str
    port: int
    scheme: str
    path: str
    origin: str
    proxy: str
    reconnect_enabled: bool
    reconnect_delay_min: float
    reconnect_delay_max: float
    reconnect_max_attempts: int
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
    log_level: str


class Credentials(BaseSettings):
    """What an application is known by, and signs with: all that a backend needs to authorise others.

    Each setting is looked up in the keyword arguments, then in the environment as ``REVERB_`` and the name in
    upper case, then in the file ``.env`` of the working directory; an empty variable counts as not set. Raises
    :class:`ConfigurationError`, which lists everything that is missing or invalid.
    """

    model_config = SettingsConfigDict(
        env_prefix="REVERB_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",  # the .env of a Laravel application is full of other variables
        frozen=True,
        hide_input_in_errors=True,
    )

    app_key: str = Field(min_length=1)
    """Names the application to the server."""
    app_secret: SecretStr | None = None
    """Signs private and presence channels; not needed for public ones, or with another authorizer."""
    app_id: str | None = None
    """Names the application in the HTTP API, which can't do without."""
    encryption_master_key: SecretStr | None = None
    """32 bytes in base64, from which the keys of encrypted channels are derived; goes with ``app_secret``."""

    def __init__(self, **settings: Unpack[CredentialSettings]) -> None:
        self._read(settings)

    def _read(self, settings: Any) -> None:
        unknown = settings.keys() - type(self).model_fields.keys()
        if unknown:
            raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}")
        try:
            BaseSettings.__init__(self, **settings)
        except ValidationError as error:
            # "from None": pydantic's own error holds the values, the secret among them.
            raise ConfigurationError(_explain(error)) from None
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(error) from None

    @field_validator("encryption_master_key")
    @classmethod
    def _check_master_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                size = len(b64decode(value.get_secret_value(), validate=True))
            except ValueError:
                size = 0
            if size != 32:
                raise ValueError("must be 32 bytes in base64: openssl rand -base64 32")
        return value


class ReverbConfig(Credentials):
    """Where the server is, who we are to it, and how patient to be; looked up like :class:`Credentials`."""

    auth_endpoint: SecretStr | None = None
    """URL that signs in place of the secret: of Laravel's ``/broadcasting/auth``, or what answers like it."""
    auth_token: SecretStr | None = None
    """Bearer token for that."""
    auth_concurrency: int = Field(default=8, ge=1)
    """Channels that are authorised at the same time, so that a reconnect with many is no stampede."""

    host: str = Field(min_length=1)
    """Host name or IP address of the server, without scheme and port."""
    port: int = Field(default=443, ge=1, le=65535)
    scheme: Literal["ws", "wss"] = "wss"
    """``wss`` (TLS) or ``ws``; Laravel's ``https`` and ``http`` mean the same."""
    path: str = ""
    """Prefix in front of ``/app/…``: the server's ``REVERB_SERVER_PATH``."""
    origin: str | None = None
    """``Origin`` header to send, for servers with restricted ``allowed_origins``."""
    proxy: SecretStr | None = None
    """URL of a proxy, ``http://``, ``https://`` or ``socks5://``; may hold a user name and password."""

    reconnect_enabled: bool = True
    reconnect_delay_min: Seconds = 1.0
    """Delays before reconnecting start here, in seconds, …"""
    reconnect_delay_max: Seconds = 30.0
    """… and double up to here."""
    reconnect_max_attempts: int | None = Field(default=None, ge=1)
    """Attempts in a row after which the connection is given up; None for never."""
    ping_interval: Seconds = 30.0
    """Seconds of silence after which we ask whether the server is there (sooner if the server wants it)."""
    pong_timeout: Seconds = 10.0
    """Seconds to wait for the answer to that."""
    connect_timeout: Seconds = 10.0
    """Seconds from opening the socket to ``pusher:connection_established``."""
    subscribe_timeout: Seconds = 10.0
    """Seconds from asking for a channel to the server's confirmation."""
    request_timeout: Seconds = 10.0
    """Seconds for a call of the HTTP API, its retries included."""
    drain_timeout: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Seconds that handlers get on ``disconnect()`` to finish what was received."""
    max_message_size: int = Field(default=10_000, ge=1)
    """Bytes that the server accepts in one message from a client."""
    max_request_size: int = Field(default=10_000, ge=1)
    """Bytes that the server accepts in one request to the HTTP API, its head included."""
    pool_size: int = Field(default=20, ge=1)
    """Connections of the HTTP API at the same time; calls beyond that wait."""
    max_pending_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    """Bytes of memory that events may take while they wait for handlers, over all channels, before reading from
    the server is paused."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Level of the ``reverb`` logger."""

    def __init__(self, **settings: Unpack[Settings]) -> None:
        self._read(settings)

    @field_validator("scheme", mode="before")
    @classmethod
    def _accept_laravel_scheme(cls, value: object) -> object:
        scheme = value.strip().lower() if isinstance(value, str) else value
        return {"http": "ws", "https": "wss"}.get(str(scheme), scheme)

    @field_validator("log_level", mode="before")
    @classmethod
    def _accept_any_case(cls, value: object) -> object:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if "/" in host or host.count(":") == 1 or any(character.isspace() for character in host):
            raise ValueError(
                "must be a host name or IP address alone; scheme, port and path have settings of their own"
            )
        return host

    @field_validator("path")
    @classmethod
    def _normalise_path(cls, value: str) -> str:
        path = value.strip().strip("/")
        return f"/{path}" if path else ""

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_url(value.get_secret_value(), "http", "https", "socks5"):
            raise ValueError("must be a URL like http://host:port, https://host:port or socks5://host:port")
        return value

    @field_validator("auth_endpoint")
    @classmethod
    def _check_auth_endpoint(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_url(value.get_secret_value(), "http", "https"):
            raise ValueError("must be a URL like https://example.com/broadcasting/auth")
        return value

    @field_validator("reconnect_delay_max")
    @classmethod
    def _check_delays(cls, value: float, info: ValidationInfo) -> float:
        least = info.data.get("reconnect_delay_min", value)
        if value < least:
            raise ValueError(f"must not be less than REVERB_RECONNECT_DELAY_MIN ({least:g})")
        return value

    @property
    def address(self) -> str:
        """``host:port``, as in URLs and messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Found(NamedTuple):
    """A setting as it was found, before it is checked."""

    value: Any
    source: str
    """``argument``, ``environment``, ``default``, or the path of the ``.env`` file."""
    differing: tuple[str, ...]
    """Sources that say something else, and are not listened to."""


def look_up(arguments: Mapping[str, Any]) -> dict[str, Found]:
    """Tell, for each setting of :class:`ReverbConfig`, where its value comes from.

    Nothing is validated, so this works for settings that are missing or wrong, too. Secrets are in it as they are.
    Raises :class:`ConfigurationError` where the ``.env`` cannot be read.
    """
    dotenv = Path(str(ReverbConfig.model_config["env_file"])).resolve()
    fields = ReverbConfig.model_fields
    try:
        in_file = DotEnvSettingsSource(ReverbConfig)()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(error) from None
    sources: list[tuple[str, Mapping[str, Any]]] = [
        ("argument", arguments),
        ("environment", EnvSettingsSource(ReverbConfig)()),
        (str(dotenv), in_file),
    ]
    found = {}
    for name, field in fields.items():
        given = [(source, values[name]) for source, values in sources if name in values]
        given = given or [("default", None if field.is_required() else field.default)]
        source, value = given[0]
        found[name] = Found(value, source, tuple(each for each, other in given[1:] if str(other) != str(value)))
    return found


def is_url(text: str, *schemes: str) -> bool:
    """Whether a text is a URL of one of these schemes, with a host."""
    try:
        url = urlsplit(text)
        return url.scheme in schemes and bool(url.hostname) and url.port != 0 and not re.search(r"\s", text)
    except ValueError:
        return False


def _unreadable(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"the file .env cannot be read: {type(error).__name__}")


def _explain(error: ValidationError) -> str:
    lines = ["invalid settings:"]
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        name = f"REVERB_{str(problem['loc'][0]).upper()}"
        reason = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if problem["type"] == "missing":
            reason = "is missing: set it in the environment or in .env, or pass it as a keyword argument"
        lines.append(f"  {name} {reason}")
    return "\n".join(lines)
