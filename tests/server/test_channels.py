"""Subscriptions, presence and caching, with subscribers that only remember what they were sent."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from reverb.auth import sign_channel
from reverb.exceptions import AuthenticationError
from reverb.server import App
from reverb.server._channels import Channels
from reverb.server._journal import Journal


class Listener:
    def __init__(self, socket_id: str = "1.1") -> None:
        self.socket_id = socket_id
        self.frames: list[bytes] = []

    def send(self, encoded: bytes) -> None:
        self.frames.append(encoded)

    def check_alive(self) -> None:
        raise NotImplementedError

    def terminate(self) -> None:
        raise NotImplementedError

    def heard(self) -> list[str]:
        """Return the texts received since the last call; all of them are shorter than 64 KiB."""
        texts = [frame[2 if frame[1] < 126 else 4 :].decode() for frame in self.frames]
        self.frames.clear()
        return texts


@pytest.fixture
def channels() -> Channels:
    return Channels(App(), Journal())


def join(channels: Channels, listener: Listener, name: str, channel_data: str = "") -> list[str]:
    auth = sign_channel("app-key", "app-secret", listener.socket_id, name, channel_data or None) if name else ""
    channels.subscribe(listener, name, auth, channel_data)
    return listener.heard()


def user(user_id: Any, info: Any = None) -> str:
    return json.dumps({"user_id": user_id, "user_info": info})


def succeeded(channel: str, data: str = "{}") -> str:
    quoted = data.replace("\\", "\\\\").replace('"', '\\"')
    return f'{{"event":"pusher_internal:subscription_succeeded","data":"{quoted}","channel":"{channel}"}}'


def members(channel: str, count: int, ids: str, infos: str) -> str:
    return succeeded(channel, f'{{"presence":{{"count":{count},"ids":{ids},"hash":{infos}}}}}')


def added(channel: str, data: str) -> str:
    quoted = data.replace('"', '\\"')
    return f'{{"event":"pusher_internal:member_added","data":"{quoted}","channel":"{channel}"}}'


def removed(channel: str, user_id: str) -> str:
    quoted = user_id.replace('"', '\\"')
    data = f'{{\\"user_id\\":{quoted}}}'
    return f'{{"event":"pusher_internal:member_removed","data":"{data}","channel":"{channel}"}}'


class TestSubscribe:
    def test_again(self, channels: Channels) -> None:
        listener = Listener()
        assert join(channels, listener, "x") == join(channels, listener, "x") == [succeeded("x")]
        assert channels.subscribers() == [listener]

    @pytest.mark.parametrize("name", ["", "0"])
    def test_name_that_php_takes_for_none(self, channels: Channels, name: str) -> None:
        text = '{"event":"pusher_internal:subscription_succeeded","data":"{}"}'
        assert join(channels, Listener(), name) == [text]

    @pytest.mark.parametrize(
        "name", ["private-x", "presence-x", "privateX", "presenceX", "private-cache-x", "private-encrypted-x"]
    )
    def test_signature(self, channels: Channels, name: str) -> None:
        listener = Listener()
        for auth in ("", "app-key:", "app-key:0000", "app-key:é"):
            with pytest.raises(AuthenticationError):
                channels.subscribe(listener, name, auth, "")
        assert channels.get(name) is None
        right = sign_channel("app-key", "app-secret", listener.socket_id, name)
        channels.subscribe(listener, name, right, "")
        channels.subscribe(listener, name, right.replace("app-key", "other"), "")
        channels.subscribe(listener, name, right.partition(":")[2], "")

    @pytest.mark.parametrize("name", ["x", "cache-x", "Private-x", "encrypted-private-x"])
    def test_without_signature(self, channels: Channels, name: str) -> None:
        channels.subscribe(Listener(), name, "", "")
        assert channels.get(name) is not None

    def test_signature_covers_channel_data(self, channels: Channels) -> None:
        listener = Listener()
        without = sign_channel("app-key", "app-secret", listener.socket_id, "private-x")
        with pytest.raises(AuthenticationError):
            channels.subscribe(listener, "private-x", without, '{"a":1}')
        assert join(channels, listener, "private-x", '{"a":1}') == [succeeded("private-x")]

    def test_bad_channel_data_counts_before_a_bad_signature(self, channels: Channels) -> None:
        with pytest.raises(ValueError, match="not JSON"):
            channels.subscribe(Listener(), "presence-x", "app-key:bad", "{nope")

    @pytest.mark.parametrize("data", ["{nope", "5", '"x"', "null", '{"user_id":[1]}'])
    @pytest.mark.parametrize("name", ["x", "presence-x"])
    def test_channel_data_that_php_chokes_on(self, channels: Channels, name: str, data: str) -> None:
        with pytest.raises(ValueError, match=r"not JSON|object|single value"):
            join(channels, Listener(), name, data)
        assert channels.get(name) is None

    def test_channel_is_gone_when_everybody_left(self, channels: Channels) -> None:
        one, other = Listener("1.1"), Listener("1.2")
        join(channels, one, "x")
        join(channels, other, "x")
        join(channels, other, "y")
        channels.unsubscribe(one, "x")
        channels.unsubscribe(one, "never")
        assert [channel.name for channel in channels] == ["x", "y"]
        channels.unsubscribe_from_all(other)
        assert list(channels) == []


class TestPresence:
    NAME = "presence-room"

    def test_ids_keep_their_type(self, channels: Channels) -> None:
        a, b, c = Listener("1.1"), Listener("1.2"), Listener("1.3")
        assert join(channels, a, self.NAME, user("1", {"name": "a"})) == [
            members(self.NAME, 1, '["1"]', '{"1":{"name":"a"}}')
        ]
        assert join(channels, b, self.NAME, user(7, {"name": "x"})) == [
            members(self.NAME, 2, '["1",7]', '{"1":{"name":"a"},"7":{"name":"x"}}')
        ]
        assert a.heard() == [added(self.NAME, '{"user_id":7,"user_info":{"name":"x"}}')]
        assert join(channels, c, self.NAME, user("8", {})) == [
            members(self.NAME, 3, '["1",7,"8"]', '{"1":{"name":"a"},"7":{"name":"x"},"8":[]}')
        ]
        assert a.heard() == b.heard() == [added(self.NAME, '{"user_id":"8","user_info":[]}')]
        channels.unsubscribe(b, self.NAME)
        assert a.heard() == c.heard() == [removed(self.NAME, "7")]
        assert b.heard() == []

    def test_ids_from_0_make_a_list(self, channels: Channels) -> None:
        assert join(channels, Listener("1.1"), self.NAME, user("0", {"n": "zero"})) == [
            members(self.NAME, 1, '["0"]', '[{"n":"zero"}]')
        ]
        assert join(channels, Listener("1.2"), self.NAME, user("1", {"n": "one"})) == [
            members(self.NAME, 2, '["0","1"]', '[{"n":"zero"},{"n":"one"}]')
        ]
        assert join(channels, Listener("1.3"), self.NAME, user("5", {"n": "five"})) == [
            members(self.NAME, 3, '["0","1","5"]', '{"0":{"n":"zero"},"1":{"n":"one"},"5":{"n":"five"}}')
        ]

    def test_user_0_is_not_seen_leaving(self, channels: Channels) -> None:
        zero, watcher = Listener("1.1"), Listener("1.2")
        join(channels, zero, self.NAME, user("0"))
        join(channels, watcher, self.NAME, user("5"))
        channels.unsubscribe(zero, self.NAME)
        assert watcher.heard() == []

    @pytest.mark.parametrize(("info", "shown"), [("null", "null"), ('"str"', '"str"'), ("{}", "[]")])
    def test_odd_user_info(self, channels: Channels, info: str, shown: str) -> None:
        data = f'{{"user_id":"1","user_info":{info}}}'
        assert join(channels, Listener(), self.NAME, data) == [members(self.NAME, 1, '["1"]', f'{{"1":{shown}}}')]

    def test_missing_user_info_spoils_it_for_everybody(self, channels: Channels) -> None:
        a, b, c = Listener("1.1"), Listener("1.2"), Listener("1.3")
        join(channels, a, self.NAME, user("1"))
        with pytest.raises(ValueError, match="user_info"):
            join(channels, b, self.NAME, '{"user_id": "2"}')
        assert a.heard() == [added(self.NAME, '{"user_id":"2"}')]
        with pytest.raises(ValueError, match="user_info"):
            join(channels, c, self.NAME, user("3"))
        assert b.heard() == [added(self.NAME, '{"user_id":"3","user_info":null}')]
        channel = channels.get(self.NAME)
        assert channel is not None
        assert list(channel.members) == [a, b, c]

    @pytest.mark.parametrize("data", ["", "{}", "[]", '{"user_info":{"a":1}}', '{"user_id":null}'])
    def test_missing_user_id_empties_the_list(self, channels: Channels, data: str) -> None:
        join(channels, Listener("1.1"), self.NAME, user("1"))
        assert join(channels, Listener("1.2"), self.NAME, data) == [members(self.NAME, 0, "[]", "[]")]

    def test_member_added_without_channel_data(self, channels: Channels) -> None:
        watcher = Listener("1.1")
        join(channels, watcher, self.NAME, user("1"))
        join(channels, Listener("1.2"), self.NAME)
        assert watcher.heard() == [added(self.NAME, "{}")]

    def test_only_first_and_last_connection_count(self, channels: Channels) -> None:
        watcher, one, two = Listener("1.1"), Listener("1.2"), Listener("1.3")
        join(channels, watcher, self.NAME, user("9"))
        join(channels, one, self.NAME, user(1, "first"))
        watcher.heard()
        assert join(channels, two, self.NAME, user("1", "second")) == [
            members(self.NAME, 2, '["9",1]', '{"9":null,"1":"first"}')
        ]
        channels.unsubscribe(one, self.NAME)
        assert watcher.heard() == []
        channels.unsubscribe_from_all(two)
        assert watcher.heard() == [removed(self.NAME, '"1"')]

    def test_again_as_another_user(self, channels: Channels) -> None:
        a, watcher = Listener("1.1"), Listener("1.2")
        join(channels, a, self.NAME, user("1"))
        join(channels, watcher, self.NAME, user("9", {}))
        a.heard()
        assert join(channels, a, self.NAME, user("1")) == [members(self.NAME, 2, '["1","9"]', '{"1":null,"9":[]}')]
        assert watcher.heard() == []
        assert join(channels, a, self.NAME, user("2")) == [members(self.NAME, 2, '["2","9"]', '{"2":null,"9":[]}')]
        assert watcher.heard() == [added(self.NAME, '{"user_id":"2","user_info":null}')]

    @pytest.mark.parametrize(
        ("first", "second", "count", "ids", "infos"),
        [
            # true is equal to any text
            ('"w"', "true", 1, '["w"]', '{"w":[]}'),
            ("true", '"w"', 1, "[true]", '{"1":[]}'),
            ('"w"', '""', 2, '["w",""]', '{"w":[],"":[]}'),
            # Numbers in texts are compared as numbers.
            ('"7"', '"007"', 1, '["7"]', '{"7":[]}'),
            ("7", '"7.0"', 1, "[7]", '{"7":[]}'),
            # Two users, and one key for both
            ("1.5", "1.25", 2, "[1.5,1.25]", '{"1":[]}'),
            ("0.5", '"x"', 2, '[0.5,"x"]', '{"0":[],"x":[]}'),
            ("12345678901234567890", "1", 2, "[1.2345678901234567e+19,1]", '{"-6101065172474984448":[],"1":[]}'),
            ("-0.0", '"x"', 2, '[-0,"x"]', '{"0":[],"x":[]}'),
        ],
    )
    def test_odd_ids(self, channels: Channels, first: str, second: str, count: int, ids: str, infos: str) -> None:
        join(channels, Listener("1.1"), self.NAME, f'{{"user_id":{first},"user_info":{{}}}}')
        assert join(channels, Listener("1.2"), self.NAME, f'{{"user_id":{second},"user_info":{{}}}}') == [
            members(self.NAME, count, ids, infos)
        ]

    def test_same_number_in_another_form_is_nobody_new(self, channels: Channels) -> None:
        watcher, one, two = Listener("1.1"), Listener("1.2"), Listener("1.3")
        join(channels, watcher, self.NAME, user("w"))
        for each, user_id in ((one, "7"), (two, "007")):
            join(channels, each, self.NAME, user(user_id))
        assert watcher.heard() == [added(self.NAME, '{"user_id":"7","user_info":null}')]
        channels.unsubscribe(one, self.NAME)
        assert watcher.heard() == []
        channels.unsubscribe(two, self.NAME)
        assert watcher.heard() == [removed(self.NAME, '"007"')]

    def test_infinite_number(self, channels: Channels) -> None:
        """PHP can't write what it has read."""
        watcher = Listener("1.1")
        join(channels, watcher, self.NAME, user("w"))
        data = '{"user_id":"1","user_info":1e400}'
        succeeded = {"event": "pusher_internal:subscription_succeeded", "channel": self.NAME}
        assert [json.loads(text) for text in join(channels, Listener("1.2"), self.NAME, data)] == [succeeded]
        message = {"event": "pusher_internal:member_added", "data": False, "channel": self.NAME}
        assert [json.loads(text) for text in watcher.heard()] == [message]


