"""The wire format and its rules. Frames and messages are those of real Reverb 1.10.2 and soketi 1.6.1."""

from __future__ import annotations

import json
from contextlib import suppress
from math import inf, isnan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverb import ProtocolError, SubscriptionError
from reverb._protocol import (
    PING,
    PONG,
    Action,
    Message,
    ServerError,
    action_after,
    decode,
    describe,
    encode,
    encode_channel_data,
    encode_client_event,
    encode_signin,
    encode_subscribe,
    encode_unsubscribe,
    encode_user_data,
    is_auth_refusal,
    is_encrypted,
    is_presence,
    is_signable,
    is_socket_id,
    needs_auth,
    parse_data,
    parse_error,
    parse_members,
    parse_user_info,
)

# --- decoding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "message", "data"),
    [
        (
            rb'{"event":"App\\Events\\Shipped","data":"{\"a\":1}","channel":"pub"}',
            Message("App\\Events\\Shipped", "pub", '{"a":1}'),
            {"a": 1},
        ),
        (rb'{"event":"e","data":"just text","channel":"pub"}', Message("e", "pub", "just text"), "just text"),
        (rb'{"event":"e1","channel":"pub","data":"1"}', Message("e1", "pub", "1"), 1),
        (
            rb'{"event":"e","data":"{\"k\":\"\u00e9 \ud83d\ude00 \/ \\u2028\"}","channel":"u"}',
            Message("e", "u", '{"k":"é 😀 / \\u2028"}'),
            {"k": "é 😀 / \u2028"},
        ),
        (
            rb'{"event":"client-typing","channel":"presence-room","data":{"t":1},"user_id":7}',
            Message("client-typing", "presence-room", {"t": 1}, 7),
            {"t": 1},
        ),
        (
            rb'{"event":"client-hi","channel":"private-x","data":null}',
            Message("client-hi", "private-x", None),
            None,
        ),
        (rb'{"event":"pusher:cache_miss","channel":"cache-c"}', Message("pusher:cache_miss", "cache-c"), None),
        (rb'{"event":"pusher:ping"}', Message("pusher:ping"), None),
        (rb'{"event":"pusher:pong","data":{}}', Message("pusher:pong", None, {}), {}),
        (rb'{"event":"e","data":"","channel":"c","unknown":[1]}', Message("e", "c", ""), ""),
    ],
)
def test_decodes_what_servers_send(frame: bytes, message: Message, data: Any) -> None:
    assert decode(frame) == message
    assert parse_data(decode(frame).data) == data


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{nope",
        b"5",
        b"null",
        b'"x"',
        b"[]",
        b"{}",
        b'{"event":5}',
        b'{"event":null}',
        b'{"event":"e","channel":7}',
        b'{"event":"e","user_id":{}}',
        b'{"event":"\xff"}',
        b'{"event":"e"} trailing',
        b'{"event":"e","data":' + b"[" * 100_000,
    ],
)
def test_refuses_what_is_no_message(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match="the server sent something that is not a message: "):
        decode(frame)


