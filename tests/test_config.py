"""Settings from keyword arguments, the environment, and ``.env``."""

from __future__ import annotations

import logging
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from reverb import (
    ConfigurationError,
    Credentials,
    ReverbClient,
    ReverbConfig,
    ReverbError,
    SecretAuthorizer,
)
from reverb._settings import Found, look_up, variables_of
from reverb.config import SecretStr, Settings

from .scripted import Peer, ScriptedServer
from .scripted_http import ScriptedHTTPServer, answer

MINIMUM: Any = {"app_key": "key", "host": "reverb.example.com"}


def test_defaults_are_those_of_the_documentation() -> None:
    config = ReverbConfig(**MINIMUM)
    assert asdict(config) == {
        **MINIMUM,
        "app_secret": None,
        "app_id": None,
        "encryption_master_key": None,
        "auth_endpoint": None,
        "auth_token": None,
        "auth_concurrency": 8,
        "port": 443,
        "scheme": "wss",
        "path": "",
        "origin": None,
        "proxy": None,
        "reconnect_enabled": True,
        "reconnect_delay_min": 1.0,
        "reconnect_delay_max": 30.0,
        "reconnect_max_attempts": None,
        "ping_interval": 30.0,
        "pong_timeout": 10.0,
        "connect_timeout": 10.0,
        "subscribe_timeout": 10.0,
        "request_timeout": 10.0,
        "drain_timeout": 5.0,
        "max_message_size": 10_000,
        "max_request_size": 10_000,
        "pool_size": 20,
        "max_pending_bytes": 16_777_216,
        "log_level": None,  # INFO, where the program has not set one itself
    }


@pytest.mark.parametrize("key", ["not base64!", "c2hvcnQ="])
def test_a_master_key_that_is_none(key: str) -> None:
    with pytest.raises(
        ConfigurationError, match="REVERB_ENCRYPTION_MASTER_KEY must be 32 bytes in base64"
    ) as caught:
        ReverbConfig(**MINIMUM, encryption_master_key=key)
    assert key not in str(caught.value)


ENVIRONMENT = {
    "REVERB_APP_KEY": ("env-key", "app_key", "env-key"),
    "REVERB_APP_ID": ("123", "app_id", "123"),
    "REVERB_AUTH_CONCURRENCY": ("2", "auth_concurrency", 2),
    "REVERB_HOST": ("env.example.com", "host", "env.example.com"),
    "REVERB_PORT": ("8080", "port", 8080),
    "REVERB_SCHEME": ("ws", "scheme", "ws"),
    "REVERB_PATH": ("/ws", "path", "/ws"),
    "REVERB_ORIGIN": ("https://example.com", "origin", "https://example.com"),
    "REVERB_RECONNECT_ENABLED": ("false", "reconnect_enabled", False),
    "REVERB_RECONNECT_DELAY_MIN": ("0.5", "reconnect_delay_min", 0.5),
    "REVERB_RECONNECT_DELAY_MAX": ("60", "reconnect_delay_max", 60.0),
    "REVERB_RECONNECT_MAX_ATTEMPTS": ("5", "reconnect_max_attempts", 5),
    "REVERB_MAX_PENDING_BYTES": ("5000", "max_pending_bytes", 5000),
    "REVERB_PING_INTERVAL": ("15", "ping_interval", 15.0),
    "REVERB_PONG_TIMEOUT": ("5", "pong_timeout", 5.0),
    "REVERB_CONNECT_TIMEOUT": ("3", "connect_timeout", 3.0),
    "REVERB_SUBSCRIBE_TIMEOUT": ("4", "subscribe_timeout", 4.0),
    "REVERB_DRAIN_TIMEOUT": ("0", "drain_timeout", 0.0),
    "REVERB_MAX_MESSAGE_SIZE": ("20000", "max_message_size", 20000),
    "REVERB_LOG_LEVEL": ("debug", "log_level", "DEBUG"),
}


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, (text, _, _) in ENVIRONMENT.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("REVERB_APP_SECRET", "env-secret")
    monkeypatch.setenv("REVERB_PROXY", "http://proxy:3128")
    monkeypatch.setenv("REVERB_AUTH_ENDPOINT", "https://example.com/broadcasting/auth")
    monkeypatch.setenv("REVERB_AUTH_TOKEN", "env-token")
    monkeypatch.setenv("REVERB_ENCRYPTION_MASTER_KEY", 43 * "A" + "=")
    config = ReverbConfig.from_env()
    for _, name, value in ENVIRONMENT.values():
        assert getattr(config, name) == value
    assert config.app_secret is not None
    assert config.app_secret.get_secret_value() == "env-secret"
    assert config.proxy is not None
    assert config.proxy.get_secret_value() == "http://proxy:3128"
    assert config.auth_endpoint is not None
    assert config.auth_endpoint.get_secret_value() == "https://example.com/broadcasting/auth"
    assert config.auth_token is not None
    assert config.auth_token.get_secret_value() == "env-token"
    assert config.encryption_master_key is not None
    assert config.encryption_master_key.get_secret_value() == 43 * "A" + "="


