"""Requests and answers of the HTTP API, without a server."""

from __future__ import annotations

import json
from base64 import b64encode
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverb import APIError, BatchEvent, ChannelInfo, ProtocolError
from reverb._rest import (
    MAX_BATCH,
    Batch,
    Body,
    Infos,
    Proxy,
    Request,
    Server,
    Users,
    encode_data,
    max_answer_size,
    quote_name,
)
from reverb.auth import sign_channel

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors/pusher.json").read_text(encoding="utf-8"))
HEADERS = {"Content-Type": "application/json", "User-Agent": "python-reverb/1"}


def make_server(**options: Any) -> Server:
    defaults: dict[str, Any] = {
        "scheme": "http",
        "address": "localhost:8080",
        "prefix": "",
        "app_id": VECTORS["appId"],
        "key": VECTORS["key"],
        "secret": VECTORS["secret"],
        "max_request_size": 10_000,
        "headers": HEADERS,
    }
    return Server(**{**defaults, **options})


def cut(server: Server, *events: BatchEvent) -> list[Batch]:
    return list(server.batches((event, encode_data(event.event, event.data)) for event in events))


def names(batch: Batch) -> list[str]:
    body = json.loads(batch.request.body)
    return [event["name"] for event in body.get("batch", [body])]


# --- requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["requests"], ids=lambda vector: vector["path"])
def test_requests_are_signed_as_by_pushers_library(vector: dict[str, Any]) -> None:
    request = Request(vector["method"], vector["path"], vector.get("params", {}), vector.get("body", "").encode())
    target = make_server().target(request, VECTORS["timestamp"])
    path, _, query = target.partition("?")
    assert path == vector["path"]
    theirs = vector["query"].split("&auth_signature=")
    ours = dict(parse_qsl(query, strict_parsing=True))
    assert ours.pop("auth_signature") == theirs[1]
    assert "&".join(f"{name}={ours[name]}" for name in sorted(ours)) == theirs[0]


@pytest.mark.parametrize("vector", VECTORS["channels"], ids=lambda vector: vector["channel"])
def test_channels_are_signed_as_by_pushers_library(vector: dict[str, Any]) -> None:
    names = (vector["socket_id"], vector["channel"], vector.get("channel_data"))
    assert sign_channel(VECTORS["key"], VECTORS["secret"], *names) == vector["auth"]


def test_the_prefix_is_sent_but_not_signed() -> None:
    plain, prefixed = make_server(), make_server(prefix="/ws")
    request = plain.get("/channels")
    assert prefixed.target(request, 1) == f"/ws{plain.target(request, 1)}"


def test_what_needs_no_signature_has_none() -> None:
    assert make_server(prefix="/ws").target(Request("GET", "/up", is_signed=False), 1) == "/ws/up"


def test_parameters_that_are_none_are_left_out() -> None:
    request = make_server().get("/channels", info="user_count", filter_by_prefix=None)
    assert request == Request("GET", "/apps/42/channels", {"info": "user_count"})
    with pytest.raises(ProtocolError, match="half of a surrogate pair cannot be sent: '\\\\ud800'"):
        make_server().get("/channels", filter_by_prefix="\ud800")


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("presence", "presence"),
        ("user_count,subscription_count", "user_count,subscription_count"),
        ("a&b=c d/#?+%", "a%26b=c+d%2F%23%3F%2B%25"),
        ("\u00e9\u0661", "%C3%A9%D9%A1"),
    ],
)
def test_values_in_queries(value: str, quoted: str) -> None:
    target = make_server().target(make_server().get("/channels", info=value), 1)
    assert f"?info={quoted}&auth_key=" in target


def test_only_requests_that_change_nothing_are_reads() -> None:
    get, post = make_server().get("/channels"), make_server().post("/events", b"{}")
    assert (get.is_read, post.is_read) == (True, False)
    assert (str(get), str(post)) == ("GET /apps/42/channels", "POST /apps/42/events")


UP = Request("GET", "/up", is_signed=False)


def test_whole_messages() -> None:
    server = make_server(headers={"Accept": "*/*"})
    assert server.message(UP, 1) == b"GET /up HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\n\r\n"
    post = Request("POST", "/up", body=b"{}", is_signed=False)
    head = b"POST /up HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\nContent-Length: 2\r\n\r\n"
    assert server.message(post, 1) == head + b"{}"
    signed = server.get("/channels")
    assert server.message(signed, 7).startswith(f"GET {server.target(signed, 7)} HTTP/1.1\r\n".encode())


