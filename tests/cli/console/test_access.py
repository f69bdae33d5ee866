"""Who may talk to the console."""

from __future__ import annotations

import socket

import pytest

from reverb.cli.console.access import Access, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.4.5.6", "::1", "localhost", "LOCALHOST"])
def test_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "fe80::1", "example.com", "localhost.example"])
def test_what_others_reach(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:8123", "LocalHost:8123", "[::1]:8123"])
def test_our_names(host: str) -> None:
    assert Access("127.0.0.1", 8123, is_tls=False).knows_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "127.0.0.1",
        "localhost",
        "127.0.0.1:80",
        "127.0.0.1:8124",
        "evil.example:8123",
        "localhost.evil.example:8123",
        "127.0.0.1.evil.example:8123",
        "evil.example",
        "192.168.1.7:8123",
        "::1:8123",
        "[::1]",
        "127.0.0.1:8123:8123",
        "127.0.0.1:8123@evil.example",
        "127.0.0.1:٨١٢٣",
        ":8123",
    ],
)
def test_other_names(host: str) -> None:
    assert not Access("127.0.0.1", 8123, is_tls=False).knows_host(host)


def test_the_port_may_be_left_out_where_it_is_the_usual_one() -> None:
    assert Access("127.0.0.1", 80, is_tls=False).knows_host("localhost")
    assert Access("127.0.0.1", 443, is_tls=True).knows_host("[::1]")
    assert not Access("127.0.0.1", 80, is_tls=True).knows_host("localhost")


def test_the_name_that_is_exposed_is_ours_too() -> None:
    access = Access("dev.example.com", 8123, is_tls=False)
    assert access.knows_host("dev.example.com:8123")
    assert not access.knows_host("example.com:8123")
    assert not access.knows_host("192.168.1.7:8123")
    assert Access("fd00::7", 8123, is_tls=False).knows_host("[fd00::7]:8123")


def test_on_all_addresses_each_address_is_ours_and_no_other_name() -> None:
    """Nobody can lead an address to us in a name of theirs."""
    for host in ("0.0.0.0", "::"):
        access = Access(host, 8123, is_tls=False)
        assert access.knows_host("192.168.1.7:8123")
        assert access.knows_host("[fd00::7]:8123")
        assert access.knows_host(f"{socket.gethostname()}:8123")
        assert not access.knows_host("evil.example:8123")


def test_our_origin() -> None:
    access = Access("127.0.0.1", 8123, is_tls=False)
    assert access.knows_origin("http://localhost:8123", "localhost:8123")
    assert not access.knows_origin(None, "localhost:8123")
    for origin in ("", "null", "http://127.0.0.1:8123", "https://localhost:8123", "http://evil.example"):
        assert not access.knows_origin(origin, "localhost:8123")
    assert Access("127.0.0.1", 8123, is_tls=True).knows_origin("https://localhost:8123", "localhost:8123")


def test_tokens_are_long_and_differ() -> None:
    tokens = set()
    for _ in range(10):
        access = Access("127.0.0.1", 8123, is_tls=False)
        tokens |= {access.token, access.cookie, access.token_for_once()}
    assert len(tokens) == 30
    assert all(len(token) >= 32 for token in tokens)


def test_the_token_opens_again_and_again_and_another_one_once() -> None:
    access = Access("127.0.0.1", 8123, is_tls=False)
    once = access.token_for_once()
    assert access.accepts(once)
    assert not access.accepts(once)
    assert access.accepts(access.token)
    assert access.accepts(access.token)


@pytest.mark.parametrize("token", ["", "x", "ü", "\ud800"])
def test_other_tokens_open_nothing(token: str) -> None:
    access = Access("127.0.0.1", 8123, is_tls=False)
    assert not access.accepts(token)
    assert not access.accepts(access.cookie)
    assert not access.accepts(access.token[:-1])
    assert not access.knows_cookie(token)
    assert not access.knows_cookie(access.token)
    assert not access.knows_cookie(None)


def test_the_address_has_the_token_in_its_fragment() -> None:
    assert Access("127.0.0.1", 8123, is_tls=False).url("t") == "http://127.0.0.1:8123/#t"
    assert Access("::1", 443, is_tls=True).url("t") == "https://[::1]:443/#t"


def test_the_address_of_a_console_on_all_addresses() -> None:
    access = Access("0.0.0.0", 8123, is_tls=False)
    assert access.url("t") == f"http://{socket.gethostname()}:8123/#t"
    assert access.url("t", is_here=True) == "http://127.0.0.1:8123/#t"
    assert Access("::", 8123, is_tls=False).url("t", is_here=True) == "http://[::1]:8123/#t"