def test_every_setting_can_come_from_the_dotenv_file_of_a_laravel_application() -> None:
    laravel = (
        "APP_NAME=Shop\nAPP_KEY=base64:abc\nREVERB_SERVER_HOST=0.0.0.0\nVITE_REVERB_APP_KEY=${REVERB_APP_KEY}\n"
    )
    lines = [f'{variable}="{text}"' for variable, (text, _, _) in ENVIRONMENT.items()]
    Path(".env").write_text(laravel + "\n".join(lines))
    config = ReverbConfig.from_env()
    for _, name, value in ENVIRONMENT.values():
        assert getattr(config, name) == value


def test_arguments_win_over_the_environment_and_that_over_the_dotenv_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("REVERB_APP_KEY=file\nREVERB_HOST=file\nREVERB_PORT=1\n")
    monkeypatch.setenv("REVERB_HOST", "environment")
    monkeypatch.setenv("REVERB_PORT", "2")
    config = ReverbConfig.from_env(port=3)
    assert (config.app_key, config.host, config.port) == ("file", "environment", 3)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_APP_ID", "")
    monkeypatch.setenv("REVERB_PORT", "")
    config = ReverbConfig.from_env(**MINIMUM)
    assert (config.app_id, config.port) == (None, 443)


@pytest.mark.parametrize(
    ("scheme", "expected"), [("ws", "ws"), ("wss", "wss"), ("http", "ws"), ("https", "wss"), (" HTTPS ", "wss")]
)
def test_laravels_schemes_are_understood(scheme: str, expected: str) -> None:
    assert ReverbConfig(**MINIMUM, scheme=scheme).scheme == expected


@pytest.mark.parametrize(
    ("path", "expected"), [("", ""), ("/", ""), ("ws", "/ws"), ("/ws", "/ws"), ("/ws/", "/ws"), ("a/b", "/a/b")]
)
def test_paths_are_normalised(path: str, expected: str) -> None:
    assert ReverbConfig(**MINIMUM, path=path).path == expected


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("example.com", "example.com:443"),
        (" ::1 ", "[::1]:443"),
        ("[::1]", "[::1]:443"),
        ("10.0.0.1", "10.0.0.1:443"),
    ],
)
def test_address(host: str, address: str) -> None:
    assert ReverbConfig(app_key="key", host=host).address == address