@given(st.binary(max_size=200))
def test_decoding_bytes_gives_a_message_or_a_protocol_error(frame: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(decode(frame), Message)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(st.fixed_dictionaries({}, optional={"event": _json, "channel": _json, "data": _json, "user_id": _json}))
def test_any_json_object_gives_a_message_or_a_protocol_error(value: dict[str, Any]) -> None:
    try:
        message = decode(json.dumps(value).encode())
    except ProtocolError:
        return
    assert isinstance(message.event, str)
    parse_data(message.data)
    parse_members(parse_data(message.data))
    parse_error(parse_data(message.data))


def test_data_nested_too_deeply_stays_a_string() -> None:
    deep = "[" * 100_000
    assert parse_data(deep) == deep


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'{"a":"x\ud83d"}', {"a": "x�"}),
        (r'{"a":"\ude00x","n":1}', {"a": "�x", "n": 1}),
        (r'{"a":"\uD83D\ud83D\uDE00\ude00\n\ud83d"}', {"a": "�😀�\n�"}),
        (r'{"a":"\ud83dA\u00e9"}', {"a": "�Aé"}),
        (r'{"\ud83d":{"a":["\ud83d"]}}', {"�": {"a": ["�"]}}),
        (r'"\ud83d"', "�"),
        # What only looks like it: an escaped backslash, and what stands behind it.
        (r'["\\ud83d","\\\ud83d"]', [r"\ud83d", "\\�"]),
        (r'["\\ud83d\ude00"]', [r"\ud83d�"]),
        (r'{"a":1e999,"b":-1e999,"c":1e-999}', {"a": inf, "b": -inf, "c": 0.0}),
        ("1e999", inf),
        ("-1e999", -inf),
        ('{"a":%s}' % ("9" * 100), {"a": int("9" * 100)}),
        ('{"a":%s}' % ("9" * 4300), {"a": int("9" * 4300)}),
        ('{"a":-%s}' % ("9" * 4301), {"a": -inf}),
        (' [Infinity,-Infinity,"\\u0000"]', [inf, -inf, "\0"]),
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"a":1,"a":"\\ud83d"}', {"a": "�"}),
        # No JSON, so it is a text.
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("NaN", "NaN"),
        ('{"a":1,}', '{"a":1,}'),
        ('{"a":"\x01"}', '{"a":"\x01"}'),
        ('\ufeff{"a":1}', '\ufeff{"a":1}'),
        ("12 apples", "12 apples"),
        (r'"\ud83', r'"\ud83'),
    ],
)
def test_json_that_is_unusual(text: str, value: Any) -> None:
    assert parse_data(text) == value
    assert decode(json.dumps({"event": "e", "data": text}).encode()).data == text
    if value != text:
        outer = decode(b'{"event":"client-e","channel":"private-c","data":%b,"user_id":7}' % text.encode())
        assert outer == Message("client-e", "private-c", value, 7)


def test_not_a_number_inside_of_json() -> None:
    assert isnan(parse_data('{"a":NaN}')["a"])


def test_unusual_names_and_ids() -> None:
    message = decode(rb'{"event":"client-\ud83d","channel":"presence-\ud83d","user_id":"\ude00","data":null}')
    assert message == Message("client-�", "presence-�", None, "�")


@given(st.text(st.sampled_from('\\u"d83deE00DfFx\n'), max_size=30), st.text(st.characters(), max_size=5))
def test_whatever_json_says_comes_as_text_that_can_be_written(escapes: str, text: str) -> None:
    try:
        expected = json.loads(f'["{escapes}",{json.dumps(text)}]', strict=False)
    except ValueError:
        return
    # UTF-16 knows which halves make a pair, and which have none.
    mended = [each.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for each in expected]
    parsed = parse_data(f'["{escapes}",{json.dumps(text)}]')
    assert parsed == mended or not isinstance(parsed, list)  # raw control characters are no JSON
    str(parsed).encode()


# --- encoding --------------------------------------------------------------------------------------------------


def test_encodes_messages_with_and_without_data() -> None:
    assert encode("pusher:ping") == PING == b'{"event":"pusher:ping"}'
    assert encode("pusher:pong") == PONG == b'{"event":"pusher:pong"}'
    assert encode("pusher:pong", None) == b'{"event":"pusher:pong","data":null}'


def test_encodes_a_sign_in() -> None:
    assert json.loads(encode_signin("key:sig", '{"id":"1"}')) == {
        "event": "pusher:signin",
        "data": {"auth": "key:sig", "user_data": '{"id":"1"}'},
    }


def test_encodes_subscribe_and_unsubscribe() -> None:
    assert json.loads(encode_subscribe("news")) == {"event": "pusher:subscribe", "data": {"channel": "news"}}
    assert json.loads(encode_subscribe("presence-é", "key:sig", '{"user_id":"1"}')) == {
        "event": "pusher:subscribe",
        "data": {"channel": "presence-é", "auth": "key:sig", "channel_data": '{"user_id":"1"}'},
    }
    assert json.loads(encode_unsubscribe("news")) == {"event": "pusher:unsubscribe", "data": {"channel": "news"}}