def test_a_host_that_is_not_ascii() -> None:
    server = make_server(address="b\u00fccher.example:80", headers={})
    assert server.message(UP, 1) == b"GET /up HTTP/1.1\r\nHost: xn--bcher-kva.example:80\r\n\r\n"
    tunnel = b"CONNECT xn--bcher-kva.example:80 HTTP/1.1\r\nHost: xn--bcher-kva.example:80\r\n\r\n"
    assert Proxy("http://proxy").tunnel("b\u00fccher.example:80") == tunnel


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://proxy.example", (False, "proxy.example", 80)),
        ("http://proxy.example:3128", (False, "proxy.example", 3128)),
        ("https://proxy.example", (True, "proxy.example", 443)),
        ("https://proxy.example:8443/", (True, "proxy.example", 8443)),
    ],
)
def test_where_a_proxy_is(url: str, place: tuple[bool, str, int]) -> None:
    proxy = Proxy(url)
    assert (proxy.is_tls, proxy.host, proxy.port) == place
    assert proxy.lines == ""


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("http://a%40b:p%3Aw@proxy", b"a@b:p:w"),
        ("http://user@proxy", b"user:"),
        ("http://u:\u00e9@proxy", b"u:\xc3\xa9"),
    ],
)
def test_only_the_proxy_gets_its_password(url: str, login: bytes) -> None:
    proxy, server = Proxy(url), make_server(headers={})
    line = b"Proxy-Authorization: Basic " + b64encode(login) + b"\r\n"
    through = b"GET http://localhost:8080/up HTTP/1.1\r\nHost: localhost:8080\r\n" + line + b"\r\n"
    assert server.message(UP, 1, proxy) == through
    assert proxy.tunnel("a:443") == b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n" + line + b"\r\n"
    assert b"Proxy" not in server.message(UP, 1)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("presence-room_1.a@b,c;d=e", "presence-room_1.a@b,c;d=e"), ("a/b c?#é", "a%2Fb%20c%3F%23%C3%A9")],
)
def test_names_in_paths(name: str, quoted: str) -> None:
    assert quote_name(name) == quoted


@pytest.mark.parametrize("name", ["", 7, None])
def test_names_that_are_none(name: Any) -> None:
    with pytest.raises(ProtocolError, match="must be a non-empty string"):
        quote_name(name)


def test_names_that_are_not_unicode() -> None:
    with pytest.raises(ProtocolError, match="half of a surrogate pair cannot be sent: 'a\\\\ud800'"):
        quote_name("a\ud800")


@pytest.mark.parametrize(
    ("data", "text"),
    [("text", "text"), ('{"a": 1}', '{"a": 1}'), ({"a": [1, None]}, '{"a":[1,null]}'), (1, "1"), (None, "null")],
)
def test_data_is_encoded_once(data: Any, text: str) -> None:
    assert encode_data("e", data) == text


def test_data_that_is_not_json() -> None:
    circular: list[Any] = []
    circular.append(circular)
    for data in (object(), {1j: 2}, "\ud800", ["\ud800"], circular):
        with pytest.raises(ProtocolError, match="'paid' cannot be sent as JSON"):
            encode_data("paid", data)


def test_text_that_is_not_unicode() -> None:
    with pytest.raises(ProtocolError, match="'e' cannot be sent as JSON"):
        make_server().trigger(["a"], "e", "\ud800", None, None)
    with pytest.raises(ProtocolError, match="'e' cannot be sent as JSON"):
        cut(make_server(), BatchEvent("\udcff", "e", 1))


def test_optional_fields_are_left_out() -> None:
    server = make_server()
    bare = json.loads(server.trigger(["a"], "e", "1", None, None).body)
    assert bare == {"name": "e", "channels": ["a"], "data": "1"}
    full = json.loads(server.trigger(["a"], "e", "1", "1.2", "user_count").body)
    assert full == {**bare, "socket_id": "1.2", "info": "user_count"}