def test_all_problems_are_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_PORT", "eighty")
    monkeypatch.setenv("REVERB_SCHEME", "ftp")
    monkeypatch.setenv("REVERB_RECONNECT_DELAY_MAX", "0.1")
    monkeypatch.setenv("REVERB_LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigurationError) as caught:
        ReverbClient()
    assert isinstance(caught.value, ReverbError)
    assert isinstance(caught.value, ValueError)
    lines = str(caught.value).splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        "REVERB_APP_KEY",
        "REVERB_HOST",
        "REVERB_PORT",
        "REVERB_SCHEME",
        "REVERB_LOG_LEVEL",
        "REVERB_RECONNECT_DELAY_MAX",
    ]
    assert "is missing" in lines[0]
    assert "in the environment must be a whole number from 1 to 65535" in lines[2]
    assert "REVERB_RECONNECT_DELAY_MIN (1)" in lines[5]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("app_key", ""),
        ("host", ""),
        ("host", "https://example.com"),
        ("host", "example.com:8080"),
        ("host", "exam ple.com"),
        ("port", 0),
        ("port", 65536),
        ("port", 8080.5),
        ("scheme", "wsss"),
        ("scheme", 5),
        ("reconnect_enabled", "maybe"),
        ("reconnect_delay_min", 0),
        ("reconnect_delay_min", -1),
        ("reconnect_delay_max", float("inf")),
        ("ping_interval", float("nan")),
        ("pong_timeout", 0),
        ("connect_timeout", "soon"),
        ("subscribe_timeout", -1),
        ("drain_timeout", -0.1),
        ("max_message_size", 0),
        ("reconnect_max_attempts", 0),
        ("max_pending_bytes", 0),
        ("log_level", "LOUD"),
        ("proxy", "example.com:3128"),
        ("proxy", "ftp://example.com"),
        ("proxy", "http://"),
        ("proxy", "http://proxy:99999"),
        ("auth_endpoint", "example.com/broadcasting/auth"),
        ("auth_endpoint", "wss://example.com/broadcasting/auth"),
        ("auth_endpoint", "https://exam ple.com/broadcasting/auth"),
        ("auth_concurrency", 0),
        ("encryption_master_key", "not base64!"),
        ("encryption_master_key", "c2hvcnQ="),
        ("app_key", "key\r\nX: y"),
        ("app_key", "key\u200b"),
        ("app_id", ""),
        ("app_secret", ""),
        ("app_secret", "secret\n"),
        ("app_secret", b"secret"),
        ("auth_token", ""),
        ("auth_token", "token\r\nX: y"),
        ("origin", ""),
        ("origin", "https://example.com\r\nX-Forged: yes"),
        ("origin", "https://ex\u00e4mple.com"),
        ("path", "/ws\nX: y"),
        ("path", None),
        ("host", "a..b"),
        ("host", f"{'a' * 70}.example"),
        ("host", 12 * "b\u00fccher" + ".example"),
        ("host", "user:pass@host"),
        ("host", "example.com?x"),
        ("host", "::g"),
        ("host", None),
        ("proxy", "http://a..b:3128"),
        ("proxy", "http://proxy:3128\r\n"),
        ("auth_endpoint", f"https://{'a' * 70}/broadcasting/auth"),
        ("port", True),
        ("port", "4_4_3"),
        ("port", "\u0664\u0664\u0663"),
        ("port", "1" * 5000),
        ("pong_timeout", "1_0"),
        ("pong_timeout", "1e400"),
        ("pong_timeout", True),
        ("reconnect_enabled", 2),
        ("reconnect_enabled", None),
    ],
)
def test_bad_values_are_named(setting: str, value: Any) -> None:
    settings: Any = {**MINIMUM, setting: value}
    with pytest.raises(ConfigurationError, match=f"REVERB_{setting.upper()} "):
        ReverbConfig(**settings)


def test_an_unknown_setting_is_a_mistake() -> None:
    settings: Any = {**MINIMUM, "reconect_enabled": False}
    with pytest.raises(TypeError, match="reconect_enabled"):
        ReverbClient(**settings)


def test_a_client_takes_a_config_or_settings() -> None:
    config = ReverbConfig(**MINIMUM, port=8080)
    assert "reverb.example.com:8080" in repr(ReverbClient(config))
    with pytest.raises(TypeError, match="not both"):
        ReverbClient(config, port=9090)


def test_the_settings_of_a_client_are_those_of_the_config() -> None:
    assert Settings.__annotations__.keys() == set(variables_of(ReverbConfig).values())


