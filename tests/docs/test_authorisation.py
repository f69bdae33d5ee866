"""docs/guides/authorisation.md: its code runs."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from reverb.auth import sign_channel
from tests.docs.pages import Fragment, Page
from tests.docs.test_readme import ANN
from tests.integration.servers import Target
from tests.laravel import TOKEN_ROUTE, Laravel

PAGE = Page("docs/guides/authorisation.md")
TEXT = PAGE.text
ENDPOINT, CALLABLE, BACKEND = (each for each in PAGE.blocks.values() if each.language == "python")


def test_how_laravel_gets_a_route_for_tokens() -> None:
    assert re.findall(r"^```php\n(.*?)^```", TEXT, re.M | re.S) == [TOKEN_ROUTE]


async def test_an_endpoint(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REVERB_APP_SECRET")
    async with Laravel(target.key, target.secret) as laravel:

        async def log_in() -> SimpleNamespace:
            return SimpleNamespace(token=laravel.token)

        text = ENDPOINT.text.replace("https://example.com/api/broadcasting/auth", laravel.url)
        fragment = Fragment(ENDPOINT._replace(text=text), log_in=log_in)
        await fragment.run()
        async with fragment.names["client"] as client:
            assert (await client.subscribe("private-orders")).is_subscribed
            assert (await client.subscribe("presence-room.1")).me["user_id"] == "7"
        assert [each["headers"]["X-Device"] for each in laravel.asked] == ["rpi-001", "rpi-001"]


async def test_an_authorizer(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_the_backend(socket_id: str, channel_name: str) -> dict[str, str]:
        data = '{"user_id":"7","user_info":{"name":"Ann"}}' if channel_name.startswith("presence-") else None
        auth = sign_channel(target.key, target.secret, socket_id, channel_name, data)
        return {"auth": auth} if data is None else {"auth": auth, "channel_data": data}

    monkeypatch.delenv("REVERB_APP_SECRET")
    fragment = Fragment(CALLABLE, ask_the_backend=ask_the_backend)
    await fragment.run()
    async with fragment.names["client"] as client:
        assert (await client.subscribe("private-orders")).is_subscribed
        assert (await client.subscribe("presence-room.1")).me == ANN


async def test_answering_others(target: Target) -> None:
    fragment = Fragment(BACKEND, may_listen=lambda user, channel: channel.endswith(user.id))
    await fragment.run()
    answer = fragment.names["broadcasting_auth"]
    ann = SimpleNamespace(id="7", name="Ann")
    assert answer(ann, {"socket_id": "1.2", "channel_name": "private-user.8"}) == (403, {})
    status, private = answer(ann, {"socket_id": "1.2", "channel_name": "private-user.7"})
    assert (status, private) == (200, {"auth": sign_channel(target.key, target.secret, "1.2", "private-user.7")})
    _, presence = answer(ann, {"socket_id": "1.2", "channel_name": "presence-room.7"})
    assert presence["channel_data"] == '{"user_id":"7","user_info":{"name":"Ann"}}'