@pytest.mark.parametrize("count", [0, 101])
def test_how_many_channels(count: int) -> None:
    server = make_server(max_request_size=100_000)
    assert server.trigger(["a"] * 100, "e", "1", None, None).body
    with pytest.raises(ProtocolError, match=f"1 to 100 channels at once, not {count}"):
        server.trigger(["a"] * count, "e", "1", None, None)


def test_an_event_of_exactly_the_limit() -> None:
    size = make_server().size(make_server().trigger(["a"], "e", "x" * 100, None, None))
    assert make_server(max_request_size=size).trigger(["a"], "e", "x" * 100, None, None)
    with pytest.raises(ProtocolError, match=f"too large to publish: {size} bytes .* {size - 1} .REVERB_MAX_RE"):
        make_server(max_request_size=size - 1).trigger(["a"], "e", "x" * 100, None, None)


# --- batches ---------------------------------------------------------------------------------------------------


def test_batches_by_count() -> None:
    batches = cut(make_server(), *(BatchEvent("a", str(n), n) for n in range(25)))
    assert [batch.size for batch in batches] == [10, 10, 5]
    assert [name for batch in batches for name in names(batch)] == [str(n) for n in range(25)]
    assert {str(batch.request) for batch in batches} == {"POST /apps/42/batch_events"}
    assert json.loads(batches[0].request.body)["batch"][1] == {"name": "1", "channel": "a", "data": "1"}


def test_an_event_of_a_batch_may_ask_for_attributes() -> None:
    (batch,) = cut(make_server(), BatchEvent("a", "e", 1, info="user_count"), BatchEvent("b", "e", 2))
    first, second = json.loads(batch.request.body)["batch"]
    assert first == {"name": "e", "channel": "a", "data": "1", "info": "user_count"}
    assert second == {"name": "e", "channel": "b", "data": "2"}


def test_no_events_are_no_batches() -> None:
    assert cut(make_server()) == []


def test_an_event_with_a_socket_id_goes_alone() -> None:
    events = [BatchEvent("a", str(n), n, socket_id="1.2" if n == 2 else None, info="user_count") for n in range(5)]
    batches = cut(make_server(), *events)
    assert [names(batch) for batch in batches] == [["0", "1"], ["2"], ["3", "4"]]
    assert [batch.size for batch in batches] == [2, 1, 2]
    assert batches[1].request.path == "/apps/42/events"
    body = json.loads(batches[1].request.body)
    assert body == {"name": "2", "channels": ["a"], "data": "2", "socket_id": "1.2", "info": "user_count"}


@given(st.lists(st.integers(0, 1_100), max_size=40), st.integers(1_500, 3_000))
def test_batches_keep_order_and_stay_within_what_the_server_takes(sizes: list[int], limit: int) -> None:
    server = make_server(max_request_size=limit)
    batches = cut(server, *(BatchEvent("a", str(n), "x" * size) for n, size in enumerate(sizes)))
    assert [name for batch in batches for name in names(batch)] == [str(n) for n in range(len(sizes))]
    assert all(batch.size == len(names(batch)) <= MAX_BATCH for batch in batches)
    assert all(server.size(batch.request) <= limit for batch in batches)
    for batch, following in pairwise(batches):
        if batch.size < MAX_BATCH:
            # It is full: with the next event it would be too large, give or take the digits of its length.
            first = json.loads(following.request.body)["batch"][0]
            added = len(json.dumps(first, separators=(",", ":"))) + 1
            assert server.size(batch.request) + added > limit - 10


@pytest.mark.parametrize("count", [2, 9])
def test_events_share_a_request_that_is_not_too_large(count: int) -> None:
    server = make_server(max_request_size=1_500)
    for length in range(1, 600):
        events = [BatchEvent("a", str(n), "x" * length) for n in range(count)]
        (together,) = cut(make_server(), *events)
        batches = cut(server, *events)
        assert all(server.size(batch.request) <= 1_500 for batch in batches)
        if server.size(together.request) <= 1_490:  # the length may get more digits
            assert batches == [together]


@pytest.mark.parametrize("socket_id", [None, "1.2"])
def test_one_event_of_a_batch_that_is_too_large(socket_id: str | None) -> None:
    events = [BatchEvent("a", "small", 1), BatchEvent("b", "large", "x" * 10_000, socket_id)]
    with pytest.raises(ProtocolError, match=r"'large' on 'b' is too large .*REVERB_MAX_REQUEST_SIZE"):
        cut(make_server(), *events)


