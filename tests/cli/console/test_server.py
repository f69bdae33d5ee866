"""The console's web server: who gets what, and what no one gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from http.cookies import SimpleCookie

import pytest
from aiohttp import ClientSession, CookieJar, WSServerHandshakeError
from yarl import URL

from reverb import ReverbConfig
from reverb.cli.console.backend import Backend
from reverb.cli.console.server import serving
from reverb.exceptions import ConfigurationError
from tests.cli.console.visitors import DEADLINE, Visitor, console

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


async def connect(visitor: Visitor, **headers: str) -> int:
    """Try to open a WebSocket; return the status of the answer."""
    try:
        async with visitor.session.ws_connect(f"{visitor.url}/ws", headers=headers):
            return 101
    except WSServerHandshakeError as error:
        return error.status


# --- what everybody gets ---------------------------------------------------------------------------------------


async def test_the_page_is_the_same_for_everybody(stranger: Visitor) -> None:
    async with stranger.session.get(stranger.url) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        text = await response.text()
    assert "<script" in text
    assert stranger.token not in text
    async with stranger.session.get(f"{stranger.url}/app.js") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/app.js", "/ws", "/nothing", "/session"])
async def test_the_headers_of_every_answer(stranger: Visitor, path: str) -> None:
    for method in ("GET", "POST"):
        async with stranger.session.request(method, stranger.url + path) as response:
            assert HEADERS.items() <= response.headers.items()


async def test_the_headers_of_what_is_answered_well(visitor: Visitor) -> None:
    async with visitor.session.ws_connect(f"{visitor.url}/ws", headers=visitor.origin) as socket:
        assert socket.get_extra_info("peername") is not None
        response = socket._response
    assert HEADERS.items() <= response.headers.items()


# --- the way in ------------------------------------------------------------------------------------------------


async def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(stranger: Visitor) -> None:
    body = {"token": stranger.token}
    async with stranger.session.post(f"{stranger.url}/session", json=body, headers=stranger.origin) as response:
        assert response.status == 204
        cookie = SimpleCookie(response.headers["Set-Cookie"])
    (morsel,) = cookie.values()
    assert morsel.key == f"reverb-console-{URL(stranger.url).port}"
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Strict", "/")
    assert (morsel["domain"], morsel["expires"], morsel["max-age"], morsel["secure"]) == ("", "", "", "")
    assert stranger.token not in morsel.value


@pytest.mark.parametrize("body", ["", "{}", '{"token": null}', '{"token": ["x"]}', "[" * 4000, "token=x"])
async def test_what_is_no_token(stranger: Visitor, body: str) -> None:
    url = f"{stranger.url}/session"
    async with stranger.session.post(url, data=body, headers=stranger.origin) as response:
        assert response.status == 400
        assert "Set-Cookie" not in response.headers


async def test_a_wrong_token(stranger: Visitor) -> None:
    body = {"token": "wrong"}
    async with stranger.session.post(f"{stranger.url}/session", json=body, headers=stranger.origin) as response:
        assert response.status == 403
        assert "Set-Cookie" not in response.headers
    assert await connect(stranger, **stranger.origin) == 403


async def test_a_token_that_is_too_large(stranger: Visitor) -> None:
    assert await stranger.come_in("x" * 100_000) == 413


async def test_the_cookie_has_the_port_in_its_name(config: ReverbConfig) -> None:
    """Browsers send cookies to all ports of a host: a second console must not close the first."""
    async with AsyncExitStack() as stack:
        jar = await stack.enter_async_context(ClientSession(cookie_jar=CookieJar(unsafe=True)))
        for _ in range(2):
            visitor = await stack.enter_async_context(console(config))
            visitor.session = jar
            assert await visitor.come_in() == 204
        assert len(jar.cookie_jar) == 2


# --- without the cookie ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/ws", "/events", "/index", "/a/app.js", "/app.js/", "//app.js", "/session/x"])
async def test_without_the_cookie_nothing_is_answered(stranger: Visitor, method: str, path: str) -> None:
    async with stranger.session.request(method, stranger.url + path, headers=stranger.origin) as response:
        assert response.status == 403
        assert await response.text() in ("", "Open the address that `reverb console` printed.\n")


async def test_without_the_cookie_there_is_no_websocket(stranger: Visitor) -> None:
    assert await connect(stranger, **stranger.origin) == 403
    name = f"reverb-console-{URL(stranger.url).port}"
    for value in ("", "wrong", stranger.token):
        assert await connect(stranger, **stranger.origin, Cookie=f"{name}={value}") == 403


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/../__init__.py", "/%2e%2e/__init__.py", "/..%2f..%2fapp.py", "/vendor", "/vendor/"],
)
async def test_what_there_is_not(visitor: Visitor, path: str) -> None:
    async with visitor.session.get(URL(visitor.url + path, encoded=True)) as response:
        assert response.status == 404
        assert HEADERS.items() <= response.headers.items()


# --- other sites -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/app.js", "/ws", "/nothing", "/session"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1"])
async def test_another_name_in_host(visitor: Visitor, path: str, host: str) -> None:
    """DNS rebinding: a site's own name leads to us, and the browser takes our answers for that site's."""
    host = host.format(port=URL(visitor.url).port)
    headers = {"Host": host, "Origin": f"http://{host}"}
    for method in ("GET", "POST"):
        async with visitor.session.request(method, visitor.url + path, headers=headers) as response:
            assert response.status == 403
            assert await response.text() == "The console is not available under this host name.\n"
    assert await connect(visitor, **headers) == 403


async def test_a_request_without_a_host(visitor: Visitor) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(visitor.url).port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"403"
    writer.close()
    await writer.wait_closed()


ORIGINS = ["http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", "https://127.0.0.1:{port}"]


@pytest.mark.parametrize("origin", ORIGINS)
async def test_another_origin(visitor: Visitor, origin: str) -> None:
    origin = origin.format(port=URL(visitor.url).port)
    assert await connect(visitor, Origin=origin) == 403
    body = {"token": visitor.token}
    async with visitor.session.post(f"{visitor.url}/session", json=body, headers={"Origin": origin}) as response:
        assert response.status == 403
        assert "Set-Cookie" not in response.headers
        assert await response.text() == "This request does not come from the console's page.\n"


async def test_no_origin(visitor: Visitor) -> None:
    assert await connect(visitor) == 403
    async with visitor.session.post(f"{visitor.url}/session", json={"token": visitor.token}) as response:
        assert response.status == 403


async def test_with_the_cookie_and_our_own_origin_there_is_a_websocket(visitor: Visitor) -> None:
    assert await connect(visitor, **visitor.origin) == 101


# --- bounds ----------------------------------------------------------------------------------------------------


async def test_too_many_pages(visitor: Visitor) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(visitor.page())
        assert await connect(visitor, **visitor.origin) == 503
    async with visitor.page():
        pass


async def test_a_message_that_is_too_large_ends_its_page_only(visitor: Visitor) -> None:
    async with visitor.page() as other:
        async with visitor.session.ws_connect(f"{visitor.url}/ws", headers=visitor.origin) as socket:
            with suppress(ConnectionError):
                await socket.send_str(json.dumps("x" * 5_000_000))
            while not socket.closed:
                await asyncio.wait_for(socket.receive(), DEADLINE)
        assert await other.result("follow_all", on=False) is None


# --- where it listens ------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken(visitor: Visitor, config: ReverbConfig) -> None:
    port = URL(visitor.url).port
    assert port is not None
    with pytest.raises(ConfigurationError, match=f"the console can't listen on 127.0.0.1, port {port}: "):
        async with serving(Backend(config, {}), "127.0.0.1", port):
            pass


@pytest.fixture
async def on_ipv6(config: ReverbConfig) -> AsyncIterator[str]:
    try:
        async with serving(Backend(config, {}), "::1", 0) as access:
            yield access.url("")
    except ConfigurationError:
        pytest.skip("this machine has no IPv6")


async def test_ipv6(on_ipv6: str) -> None:
    async with ClientSession() as session, session.get(on_ipv6) as response:
        assert response.status == 200