@pytest.mark.parametrize("data", [{}, {"cpu": 45.2, "name": "é/"}, [], [1, 2], (1,), None])
def test_encodes_client_events(data: Any) -> None:
    for event in ("status", "client-status"):
        assert json.loads(encode_client_event(event, "private-x", data)) == {
            "event": "client-status",
            "channel": "private-x",
            "data": list(data) if isinstance(data, tuple) else data,
        }


@pytest.mark.parametrize("data", ["text", '{"a":1}', 5, 1.5, True, b"bytes", object(), {"a": object()}, {1j: 2}])
def test_refuses_data_that_servers_refuse_in_client_events(data: Any) -> None:
    with pytest.raises(ProtocolError, match=r"'client-status' on 'private-x'"):
        encode_client_event("status", "private-x", data)


def test_says_which_single_value_servers_refuse() -> None:
    with pytest.raises(ProtocolError, match="must be an object, a list, or None, not float: servers refuse"):
        encode_client_event("status", "private-x", 1.5)


def test_refuses_a_circular_structure() -> None:
    data: list[Any] = []
    data.append(data)
    with pytest.raises(ProtocolError):
        encode_client_event("status", "private-x", data)


def test_refuses_a_client_event_without_a_name() -> None:
    with pytest.raises(ProtocolError, match="needs a name"):
        encode_client_event("", "private-x", {})


@pytest.mark.parametrize(
    ("user_data", "sent"),
    [
        ({"user_id": "1", "user_info": {"name": "a"}}, {"user_id": "1", "user_info": {"name": "a"}}),
        ({"user_id": 7}, {"user_id": "7", "user_info": {}}),
        ({"user_id": 0, "user_info": None}, {"user_id": "0", "user_info": {}}),
    ],
)
def test_channel_data_has_a_string_id_and_always_user_info(user_data: Any, sent: Any) -> None:
    assert json.loads(encode_channel_data("presence-x", user_data)) == sent


@pytest.mark.parametrize(
    "user_data",
    [
        None,
        "1",
        {},
        {"user_id": None},
        {"user_id": ""},
        {"user_id": True},
        {"user_id": 1.5},
        {"user_info": {}},
        {"user_id": "1", "user_info": "text"},
        {"user_id": "1", "name": "a"},
        {"user_id": "1", "user_info": {"x": object()}},
    ],
)
def test_user_data_that_is_no_identity_is_refused(user_data: Any) -> None:
    with pytest.raises(SubscriptionError, match="presence-x"):
        encode_channel_data("presence-x", user_data)


@pytest.mark.parametrize(
    ("user_data", "says"),
    [
        ({"user_id": 1.5}, r"; user_id must be a string or an integer, not 1\.5$"),
        ({"user_id": "1", "user_info": "text"}, "; user_info must be a dict, not str$"),
        ({"user_id": "1", "name": "a", "age": 7}, "; unknown keys: 'age', 'name'$"),
        ("1", r'pass user_data=\{"user_id": "…", "user_info": \{…\}\}$'),
    ],
)
def test_says_what_is_wrong_with_user_data(user_data: Any, says: str) -> None:
    with pytest.raises(SubscriptionError, match=says):
        encode_channel_data("presence-x", user_data)


@pytest.mark.parametrize(
    ("user_data", "sent"),
    [
        ({"id": "1"}, {"id": "1"}),
        ({"id": 7, "user_info": {"name": "é"}}, {"id": "7", "user_info": {"name": "é"}}),
        ({"id": 0, "watchlist": ["2"]}, {"id": "0", "watchlist": ["2"]}),
    ],
)
def test_the_data_of_a_user_has_a_string_id(user_data: Any, sent: Any) -> None:
    assert json.loads(encode_user_data(user_data)) == sent


@pytest.mark.parametrize(
    "user_data", [None, "1", {}, {"id": None}, {"id": ""}, {"id": True}, {"id": 1.5}, {"user_id": "1"}]
)
def test_the_data_of_a_user_without_an_id_is_refused(user_data: Any) -> None:
    with pytest.raises(ProtocolError, match=r'user_data must be \{"id": "…"\}'):
        encode_user_data(user_data)


