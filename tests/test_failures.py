"""What was seen, and the likely causes. How they are seen is in test_connection.py, and in cli/test_doctor.py."""

from __future__ import annotations

import errno
import socket
import ssl
from datetime import datetime, timedelta, timezone

import pytest

from reverb import ReverbConfig
from reverb._failures import (
    Certificate,
    Failure,
    bad_certificate,
    no_connection,
    no_name,
    no_tls,
    not_http,
    not_through_proxy,
    not_websocket,
    parse_head,
    upgrade_refused,
    within,
    wrong_header,
)

CONFIG = ReverbConfig(app_key="app-key", host="reverb.example.com", port=8080, scheme="ws")
HOST = CONFIG.host


def verify_error(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_message = message
    return error


def test_a_line_has_the_two_likeliest_causes() -> None:
    assert (
        Failure("it rains", ("A cloud.", "Another.", "A third.")).line == "it rains; likely: A cloud; or: Another"
    )
    assert Failure("it rains", ("A cloud.",)).line == "it rains; likely: A cloud"
    assert Failure("it rains", ()).line == "it rains"


@pytest.mark.parametrize(
    ("message", "seen", "cause"),
    [
        ("certificate has expired", "the certificate expired", "was not renewed"),
        (
            "certificate is not yet valid",
            "the certificate is not valid yet",
            "This machine's clock is wrong: it says",
        ),
        (f"Hostname mismatch, certificate is not valid for '{HOST}'.", f"is not for {HOST}", "REVERB_HOST"),
        (f"IP address mismatch, certificate is not valid for '{HOST}'.", f"is not for {HOST}", "REVERB_HOST"),
        ("unable to get local issuer certificate", "is not trusted: unable", "fullchain.pem"),
        ("self-signed certificate", "is not trusted: self-signed", "SSL_CERT_FILE"),
        ("self signed certificate in certificate chain", "is not trusted: self signed", "SSL_CERT_FILE"),
        ("Missing Authority Key Identifier", "is not trusted: Missing", "Since 3.13"),
        ("Basic Constraints of CA cert not marked critical", "is not trusted: Basic", "Since 3.13"),
    ],
)
def test_certificates(message: str, seen: str, cause: str) -> None:
    failure = bad_certificate(HOST, verify_error(message))
    assert seen in failure.seen
    assert cause in failure.causes[0]


def test_what_is_in_a_certificate_is_told_where_it_is_known() -> None:
    now = datetime.now(timezone.utc)
    found = Certificate(("other.example", "*.other.example"), "Example CA", now, now - timedelta(days=4, hours=1))
    expired = bad_certificate(HOST, verify_error("certificate has expired"), found)
    assert expired.seen.endswith(", 4 days ago (issued by Example CA)")
    early = bad_certificate(HOST, verify_error("certificate is not yet valid"), found)
    assert early.seen == f"the certificate is not valid before {now:%Y-%m-%d %H:%M} UTC"
    other = bad_certificate(HOST, verify_error("Hostname mismatch"), found)
    assert other.seen == f"the certificate is not for {HOST}, but for other.example, *.other.example"
    assert "Is it other.example?" in other.causes[0]


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("WRONG_VERSION_NUMBER", "REVERB_SCHEME=ws"),
        ("RECORD_LAYER_FAILURE", "REVERB_SCHEME=ws"),
        ("TLSV1_UNRECOGNIZED_NAME", "does not speak TLS"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "no certificate for this name"),
        (None, "REVERB_SCHEME"),
    ],
)
def test_tls(reason: str | None, cause: str) -> None:
    error = ssl.SSLError(1, "no")
    error.reason = reason  # type: ignore[assignment]
    assert cause in no_tls(CONFIG, error).causes[0]