# --- answers ---------------------------------------------------------------------------------------------------

GET = Request("GET", "/apps/42/channels")


@pytest.mark.parametrize(
    ("status", "body", "expected_status", "says"),
    [
        (
            401,
            b"Authentication signature invalid.",
            401,
            "check REVERB_APP_KEY, REVERB_APP_SECRET, .*clock$",
        ),
        (404, b"No matching application for ID [42].", 404, r"ID \[42\].; check REVERB_APP_ID and REVERB_PATH"),
        (413, b"Payload too large.", 413, "Payload too large.; set REVERB_MAX_REQUEST_SIZE"),
        (
            422,
            b'{"name":["It is too long.","It is odd."],"data":["No."]}',
            422,
            "422: name: It is too long. It is odd.; data: No.",
        ),
        (422, b'{"message":"No."}', 422, "with 422: No."),
        (500, b"Internal server error.", 500, "with 500: Internal server error.$"),
        (502, b"<html><h1>Bad gateway</h1></html>", 502, "with 502: an HTML page; the server is starting"),
        (300, b"", 300, "with 300: an empty body; the server redirects; check REVERB_SCHEME"),
        (300, b'{"error":"No.","code":401}', 300, "with 300: No.; the server redirects"),
        (399, b"", 399, "with 399: an empty body; the server redirects; check REVERB_SCHEME"),
        (400, b"", 400, "with 400: an empty body$"),
        (503, b"", 503, "with 503: an empty body; the server is starting"),
        (504, b"", 504, "with 504: an empty body; the server is starting"),
        (418, b"", 418, "with 418: an empty body$"),
        (418, b"x" * 200, 418, "with 418: x{200}$"),
        (400, b"\xff\xfe" + b"x" * 300, 400, "with 400: \ufffd\ufffdx{198}…$"),
        (200, b'{"error":"The secret authentication failed","code":401}', 401, "failed; check REVERB_APP_KEY"),
        (200, b'{"error":"Odd"}', 200, "with 200: Odd"),
        (200, b"", 200, "with 200 and an empty body: this is not .* REVERB_HOST, REVERB_PORT and REVERB_PATH"),
        (200, b"<!doctype html>", 200, "with 200 and an HTML page: this is not"),
        (200, b"[1]", 200, r"with 200 and \[1\]: this is not"),
        (200, b'{"a":', 200, "not the answer of a Pusher-protocol server"),
        (200, b"[" * 100_000, 200, "not the answer of a Pusher-protocol server"),
    ],
)
def test_answers_that_are_errors(status: int, body: bytes, expected_status: int, says: str) -> None:
    with pytest.raises(APIError, match=says) as caught:
        make_server().read(GET, status, body)
    assert caught.value.status == caught.value.code == expected_status
    assert str(caught.value).startswith("localhost:8080 answered GET /apps/42/channels with ")


def test_a_prefix_is_suspected_too() -> None:
    with pytest.raises(APIError, match="REVERB_PATH"):
        make_server(prefix="/ws").read(GET, 401, b"")


def test_hints_for_single_calls() -> None:
    server = make_server()
    with pytest.raises(APIError, match=r"Reverb 1\.10 stops at the first connection without a user"):
        server.read(server.post("/users/7/terminate_connections", b"{}"), 500, b"Internal server error.")
    with pytest.raises(APIError, match=r"with 501: an empty body$"):
        server.read(server.post("/users/7/terminate_connections", b"{}"), 501, b"")
    with pytest.raises(APIError, match="only presence channels have users"):
        server.read(server.get("/channels/news/users"), 400, b"{}")