def test_the_data_of_a_user_that_is_not_json_is_refused() -> None:
    circular: dict[str, Any] = {}
    circular["self"] = circular
    for info in (object(), {1j: 2}, "\ud800", circular):
        with pytest.raises(ProtocolError, match="the user_data cannot be sent as JSON"):
            encode_user_data({"id": "1", "user_info": info})


# --- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("socket_id", "is_valid"),
    [
        ("1.2", True),
        (f"{'9' * 20}.{'9' * 20}", True),
        (f"{'9' * 21}.1", False),
        (f"1.{'9' * 21}", False),
        ("", False),
        ("1", False),
        ("1.", False),
        (".2", False),
        ("1.2.3", False),
        ("1.2\n", False),
        ("1.2:private-a", False),
        ("a.b", False),
        ("\u0661.\u0662", False),  # digits, but not of ASCII
        (1.2, False),
        (None, False),
    ],
)
def test_ids_of_connections(socket_id: object, is_valid: bool) -> None:
    assert is_socket_id(socket_id) is is_valid


@pytest.mark.parametrize(
    ("channel", "is_valid"),
    [
        ("private-x", True),
        ("private-é /?", True),
        ("", False),
        ("private-a:b", False),
        ("private-a\n", False),
        ("private-\x7f", False),
        ("private-\ud800", False),
        (None, False),
        (7, False),
    ],
)
def test_names_that_can_be_signed(channel: object, is_valid: bool) -> None:
    assert is_signable(channel) is is_valid


@pytest.mark.parametrize(
    ("name", "auth", "presence", "encrypted"),
    [
        ("news", False, False, False),
        ("cache-c", False, False, False),
        ("private-x", True, False, False),
        ("privateX", True, False, False),
        ("private-cache-x", True, False, False),
        ("presence-x", True, True, False),
        ("presenceX", True, True, False),
        ("presence-cache-x", True, True, False),
        ("private-encrypted-x", True, False, True),
        ("a-private-x", False, False, False),
    ],
)
def test_kinds_of_channels(name: str, auth: bool, presence: bool, encrypted: bool) -> None:
    assert (needs_auth(name), is_presence(name), is_encrypted(name)) == (auth, presence, encrypted)


# --- presence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "members"),
    [
        (
            '{"presence":{"count":2,"ids":["1",7],"hash":{"1":{"name":"a"},"7":[]}}}',
            {"1": {"name": "a"}, "7": {}},
        ),
        ('{"presence":{"count":0,"ids":[],"hash":[]}}', {}),
        (
            '{"presence":{"count":2,"ids":["0","1"],"hash":[{"n":"zero"},{"n":"one"}]}}',
            {"0": {"n": "zero"}, "1": {"n": "one"}},
        ),
        ('{"presence":{"count":1,"ids":["1"],"hash":{"1":null}}}', {"1": {}}),
        ('{"presence":{"count":1,"ids":["1"],"hash":{"1":"str"}}}', {"1": {"value": "str"}}),
        (
            '{"presence":{"ids":["alice","bob"],"hash":{"alice":{"name":"A"}},"count":2}}',
            {"alice": {"name": "A"}, "bob": {}},
        ),
        ('{"presence":{"ids":["alice",null],"hash":{"alice":{},"undefined":{}},"count":2}}', {"alice": {}}),
        ('{"presence":{"hash":{"1":{}}}}', {"1": {}}),
        ('{"presence":{"count":1,"ids":["1"],"hash":"none"}}', {"1": {}}),
        ('{"presence":{"ids":["1"]}}', {"1": {}}),
        ('{"presence":5}', {}),
        ("{}", {}),
        ("[]", {}),
        ("nope", {}),
        (None, {}),
    ],
)
def test_members_whatever_php_made_of_them(data: str | None, members: dict[str, Any]) -> None:
    assert parse_members(parse_data(data)) == members


@pytest.mark.parametrize(
    ("info", "parsed"),
    [({"a": 1}, {"a": 1}), ([], {}), (["x", "y"], {"0": "x", "1": "y"}), (None, {}), (5, {"value": 5})],
)
def test_user_info_is_a_dict(info: Any, parsed: dict[str, Any]) -> None:
    assert parse_user_info(info) == parsed