def test_names_and_addresses() -> None:
    assert "misspelt" in no_name("a..b", "REVERB_HOST", UnicodeError("label empty")).causes[0]
    assert "offline" in no_name(HOST, "REVERB_HOST", socket.gaierror(socket.EAI_AGAIN, "later")).causes[0]
    assert "REVERB_PORT=8080 is wrong" in no_connection(CONFIG, OSError(errno.ECONNREFUSED, "refused")).causes[0]
    assert "VPN and IPv6" in no_connection(CONFIG, OSError(errno.ENETUNREACH, "unreachable")).causes[0]
    assert (
        no_connection(CONFIG, OSError("odd")).line
        == f"odd; likely: REVERB_HOST={HOST} or REVERB_PORT=8080 is wrong"
    )


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        ("HTTP proxy rejected connection with status 407", "user:password"),
        ("Username and password authentication failure", "user:password"),
        ("No acceptable authentication methods were offered", "user:password"),
        ("HTTP proxy rejected connection with status 403", "does not allow connections to reverb.example.com"),
    ],
)
def test_proxies(why: str, cause: str) -> None:
    failure = not_through_proxy(CONFIG, why)
    assert why in failure.seen
    assert cause in failure.causes[0]


@pytest.mark.parametrize(
    ("head", "parsed"),
    [
        (b"HTTP/1.1 200 OK\r\nServer: nginx\r\nX-Y:  z ", (200, {"server": "nginx", "x-y": "z"})),
        (
            b"HTTP/1.1 101 S\r\nConnection: keep-alive\r\nConnection: Upgrade",
            (101, {"connection": "keep-alive, Upgrade"}),
        ),
        (b"HTTP/1.0 502 Bad Gateway", (502, {})),
        (b"HTTP/1.1 404", (404, {})),
        (b"HTTP/2 200", (200, {})),
        (b"HTTP/1.1 2000 No", None),
        (b"HTTP/1.1 \xff", None),
        (b"SSH-2.0-OpenSSH_9.6", None),
        (b"", None),
    ],
)
def test_heads_of_answers(head: bytes, parsed: tuple[int, dict[str, str]] | None) -> None:
    assert parse_head(head) == parsed


@pytest.mark.parametrize(
    ("headers", "wrong"),
    [
        ({"upgrade": "websocket", "connection": "Upgrade"}, None),
        ({"upgrade": "WebSocket", "connection": "upgrade"}, None),
        ({"connection": "upgrade"}, "Upgrade"),
        ({"upgrade": "h2c", "connection": "upgrade"}, "Upgrade"),
        ({"upgrade": "websocket"}, "Connection"),
        ({"upgrade": "websocket", "connection": "keep-alive, Upgrade"}, "Connection"),
    ],
)
def test_headers_of_a_101(headers: dict[str, str], wrong: str | None) -> None:
    assert wrong_header(headers) == wrong


@pytest.mark.parametrize("value", ["keep-alive, Upgrade", "upgrade,close", "Upgrade , keep-alive"])
def test_a_connection_header_that_was_added_to(value: str) -> None:
    failure = not_websocket("Connection", {"connection": value})
    assert f"with “Connection: {value}”" in failure.seen
    assert "A proxy in front of the server" in failure.causes[0]


def test_a_101_that_is_none() -> None:
    assert "without Upgrade" in not_websocket("Upgrade", {}).seen
    assert "with “Connection: close”" in not_websocket("Connection", {"connection": "close"}).seen
    assert "nginx" in not_websocket("Upgrade", {"server": "nginx"}).causes[1]


def test_what_is_no_http() -> None:
    assert "REVERB_SCHEME=wss" in not_http(CONFIG, b"\x15\x03\x03\x00\x02").causes[0]
    assert r"it sends 'SSH-2.0\x1b'" in not_http(CONFIG, b"SSH-2.0\x1b").seen


def test_the_key_is_not_told() -> None:
    headers = {"location": "https://reverb.example.com/app/app-key?token=1"}
    assert upgrade_refused(CONFIG, 301, headers, "").line == (
        "HTTP status 301: it redirects to https://reverb.example.com/app/…; "
        "likely: It needs REVERB_SCHEME=wss (or https) and REVERB_PORT=443"
    )


def test_numbers_agree() -> None:
    assert within(1.0) == "within 1 second (REVERB_CONNECT_TIMEOUT)"
    assert within(2.5) == "within 2.5 seconds (REVERB_CONNECT_TIMEOUT)"