class TestEvents:
    def test_are_encoded_once(self, channels: Channels) -> None:
        listeners = [Listener(f"1.{n}") for n in range(3)]
        for listener in listeners:
            join(channels, listener, "x")
        channels.publish(["x"], {"event": "e", "data": "1"})
        assert len({id(listener.frames[0]) for listener in listeners}) == 1

    def test_except_for(self, channels: Channels) -> None:
        one, other = Listener("1.1"), Listener("1.2")
        join(channels, one, "x")
        join(channels, other, "x")
        channels.publish(["x", "nobody"], {"event": "e", "data": "1"}, excluded=one.socket_id)
        assert one.heard() == []
        assert other.heard() == ['{"event":"e","data":"1","channel":"x"}']

    @pytest.mark.parametrize("name", ["cache-c", "cacheC", "private-cache-c", "presence-cache-c"])
    def test_cache(self, channels: Channels, name: str) -> None:
        first, second = Listener("1.1"), Listener("1.2")
        assert join(channels, first, name)[1:] == [f'{{"event":"pusher:cache_miss","channel":"{name}"}}']
        for number in "12":
            channels.publish([name], {"event": "e", "data": number})
        assert join(channels, second, name)[1:] == [f'{{"event":"e","data":"2","channel":"{name}"}}']

    @pytest.mark.parametrize("name", ["private-cacheC", "presence-cacheC", "xcache-c"])
    def test_no_cache(self, channels: Channels, name: str) -> None:
        assert len(join(channels, Listener(), name)) == 1

    def test_cache_holds_no_membership_news(self, channels: Channels) -> None:
        name = "presence-cache-c"
        join(channels, Listener("1.1"), name, user("1"))
        join(channels, Listener("1.2"), name, user("2"))
        assert join(channels, Listener("1.3"), name, user("3"))[1:] == [
            f'{{"event":"pusher:cache_miss","channel":"{name}"}}'
        ]

    def test_cache_is_lost_with_the_last_subscriber(self, channels: Channels) -> None:
        listener = Listener()
        join(channels, listener, "cache-c")
        channels.publish(["cache-c"], {"event": "e", "data": "1"})
        channels.unsubscribe(listener, "cache-c")
        assert join(channels, Listener(), "cache-c")[1:] == ['{"event":"pusher:cache_miss","channel":"cache-c"}']