# --- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            r'{"code":4001,"message":"Application does not exist"}',
            ServerError(4001, "Application does not exist"),
        ),
        ({"code": 4003, "message": "The app is not enabled."}, ServerError(4003, "The app is not enabled.")),
        (
            {"type": "AuthError", "error": "The connection is unauthorized.", "status": 401},
            ServerError(401, "The connection is unauthorized."),
        ),
        ({}, ServerError(None, "no reason given")),
        ({"code": "4001"}, ServerError(None, "no reason given")),
        ("text", ServerError(None, "text")),
        (None, ServerError(None, "None")),
    ],
)
def test_errors_of_both_kinds_of_servers(data: Any, error: ServerError) -> None:
    assert parse_error(parse_data(data)) == error


def test_an_error_as_text_is_visible_and_has_its_code() -> None:
    assert str(ServerError(4001, "Application does not exist")) == "Application does not exist (4001)"
    assert str(ServerError(None, "no\x1b[2Jreason")) == "no\\x1b[2Jreason"


def test_4009_is_about_a_signature_only_by_its_text() -> None:
    assert is_auth_refusal(ServerError(4009, "Connection is unauthorized"))
    assert is_auth_refusal(ServerError(401, "The connection is unauthorized."))
    assert not is_auth_refusal(ServerError(4009, "The client is not a member of the specified channel."))
    assert not is_auth_refusal(ServerError(4009, "Origin not allowed"))
    assert not is_auth_refusal(ServerError(4200, "Invalid message format"))


FAIL, BACK_OFF, RETRY_NOW = Action.FAIL, Action.BACK_OFF, Action.RETRY_NOW


@pytest.mark.parametrize(
    ("codes", "refused", "said", "closed"),
    [
        # the code in place of the greeting, as the last word of an established connection, in a close frame
        ([4000, 4001, 4003, 4009, 4099], FAIL, BACK_OFF, FAIL),
        ([4004], BACK_OFF, BACK_OFF, BACK_OFF),
        ([4100, 4199], BACK_OFF, BACK_OFF, BACK_OFF),
        ([4200, 4201, 4299], RETRY_NOW, RETRY_NOW, RETRY_NOW),
        ([4300, 4301, 4999], BACK_OFF, BACK_OFF, BACK_OFF),
        ([1000, 1001, 1002, 1006, 1009, 1011, 1012], BACK_OFF, BACK_OFF, BACK_OFF),
        ([401, 403, 404, 429, 500, 502, 503], BACK_OFF, BACK_OFF, BACK_OFF),
    ],
)
def test_what_to_do_about_a_loss(codes: list[int], refused: Action, said: Action, closed: Action) -> None:
    for code in codes:
        assert action_after(code, None, established=False) is refused
        assert action_after(code, None, established=True) is said
        assert action_after(None, code, established=False) is closed
        assert action_after(None, code, established=True) is closed
        # the close frame is the last word
        assert action_after(4001, code, established=True) is closed


@pytest.mark.parametrize(
    ("code", "first"),
    [(4001, FAIL), (4004, FAIL), (4100, BACK_OFF), (4200, RETRY_NOW), (404, BACK_OFF), (None, BACK_OFF)],
)
def test_what_to_do_about_a_first_attempt_that_failed(code: int | None, first: Action) -> None:
    """Over quota (4004) is for good only there: later it may be our own last connection that counts."""
    assert action_after(code, None, established=False, is_first=True) is first


def test_an_end_without_a_word_backs_off() -> None:
    assert action_after(None, None, established=True) is BACK_OFF
    assert action_after(None, None, established=False) is BACK_OFF


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (encode_subscribe("private-x", "key:SIGNATURE"), "'pusher:subscribe' on 'private-x'"),
        (encode_client_event("status", "private-x", {"channel": "secret"}), "'client-status' on 'private-x'"),
        (PING, "'pusher:ping'"),
    ],
)
def test_messages_are_described_without_what_they_carry(payload: bytes, text: str) -> None:
    assert describe(payload) == text
