"""docs/guides/authorisation.md: its code runs."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest

from reverb import EndpointAuthorizer, ReverbClient, ReverbConfig
from reverb.auth import sign_channel
from tests.docs.pages import Block, Fragment, Page
from tests.integration.servers import Target
from tests.laravel import TOKEN_ROUTE, Laravel

PAGE = Page("docs/guides/authorisation.md")
block_of = PAGE.block_of
ANN = {"user_id": "7", "user_info": {"name": "Ann"}}


def test_every_block_is_tested() -> None:
    PAGE.check_that_all_is_tested()


@block_of("In Laravel: a route for tokens")
def test_how_laravel_gets_a_route_for_tokens(block: Block) -> None:
    assert block.text == TOKEN_ROUTE


def test_the_table_of_arguments() -> None:
    (table,) = PAGE.tables("In Python: endpoint and token")
    parameters = set(inspect.signature(EndpointAuthorizer).parameters) - {"url"}
    assert {row[0].strip("`").partition("=")[0] for row in table} == parameters


@block_of("In Python: endpoint and token")
async def test_settings(block: Block, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in target.settings:
        monkeypatch.delenv(f"REVERB_{name.upper()}")
    async with Laravel(target.key, target.secret) as laravel:
        laravel.token = "1|my-token"
        text = block.text.replace("https://example.com/api/broadcasting/auth", laravel.url)
        tmp_path.joinpath(".env").write_text(text)
        config = ReverbConfig.from_env(dotenv=tmp_path / ".env")
        assert (config.host, config.app_key) == ("reverb.example.com", "my-app-key")
        server = {name: target.settings[name] for name in ("app_key", "host", "port", "scheme")}
        client = ReverbClient(ReverbConfig.from_env(dotenv=tmp_path / ".env", **server))
        async with client:
            assert (await client.subscribe("private-orders")).is_subscribed


@block_of("In Python: endpoint and token 2")
async def test_an_endpoint(block: Block, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVERB_APP_SECRET")
    async with Laravel(target.key, target.secret) as laravel:

        async def log_in() -> SimpleNamespace:
            return SimpleNamespace(token=laravel.token)

        text = block.text.replace("https://example.com/api/broadcasting/auth", laravel.url)
        fragment = Fragment(block._replace(text=text), log_in=log_in)
        await fragment.run()
        async with fragment.names["client"] as client:
            assert (await client.subscribe("private-orders")).is_subscribed
            assert (await client.subscribe("presence-room.1")).me["user_id"] == "7"
        assert [each["headers"]["X-Device"] for each in laravel.asked] == ["rpi-001", "rpi-001"]


@block_of("Your own way")
async def test_an_authorizer(block: Block, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_the_backend(socket_id: str, channel_name: str) -> dict[str, str]:
        data = '{"user_id":"7","user_info":{"name":"Ann"}}' if channel_name.startswith("presence-") else None
        auth = sign_channel(target.key, target.secret, socket_id, channel_name, data)
        return {"auth": auth} if data is None else {"auth": auth, "channel_data": data}

    monkeypatch.delenv("REVERB_APP_SECRET")
    fragment = Fragment(block, ask_the_backend=ask_the_backend)
    await fragment.run()
    async with fragment.names["client"] as client:
        assert (await client.subscribe("private-orders")).is_subscribed
        assert (await client.subscribe("presence-room.1")).me == ANN


@block_of("Authorising others")
async def test_answering_others(block: Block, target: Target) -> None:
    fragment = Fragment(block, may_listen=lambda user, channel: channel.endswith(user.id))
    await fragment.run()
    answer = fragment.names["broadcasting_auth"]
    ann = SimpleNamespace(id="7", name="Ann")
    assert answer(ann, {"socket_id": "1.2", "channel_name": "private-user.8"}) == (403, {})
    status, private = answer(ann, {"socket_id": "1.2", "channel_name": "private-user.7"})
    assert (status, private) == (200, {"auth": sign_channel(target.key, target.secret, "1.2", "private-user.7")})
    _, presence = answer(ann, {"socket_id": "1.2", "channel_name": "presence-room.7"})
    assert presence["channel_data"] == '{"user_id":"7","user_info":{"name":"Ann"}}'