@pytest.mark.parametrize("status", [300, 500])
def test_an_answer_that_is_not_complete(status: int) -> None:
    server, flaw = make_server(), "more than 5 bytes"
    users = server.get("/channels/presence-a/users")
    with pytest.raises(APIError, match=r"GET .*/users with 200 and more than 5 bytes: this is not the answer"):
        server.read(users, 200, b'{"users":', flaw)
    with pytest.raises(
        APIError, match=r"with 299 and more than 5 bytes \(ask with a prefix to get fewer channels\)"
    ):
        server.read(GET, 299, b"{}", flaw)
    with pytest.raises(APIError, match=f"with {status}: more than 5 bytes"):
        server.read(GET, status, b"", flaw)
    with pytest.raises(APIError, match=f"with {status}: Oh"):
        server.read(GET, status, b"Oh", flaw)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("9" * 9, 999_999_999.0),
        ("9" * 10, None),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        (None, None),
    ],
)
def test_when_to_try_again(header: str | None, seconds: float | None) -> None:
    with pytest.raises(APIError) as caught:
        make_server().read(GET, 503, b"", retry_after=header)
    assert caught.value.retry_after == seconds


def test_a_signature_that_the_server_quotes_is_not_told() -> None:
    said = json.dumps({"error": f'Invalid signature: you sent "{"0123456789abcdef" * 4}"'})
    with pytest.raises(APIError, match=r'you sent "\[signature\]"'):
        make_server().read(GET, 401, said.encode())


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_body_is_what_has_arrived(encoding: str) -> None:
    body = Body(5, encoding)
    body.take(b"abc")
    body.take(b"de")
    assert (body.content, body.flaw) == (b"abcde", None)
    body.take(b"fg")
    assert (body.content, body.flaw) == (b"abcde", "more than 5 bytes")


def test_a_compressed_body_is_not_unpacked() -> None:
    assert Body(5, "gzip").flaw == "a compressed body, which the request did not ask for"


def test_less_is_read_of_an_error_than_of_a_success() -> None:
    assert max_answer_size(200) == max_answer_size(299) == 16 * 1024 * 1024
    assert max_answer_size(199) == max_answer_size(300) == max_answer_size(500) == 64 * 1024


def test_infos_in_every_shape() -> None:
    server = make_server()

    def by_channel(answer: Any) -> dict[str, ChannelInfo]:
        return server.convert(GET, answer, Infos).by_channel()

    assert by_channel({}) == by_channel({"channels": []}) == by_channel({"channels": {}}) == {}
    assert by_channel({"channels": {"a": {"user_count": 2}, "b": []}}) == {
        "a": ChannelInfo(user_count=2),
        "b": ChannelInfo(),
    }


def test_infos_of_batches() -> None:
    server = make_server()

    def in_order(answer: Any, size: int) -> list[ChannelInfo]:
        return server.convert(GET, answer, Infos).in_order(size)

    nothing = ChannelInfo()
    assert in_order({"ok": True}, 2) == in_order({"batch": {}}, 2) == [nothing, nothing]
    assert in_order({"batch": {"a": {"user_count": 1}}}, 1) == [nothing]
    assert in_order({"batch": [{"user_count": 1}, []]}, 2) == [ChannelInfo(user_count=1), nothing]
    assert in_order({"channels": {"a": {"user_count": 1}}}, 1) == [ChannelInfo(user_count=1)]


def test_users_are_named_once_and_by_strings() -> None:
    answer = {"users": [{"id": 7}, {"id": "8"}, {"id": "7"}]}
    assert make_server().convert(GET, answer, Users).ids() == ["7", "8"]
    of_two_nodes = {"users": {"0": {"id": 7}, "1": {"id": "8"}, "3": {"id": "9"}}}
    assert make_server().convert(GET, of_two_nodes, Users).ids() == ["7", "8", "9"]
    nobody = make_server().get("/channels/presence-a/users")
    assert make_server().read(nobody, 404, b"{}") == {}
    with pytest.raises(APIError):
        make_server().read(GET, 404, b"{}")


def test_users_with_half_an_emoji_in_their_names() -> None:
    """As soketi lists them: JavaScript writes such halves as escapes."""
    answer = make_server().read(GET, 200, rb'{"users":[{"id":"\ud83d"},{"id":"b"}]}')
    assert make_server().convert(GET, answer, Users).ids() == ["\N{REPLACEMENT CHARACTER}", "b"]


def test_json_that_means_something_else() -> None:
    says = r"answered GET /apps/42/channels with 200 and other JSON than expected .*REVERB_HOST"
    with pytest.raises(APIError, match=says):
        make_server().convert(GET, {"users": {"a": 1}}, Users)


def test_the_secret_does_not_show() -> None:
    assert VECTORS["secret"] not in repr(make_server())