def test_info(channels: Channels) -> None:
    join(channels, Listener("1.1"), "x")
    join(channels, Listener("1.2"), "presence-x", user("1"))
    join(channels, Listener("1.3"), "presence-x", user("1"))
    join(channels, Listener("1.4"), "presence-x", user("2"))
    join(channels, Listener("1.5"), "cache-x")
    wanted = ["occupied", "subscription_count", "user_count", "cache"]
    assert channels.info("x", wanted) == {"occupied": True, "subscription_count": 1}
    assert channels.info("presence-x", wanted) == {"occupied": True, "user_count": 2}
    assert channels.info("presence-x", ["user_count"]) == {"user_count": 2}
    assert channels.info("cache-x", wanted) == {"occupied": True, "subscription_count": 1}
    channels.publish(["x", "cache-x"], {"event": "e", "data": "1"})
    assert "cache" not in channels.info("x", wanted)
    assert channels.info("cache-x", ["cache"]) == {"cache": {"event": "e", "data": "1", "channel": "cache-x"}}
    assert channels.info("none", wanted) == {"occupied": False}


def test_leaving_does_not_look_at_the_channels_of_others() -> None:
    def measure(others: int) -> float:
        channels = Channels(App(), Journal())
        for number in range(others):
            channels.subscribe(Listener(f"1.{number}"), f"channel-{number}", "", "")
        leaving = [Listener(f"2.{number}") for number in range(500)]
        for listener in leaving:
            channels.subscribe(listener, "x", "", "")
        begin = time.process_time()
        for listener in leaving:
            channels.unsubscribe_from_all(listener)
        took = time.process_time() - begin
        assert len(channels.subscribers()) == others
        return took

    few = min(measure(1) for _ in range(3))
    assert measure(20_000) < 10 * few + 0.05