def test_a_dotenv_file_that_cannot_be_read_is_named() -> None:
    Path(".env").write_bytes(b"REVERB_HOST=\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"the file \.env is not UTF-8 text: save it as UTF-8"):
        ReverbConfig.from_env(**MINIMUM)


def test_secrets_never_show() -> None:
    config = ReverbConfig(**MINIMUM, app_secret="S3CR3T", proxy="http://user:P4SS@proxy:3128")
    client = ReverbClient(config)
    settings: Any = {
        "app_secret": ["S3CR3T"],
        "proxy": "S3CR3T",
        "port": "S3CR3T",
        "auth_endpoint": "S3CR3T",
        "auth_token": ["S3CR3T"],
        "encryption_master_key": "S3CR3T",
    }
    try:
        ReverbConfig(**settings)
    except ConfigurationError as error:
        shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        cause = error.__cause__
    for text in (repr(config), str(config), repr(client), str(asdict(config)), shown.split("Error:")[-1]):
        assert "S3CR3T" not in text
        assert "P4SS" not in text
    assert cause is None


@pytest.mark.parametrize(
    ("before", "settings", "after"),
    [
        (logging.NOTSET, {}, logging.INFO),
        (logging.NOTSET, {"log_level": "error"}, logging.ERROR),
        (logging.ERROR, {}, logging.ERROR),
        (logging.DEBUG, {}, logging.DEBUG),
        (logging.DEBUG, {"log_level": "INFO"}, logging.INFO),
    ],
)
def test_a_level_that_the_program_has_set_stays_unless_one_is_given(
    before: int, settings: Any, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("reverb")
    logger.setLevel(before)
    handlers = list(logger.handlers)
    ReverbClient(**MINIMUM, **settings)
    assert logger.level == after
    assert logger.handlers == handlers
    logger.setLevel(before)
    for name, level in settings.items():
        monkeypatch.setenv(f"REVERB_{name.upper()}", level)
    ReverbClient(**MINIMUM)
    assert logger.level == after


def test_credentials_alone_need_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERB_APP_KEY", "env-key")
    Path(".env").write_text("REVERB_APP_SECRET=file-secret\n")
    credentials = Credentials.from_env()
    assert credentials.app_key == "env-key"
    assert credentials.app_secret is not None
    assert credentials.app_secret.get_secret_value() == "file-secret"
    assert "file-secret" not in repr(credentials)
    assert isinstance(ReverbConfig(**MINIMUM), Credentials)
    monkeypatch.delenv("REVERB_APP_KEY")
    with pytest.raises(ConfigurationError, match="REVERB_APP_KEY is missing"):
        Credentials.from_env()
    settings: Any = {"host": "example.com"}
    with pytest.raises(TypeError, match="host"):
        Credentials(**settings)


async def test_settings_choose_the_authorizer() -> None:
    signatures: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.establish("1.1")
        message = await peer.expect("pusher:subscribe", channel="private-x")
        signatures.append(message["data"]["auth"])
        await peer.confirm("private-x")
        await peer.wait_closed()

    async with ScriptedServer(script) as server, ScriptedHTTPServer(answer(200, '{"auth":"key:endpoint"}')) as web:
        secret: Any = {"app_secret": "secret"}
        endpoint: Any = {"auth_endpoint": f"http://{web.host}:{web.port}/broadcasting/auth"}
        another: Any = {"authorizer": SecretAuthorizer("key", "another")}
        for settings, expected in (
            (secret, SecretAuthorizer("key", "secret").authorize("1.1", "private-x").auth),
            (endpoint, "key:endpoint"),
            ({**secret, **endpoint}, "key:endpoint"),
            (
                {**secret, **endpoint, **another},
                SecretAuthorizer("key", "another").authorize("1.1", "private-x").auth,
            ),
        ):
            address: Any = {"host": server.host, "port": server.port, "scheme": "ws"}
            async with ReverbClient(app_key="key", **address, **settings) as client:
                await client.subscribe("private-x")
            assert signatures.pop() == expected
        async with ReverbClient(app_key="key", **address) as client:
            with pytest.raises(ConfigurationError, match="REVERB_APP_SECRET is missing"):
                await client.subscribe("private-x")


def test_where_each_setting_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("REVERB_HOST=file.example\nREVERB_PORT=8080\nREVERB_APP_SECRET=file-secret\nOTHER=x\n")
    monkeypatch.setenv("REVERB_HOST", "environment.example")
    monkeypatch.setenv("REVERB_PORT", "not a number")
    monkeypatch.setenv("REVERB_APP_SECRET", "")
    file = str(Path(".env").resolve())
    found = look_up(ReverbConfig, {"host": "argument.example", "path": "/ws"})
    assert found["host"] == Found("argument.example", "argument", ("environment", file))
    assert found["path"] == Found("/ws", "argument", ())
    assert found["port"] == Found("not a number", "environment", (file,))
    assert found["app_secret"] == Found(SecretStr("file-secret"), file, line=3)
    assert found["scheme"] == Found("wss", "default", ())
    assert found["app_key"] == Found(None, "default", ())
    assert found.keys() == set(variables_of(ReverbConfig).values())

    monkeypatch.setenv("REVERB_PORT", "8080")
    assert look_up(ReverbConfig, {})["port"] == Found("8080", "environment", ())

    Path(".env").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"\.env is not UTF-8 text: save it as UTF-8"):
        look_up(ReverbConfig, {})
