"""What one relay does with what it receives and what the engine says."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from reverb.relay._alignment import SLACK
from reverb.relay._log import GAP, Entry, Grant, LeaseStatus
from reverb.relay._replica import Replica, State

LEASE = 5000
NOBODY = LeaseStatus(10_000, None, None, b"")


def lease_status(
    clock: int = 20_000,
    holder: str | None = "another",
    watermark: int | None = None,
    uncovered: dict[str, int] | None = None,
    others: int = 0,
    found: list[str] | None = None,
    found_at: int | None = None,
) -> LeaseStatus:
    state = msgspec.json.encode(State(uncovered or {}, found, found_at))
    return LeaseStatus(clock, holder, watermark, state, others)


def follower(*channels: str, at: int = 10_000, most_bytes: int = 10**6) -> Replica:
    """One that is subscribed."""
    replica = Replica(lease=LEASE, most_bytes=most_bytes)
    for channel in channels or ("a",):
        replica.follow(channel, at)
    replica.connecting(at)
    for channel in channels or ("a",):
        replica.subscribed(channel, at)
    return replica


def leader(*channels: str, at: int = 10_000, most_bytes: int = 10**6) -> Replica:
    """One that began a log."""
    replica = follower(*channels, at=at, most_bytes=most_bytes)
    replica.take_over(Grant(1, NOBODY), [])
    return replica


def receive(replica: Replica, text: str, at: int = 11_000, channel: str = "a", step: int = 10) -> None:
    for number, letter in enumerate(text):
        replica.received(channel, "event", letter.encode(), None, at + number * step)


def shown(entries: Sequence[Entry]) -> list[Any]:
    """The letters, in upper case those that are marked as again, and gaps as tuples."""
    found: list[Any] = []
    for entry in entries:
        if entry.is_gap:
            data = msgspec.json.decode(entry.data)
            assert (data["from"], data["to"]) == (entry.sent_after, entry.received_at)
            found.append((entry.channel, data["from"], data["to"], data["reason"]))
        else:
            letter = entry.data.decode()
            found.append(letter.upper() if entry.again else letter)
    return found


def written(replica: Replica, most: int = 100) -> list[Any]:
    """What it writes, until nothing is pending."""
    found: list[Any] = []
    while replica.has_pending:
        found += shown(replica.next_batch(most))
        replica.stored()
    return found


def state_of(replica: Replica) -> State:
    return msgspec.json.decode(replica.progress()[1], type=State)


def test_before_server_and_engine_have_answered_it_knows_nothing() -> None:
    replica = Replica(lease=LEASE, most_bytes=10**6)
    replica.follow("a", 10_000)
    assert (replica.epoch, replica.watermark, replica.found, replica.found_at) == (None, None, None, None)
    assert (replica.others, replica.pending, replica.unwritten, replica.missing) == (0, 0, 0, 1)
    assert not replica.is_ready
    assert not replica.has_all_until(10_000)


class TestWriting:
    def test_a_leader_writes_what_it_receives_and_a_follower_does_not(self) -> None:
        replica = follower()
        receive(replica, "ab")
        assert not replica.has_pending
        replica = leader()
        receive(replica, "ab")
        assert replica.pending == 2
        assert written(replica) == ["a", "b"]

    def test_a_log_begins_with_what_is_recorded_and_without_a_gap(self) -> None:
        replica = follower()
        receive(replica, "ab")
        replica.take_over(Grant(1, NOBODY), [])
        assert written(replica) == ["a", "b"]

    def test_an_entry_tells_what_is_known_of_the_event(self) -> None:
        replica = leader()
        replica.ping_answered(10_500)
        replica.received("a", "client-x", b"{}", "7", 11_000)
        assert replica.next_batch(10) == [Entry("a", "client-x", b"{}", "7", 11_000, 10_500, 1, 1)]

    def test_a_gap_entry_tells_when_and_why_events_may_be_missing(self) -> None:
        replica = leader()
        receive(replica, "x")
        replica.subscribed("a", 12_000)
        _, gap = replica.next_batch(10)
        data = b'{"from":10000,"to":12000,"reason":"disconnect"}'
        assert gap == Entry("a", GAP, data, None, received_at=12_000, sent_after=10_000, epoch=1, number=2)

    def test_a_batch_is_the_same_until_it_is_stored(self) -> None:
        replica = leader()
        receive(replica, "abc")
        first = replica.next_batch(2)
        receive(replica, "d")
        assert shown(replica.next_batch(100)) == ["a", "b"]
        assert replica.pending == 4
        assert [entry.number for entry in first] == [1, 2]
        replica.stored()
        assert replica.pending == 2
        assert [entry.number for entry in replica.next_batch(100)] == [3, 4]
        replica.stored()
        receive(replica, "e", 12_000)
        assert [entry.number for entry in replica.next_batch(100)] == [5]

    def test_each_reign_counts_anew(self) -> None:
        replica = leader()
        receive(replica, "a")
        written(replica)
        replica.lease_lost()
        receive(replica, "b", 12_000)
        replica.take_over(Grant(5, lease_status(watermark=11_001 + SLACK)), [])
        assert [(entry.epoch, entry.number) for entry in replica.next_batch(10)] == [(5, 1)]

    def test_who_is_deposed_writes_nothing_and_keeps_it_for_later(self) -> None:
        replica = leader()
        receive(replica, "abc")
        replica.next_batch(2)
        replica.lease_lost()
        assert not replica.has_pending
        assert replica.pending == 0
        replica.take_over(Grant(2, NOBODY), [])
        assert written(replica) == ["a", "b", "c"]

    def test_how_long_the_oldest_waits(self) -> None:
        replica = leader()
        assert replica.lag(12_000) == 0
        receive(replica, "ab")
        assert replica.lag(12_000) == 1000
        assert replica.lag(11_000) == 0
        assert replica.lag(10_990) == 0  # the estimate of the engine's clock was corrected
        replica.next_batch(1)
        assert replica.lag(12_000) == 1000
        replica.stored()
        assert replica.lag(12_000) == 990

    def test_channels_are_written_in_the_order_of_their_times(self) -> None:
        replica = follower("a", "b")
        receive(replica, "ac", 11_000, "a")
        receive(replica, "bd", 11_005, "b")
        replica.take_over(Grant(1, NOBODY), [])
        assert written(replica) == ["a", "b", "c", "d"]


class TestTheWatermark:
    def test_it_is_the_time_of_a_question_whose_answer_is_here(self) -> None:
        replica = leader()
        assert replica.watermark == 10_000  # when it connected
        replica.ping_answered(12_000)
        assert replica.progress()[0] == 12_000

    def test_it_waits_for_what_was_received_before_the_answer(self) -> None:
        replica = leader()
        receive(replica, "abc")
        replica.ping_answered(12_000)
        receive(replica, "d", 12_500)
        replica.next_batch(2)
        replica.stored()
        assert replica.watermark == 10_000
        replica.next_batch(1)
        assert replica.watermark == 10_000
        replica.stored()
        assert replica.watermark == 12_000

    def test_a_batch_that_was_not_acknowledged_holds_it(self) -> None:
        replica = leader()
        receive(replica, "a")
        replica.next_batch(1)
        replica.ping_answered(12_000)
        assert replica.watermark == 10_000

    def test_what_came_behind_the_answer_does_not_hold_it(self) -> None:
        replica = leader()
        replica.ping_answered(12_000)
        receive(replica, "a", 12_500)
        assert replica.watermark == 12_000

    def test_it_never_goes_back(self) -> None:
        replica = follower()
        replica.take_over(Grant(2, lease_status(watermark=15_000)), [])
        replica.ping_answered(12_000)
        assert replica.watermark == 15_000

    def test_a_follower_has_that_of_the_engine(self) -> None:
        replica = follower()
        replica.ping_answered(12_000)
        replica.observed(lease_status(watermark=11_000))
        assert replica.watermark == 11_000

    def test_who_takes_over_holds_it_until_the_rest_is_written(self) -> None:
        replica = follower()
        receive(replica, "a")
        replica.ping_answered(12_000)
        replica.take_over(Grant(2, lease_status(watermark=10_900)), [])
        assert replica.watermark == 10_900
        assert written(replica)
        assert replica.watermark == 12_000

    def test_what_was_written_in_an_earlier_reign_does_not_count(self) -> None:
        replica = leader()
        receive(replica, "abc")
        written(replica)
        replica.lease_lost()
        receive(replica, "d", 12_000)
        replica.take_over(Grant(2, lease_status(watermark=11_900)), [])
        replica.ping_answered(13_000)
        assert replica.watermark == 11_900

    def test_nor_do_questions_of_an_earlier_reign(self) -> None:
        replica = follower()
        receive(replica, "abc")
        replica.take_over(Grant(2, lease_status(watermark=11_011 + SLACK)), [])
        replica.ping_answered(12_000)  # "c" was before that
        replica.lease_lost()
        replica.take_over(Grant(3, lease_status(watermark=10_900)), [])
        replica.next_batch(1)
        replica.stored()
        assert replica.watermark == 10_900

    def test_what_the_server_sent_until_a_question_is_received(self) -> None:
        replica = follower()
        replica.ping_answered(12_000)
        assert replica.has_all_until(12_000 - SLACK)
        assert not replica.has_all_until(12_001 - SLACK)


class TestHoles:
    def test_a_loss_of_the_server_is_a_gap_since_the_last_question(self) -> None:
        replica = leader()
        replica.ping_answered(12_000)
        receive(replica, "a", 12_500)
        replica.lost()
        replica.connecting(14_000)
        replica.subscribed("a", 14_100)
        receive(replica, "b", 14_200)
        assert written(replica) == ["a", ("a", 12_000, 14_100, "disconnect"), "b"]

    def test_who_was_subscribed_a_moment_ago_has_a_gap_since_then(self) -> None:
        replica = leader(at=10_000)
        replica.lost()
        replica.connecting(14_000)
        replica.subscribed("a", 14_100)
        replica.lost()
        replica.connecting(15_000)
        replica.subscribed("a", 15_100)
        assert written(replica) == [("a", 10_000, 14_100, "disconnect"), ("a", 14_100, 15_100, "disconnect")]

    def test_a_channel_that_is_confirmed_twice_was_interrupted(self) -> None:
        replica = leader()
        replica.ping_answered(12_000)
        replica.subscribed("a", 13_000)
        assert written(replica) == [("a", 12_000, 13_000, "disconnect")]

    def test_a_channel_that_was_found_may_have_had_events_before(self) -> None:
        replica = leader()
        replica.follow("b", 13_000, found_after=12_000)
        replica.subscribed("b", 13_100)
        assert written(replica) == [("b", 12_000, 13_100, "discovery")]

    def test_a_channel_begins_in_a_new_log_without_a_gap_and_only_once(self) -> None:
        replica = leader()
        replica.follow("b", 12_000)
        replica.subscribed("b", 12_100)
        assert written(replica) == []
        replica.leave("b", 13_000, empty_at=10_000 - SLACK)
        replica.follow("b", 14_000)
        replica.subscribed("b", 14_100)
        assert written(replica) == [("b", 13_000, 14_100, "start")]

    def test_a_channel_that_is_new_in_an_old_log_has_a_gap(self) -> None:
        replica = follower()
        replica.take_over(Grant(2, lease_status(watermark=12_000)), [])
        replica.follow("b", 12_000)
        replica.subscribed("b", 12_100)
        assert written(replica) == [("b", 12_000, 12_100, "start")]

    def test_what_was_received_before_a_new_log_is_its_beginning(self) -> None:
        replica = follower()
        receive(replica, "x")
        replica.leave("a", 12_000, empty_at=10_000 - SLACK)
        replica.take_over(Grant(1, NOBODY), [])
        replica.follow("a", 13_000)
        replica.subscribed("a", 13_100)
        assert written(replica) == ["x", ("a", 12_000, 13_100, "start")]

    def test_a_channel_that_was_left_is_missing_until_it_is_found_again(self) -> None:
        # The engine has lost everything since, and with it what the leader of that time received.
        replica = follower("a", "f")
        receive(replica, "x", channel="f")
        replica.leave("f", 12_000)
        replica.follow("f", 14_000, is_found_by_leader=True)
        replica.subscribed("f", 14_100)
        receive(replica, "y", 15_000, channel="f")
        replica.take_over(Grant(1, NOBODY), [])
        assert written(replica) == [
            "x",
            ("f", 10_000, 12_000, "disconnect"),
            ("f", 12_000, 14_100, "discovery"),
            "y",
        ]

    def test_what_the_log_has_of_the_time_after_a_channel_was_left_is_not_missing(self) -> None:
        replica = follower("a", "f")
        replica.leave("f", 12_000)
        replica.follow("f", 14_000, is_found_by_leader=True)
        replica.subscribed("f", 14_100)
        replica.take_over(Grant(2, lease_status(watermark=14_000 + SLACK)), [])
        assert written(replica) == [("f", 14_000, 14_100, "discovery")]

    def test_a_channel_that_was_left_was_not_there_when_the_leader_looked(self) -> None:
        replica = leader("a", "f")
        replica.leave("f", 12_000, empty_at=10_000 - SLACK)
        replica.follow("f", 14_000, found_after=13_000)
        replica.subscribed("f", 14_100)
        assert written(replica) == [("f", 13_000, 14_100, "discovery")]

    def test_what_nobody_wants_is_not_counted(self) -> None:
        replica = leader()
        replica.subscribed("z", 12_000)
        replica.refused("z")
        replica.leave("z", 12_000)
        assert written(replica) == []
        assert replica.is_complete

    def test_followed_again_is_followed_once(self) -> None:
        replica = leader()
        replica.follow("a", 15_000)
        assert replica.missing == 0

    def test_an_event_before_the_confirmation_is_kept(self) -> None:
        replica = Replica(lease=LEASE, most_bytes=10**6)
        replica.follow("a", 10_000)
        replica.connecting(10_000)
        receive(replica, "x", 10_500)
        replica.subscribed("a", 10_600)
        replica.take_over(Grant(2, lease_status(watermark=10_000)), [])
        assert written(replica) == [
            ("a", 10_000 - SLACK, 10_500, "start"),
            "x",
            ("a", 10_000, 10_600, "start"),
        ]


class TestLeaving:
    def test_one_that_is_empty_ends_when_all_of_it_is_here(self) -> None:
        replica = leader()
        receive(replica, "x")
        replica.ping_answered(12_000)
        replica.leave("a", 13_000, empty_at=12_000 - SLACK)
        assert written(replica) == ["x"]

    def test_before_that_something_may_be_on_its_way(self) -> None:
        replica = leader()
        replica.ping_answered(12_000)
        replica.leave("a", 13_000, empty_at=12_001 - SLACK)
        assert written(replica) == [("a", 12_000, 13_000, "disconnect")]

    def test_one_that_is_not_subscribed_ends_with_a_gap(self) -> None:
        replica = leader()
        replica.lost()
        replica.leave("a", 13_000, empty_at=0)
        assert written(replica) == [("a", 10_000, 13_000, "disconnect")]

    def test_a_follower_that_leads_soon_says_so(self) -> None:
        replica = follower()
        replica.ping_answered(12_000)
        replica.leave("a", 13_000)
        replica.take_over(Grant(2, lease_status(watermark=12_500)), [])
        assert written(replica) == [("a", 12_500 - SLACK, 13_000, "disconnect")]


class TestWhoIsReady:
    def test_who_has_been_subscribed_for_longer_than_the_log_lacks(self) -> None:
        replica = follower(at=10_000)
        replica.observed(lease_status(watermark=10_000 + SLACK - 1))
        assert not replica.is_ready
        replica.observed(lease_status(watermark=10_000 + SLACK))
        assert replica.is_ready

    def test_nobody_before_the_watermark_is_known(self) -> None:
        replica = follower()
        assert not replica.is_ready
        replica.observed(lease_status(watermark=None))
        assert not replica.is_ready

    def test_nobody_who_waits_for_a_channel(self) -> None:
        replica = follower("a", "b")
        replica.observed(lease_status(watermark=20_000))
        replica.follow("c", 20_000)
        assert not replica.is_complete
        assert replica.missing == 1
        assert not replica.is_ready

    def test_without_a_channel_that_the_leader_has_not_either(self) -> None:
        replica = follower()
        replica.follow("b", 10_000)
        replica.refused("b")
        assert replica.is_complete
        replica.observed(lease_status(watermark=20_000))
        assert not replica.is_ready
        replica.observed(lease_status(watermark=20_000, uncovered={"b": 10_000}))
        assert replica.is_ready

    def test_nobody_without_the_server_though_the_leader_has_not_got_it_either(self) -> None:
        replica = follower()
        replica.lost()
        replica.observed(lease_status(watermark=20_000, uncovered={"a": 10_000}))
        assert not replica.is_ready

    def test_a_channel_that_was_refused_and_then_confirmed_is_waited_for_when_it_is_lost(self) -> None:
        replica = follower()
        replica.lost()
        replica.refused("a")
        assert replica.is_complete
        replica.subscribed("a", 12_000)
        replica.lost()
        assert not replica.is_complete

    def test_a_channel_that_the_watermark_does_not_count_for(self) -> None:
        replica = follower()
        replica.observed(lease_status(watermark=20_000, uncovered={"a": 10_000 + SLACK - 1}))
        assert not replica.is_ready
        replica.observed(lease_status(watermark=20_000, uncovered={"a": 10_000 + SLACK}))
        assert replica.is_ready
        replica.observed(
            lease_status(watermark=10_000, uncovered={"a": 20_000})
        )  # nor for more than the watermark says
        assert not replica.is_ready

    def test_nobody_who_had_to_forget(self) -> None:
        replica = follower(most_bytes=1000)
        receive(replica, "abcdef", step=1000)
        replica.observed(lease_status(watermark=12_000))
        assert not replica.is_ready
        replica.observed(lease_status(watermark=20_000))
        assert replica.is_ready


class TestTurns:
    def turns(self, replica: Replica, others: int) -> int:
        """For how many leases it waits."""
        for clock in range(20_000 - LEASE, 20_000, LEASE // 2):
            replica.observed(lease_status(clock, "another", 15_000, others=others))
        replica.observed(lease_status(20_000, None, 15_000, others=others))
        return next(turn for turn in range(5) if replica.may_take_over(20_000 + turn * LEASE))

    def test_one_that_is_ready_waits_for_nobody(self) -> None:
        replica = follower()
        assert self.turns(replica, 1) == 0

    def test_one_with_a_gap_waits_for_those_that_are_ready(self) -> None:
        assert self.turns(follower(at=16_000), 1) == 1
        assert self.turns(follower(at=16_000), 0) == 0

    def test_one_without_a_connection_waits_for_those_with_a_gap(self) -> None:
        for others, turns in ((1, 2), (0, 1)):
            replica = follower()
            replica.lost()
            assert self.turns(replica, others) == turns

    def test_the_first_relay_of_a_log_waits_for_nobody(self) -> None:
        replica = follower()
        replica.observed(lease_status(20_000, None))
        assert replica.may_take_over(20_000)

    @pytest.mark.parametrize("seen", [[], [5_000, 7_500, 10_000], [15_001, 17_501], [15_000, 17_400]])
    def test_who_has_not_watched_for_a_lease_does_not_know_that_it_is_alone(self, seen: list[int]) -> None:
        # The engine was away, and others that are ready have not said so yet.
        replica = follower(at=16_000)
        for clock in seen:
            replica.observed(lease_status(clock, "another", 15_000))
        replica.observed(lease_status(20_000, None, 15_000))
        assert not replica.may_take_over(20_000 + LEASE - 1)
        assert replica.may_take_over(20_000 + LEASE)

    def test_nor_who_has_seen_another_one_lately(self) -> None:
        replica = follower(at=16_000)
        for clock, others in ((15_000, 0), (17_500, 1)):
            replica.observed(lease_status(clock, "another", 15_000, others=others))
        replica.observed(lease_status(20_000, None, 15_000))
        assert not replica.may_take_over(20_000)

    def test_a_turn_is_a_whole_lease(self) -> None:
        replica = follower(at=16_000)
        replica.observed(lease_status(20_000, None, 15_000, others=1))
        replica.observed(lease_status(21_000, None, 15_000, others=1))
        assert not replica.may_take_over(20_000 + LEASE - 1)
        assert replica.may_take_over(20_000 + LEASE)

    def test_nobody_takes_what_is_held(self) -> None:
        replica = follower()
        assert not replica.may_take_over(10**9)
        replica.observed(lease_status(20_000, None, 15_000))
        replica.observed(lease_status(21_000, "another", 15_000))
        assert not replica.may_take_over(10**9)
        replica.observed(lease_status(30_000, None, 15_000))
        replica.take_over(Grant(2, lease_status()), [])
        replica.lease_lost()
        assert not replica.may_take_over(10**9)


class TestHandingOver:
    def test_a_leader_without_the_server_when_another_is_ready(self) -> None:
        replica = leader()
        assert not replica.should_hand_over
        replica.lost()
        assert not replica.should_hand_over
        replica.renewed(lease_status(others=1))
        assert replica.should_hand_over
        replica.connecting(12_000)
        replica.subscribed("a", 12_000)
        assert not replica.should_hand_over

    def test_a_follower_has_nothing_to_hand_over(self) -> None:
        replica = follower()
        replica.lost()
        replica.observed(lease_status(others=1))
        assert not replica.should_hand_over

    def test_not_for_a_channel_that_was_just_found(self) -> None:
        replica = leader()
        replica.renewed(lease_status(others=1))
        replica.follow("b", 12_000, found_after=11_000)
        assert not replica.should_hand_over
        replica.subscribed("b", 12_100)
        replica.lost()
        assert replica.should_hand_over

    def test_not_for_a_channel_that_the_last_leader_had_just_found(self) -> None:
        replica = follower()
        replica.follow("b", 12_000, is_found_by_leader=True)
        replica.take_over(Grant(2, lease_status(watermark=12_000, others=1)), [])
        assert not replica.should_hand_over

    def test_not_for_a_channel_that_is_refused(self) -> None:
        replica = leader("a", "b")
        replica.renewed(lease_status(others=1))
        replica.lost()
        replica.subscribed("a", 12_000)
        replica.refused("b")
        assert not replica.should_hand_over


def test_what_it_is_may_be_read_in_any_thread() -> None:
    replica = leader()
    for number in range(50):
        replica.follow(f"c{number}", 12_000)
    wrong: list[Exception] = []
    has_ended = threading.Event()

    def read() -> None:
        while not has_ended.is_set():
            try:
                _ = replica.is_ready, replica.missing, replica.lag(20_000)
            except Exception as error:
                wrong.append(error)

    reading = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reading.start()
    try:
        for number in range(60_000):
            replica.follow(f"c{number + 50}", 12_000)
            replica.leave(f"c{number}", 12_000)
    finally:
        sys.setswitchinterval(interval)
        has_ended.set()
        reading.join()
    assert wrong == []


class TestTakingOver:
    def tail(self, text: str, at: int = 11_000) -> list[Entry]:
        first = leader()
        receive(first, text, at)
        return [*first.next_batch(100)]

    def test_what_the_log_has_is_not_written_again(self) -> None:
        replica = follower(at=9000)
        receive(replica, "abc")
        replica.ping_answered(13_000)
        replica.take_over(Grant(2, lease_status(watermark=10_500)), self.tail("ab"))
        assert written(replica) == ["c"]

    def test_what_it_receives_later_may_be_in_the_log_until_it_has_asked(self) -> None:
        """The last writer was faster."""
        replica = follower()
        receive(replica, "a")
        replica.take_over(Grant(2, lease_status(watermark=10_000 + SLACK)), self.tail("abc"))  # until 11,020
        receive(replica, "bc", 11_100)
        replica.ping_answered(11_020 + SLACK)
        receive(replica, "d", 11_600)
        replica.ping_answered(11_021 + SLACK)
        receive(replica, "e", 11_700)
        assert written(replica) == ["A", "B", "C", "D", "e"]

    def test_a_later_reign_is_sure_again(self) -> None:
        replica = follower()
        replica.take_over(Grant(2, lease_status(watermark=10_000 + SLACK)), self.tail("abc"))
        replica.lease_lost()
        receive(replica, "x", 11_100)
        replica.take_over(Grant(3, lease_status(watermark=10_000 + SLACK)), [])
        receive(replica, "y", 11_200)
        assert written(replica) == ["x", "y"]

    def test_a_hole_since_the_log_ends(self) -> None:
        replica = follower(at=16_000)
        receive(replica, "x", 16_500)
        replica.take_over(Grant(2, lease_status(watermark=15_000)), [])
        assert written(replica) == [("a", 15_000 - SLACK, 16_000, "start"), "x"]

    def test_a_channel_that_it_has_not_got_yet_lacks_what_the_log_does(self) -> None:
        replica = follower()
        replica.follow("b", 16_000)
        replica.lost()
        replica.take_over(Grant(2, lease_status(watermark=17_000, uncovered={"b": 12_000})), [])
        assert state_of(replica).uncovered == {"a": 17_000 - SLACK, "b": 12_000 - SLACK}
        replica.connecting(18_000)
        replica.subscribed("a", 18_100)
        replica.subscribed("b", 18_100)
        assert written(replica) == [
            ("a", 17_000 - SLACK, 18_100, "disconnect"),
            ("b", 12_000 - SLACK, 18_100, "start"),
        ]

    def test_a_hole_of_its_own_that_began_after_the_log_ended(self) -> None:
        replica = follower()
        replica.ping_answered(16_000)
        replica.lost()
        replica.take_over(Grant(2, lease_status(watermark=14_000)), [])
        assert state_of(replica).uncovered == {"a": 16_000}

    def test_an_engine_that_went_back_makes_a_hole_longer_again(self) -> None:
        replica = follower()
        replica.ping_answered(11_000)
        replica.lost()
        replica.take_over(Grant(2, lease_status(watermark=20_000)), [])
        assert state_of(replica).uncovered == {"a": 20_000 - SLACK}
        replica.lease_lost()
        replica.take_over(Grant(3, lease_status(watermark=10_500)), [])
        assert state_of(replica).uncovered == {"a": 11_000}
        replica.lease_lost()
        replica.take_over(Grant(4, lease_status(watermark=20_000)), [])
        replica.subscribed("a", 21_000)
        assert written(replica) == [("a", 20_000 - SLACK, 21_000, "disconnect")]
        replica.lease_lost()
        replica.take_over(Grant(5, lease_status(watermark=10_500)), [])
        assert written(replica) == [("a", 11_000, 21_000, "disconnect")]

    def test_what_one_log_lacks_is_not_what_another_lacks(self) -> None:
        replica = follower()
        replica.ping_answered(11_000)
        replica.lost()
        replica.take_over(Grant(2, lease_status(watermark=20_000)), [])
        replica.lease_lost()
        replica.take_over(Grant(3, NOBODY), [])
        assert state_of(replica).uncovered == {"a": 11_000}

    def test_what_it_lacks_after_a_takeover_it_lacks_once(self) -> None:
        replica = follower()
        replica.lost()
        replica.take_over(Grant(2, lease_status(watermark=20_000)), [])
        for now in (21_000, 23_000):
            replica.connecting(now)
            replica.subscribed("a", now + 100)
            replica.lost()
        assert written(replica) == [
            ("a", 20_000 - SLACK, 21_100, "disconnect"),
            ("a", 21_100, 23_100, "disconnect"),
        ]

    def test_it_follows_what_the_last_leader_found(self) -> None:
        replica = follower()
        replica.take_over(Grant(2, lease_status(20_000, watermark=15_000, found=["f"], found_at=14_000)), [])
        assert (replica.found, replica.found_at) == (["f"], 14_000)
        replica.subscribed("f", 20_100)
        assert written(replica) == [("f", 15_000 - SLACK, 20_100, "start")]

    def test_what_the_last_leader_found_lacks_events_from_now_on_if_no_watermark_is_known(self) -> None:
        replica = follower()
        replica.take_over(Grant(2, lease_status(20_000, found=["f"])), [])
        assert state_of(replica).uncovered == {"f": 20_000}

    def test_how_much_of_the_log_it_needs(self) -> None:
        replica = Replica(lease=LEASE, most_bytes=10**6)
        granted = Grant(2, lease_status(20_000, watermark=15_000))
        assert replica.tail_since(granted) == 20_000 - SLACK
        assert replica.tail_since(Grant(1, NOBODY)) == 0  # nobody has said what the log has
        replica = follower(at=12_000)
        assert replica.tail_since(granted) == 12_000 - SLACK
        receive(replica, "x", 19_000)
        replica.observed(
            lease_status(watermark=12_001 + SLACK + 2 * LEASE)
        )  # which makes it forget what was before
        assert replica.tail_since(granted) == 12_000 - SLACK  # for "x" may have been sent then, and read late

    def test_entries_without_a_watermark_are_no_new_log(self) -> None:
        replica = follower(at=13_000)
        replica.take_over(Grant(2, NOBODY), self.tail("a"))
        replica.follow("b", 14_000)
        replica.subscribed("b", 14_100)
        assert written(replica) == [("a", 10_000 - SLACK, 13_000, "start"), ("b", 14_000, 14_100, "start")]


class TestTheState:
    def test_it_names_what_the_watermark_does_not_count_for(self) -> None:
        replica = leader("a", "b")
        replica.ping_answered(12_000)
        assert state_of(replica) == State()
        replica.lost()
        replica.connecting(15_000)
        replica.subscribed("a", 15_100)
        replica.ping_answered(15_200)
        assert state_of(replica).uncovered == {"a": 12_000, "b": 12_000}
        replica.next_batch(10)
        assert state_of(replica).uncovered == {"a": 12_000, "b": 12_000}  # the gap entry is not in the log yet
        replica.stored()
        assert state_of(replica).uncovered == {"b": 12_000}

    def test_it_names_no_holes_of_an_earlier_reign(self) -> None:
        replica = leader()
        replica.subscribed("a", 13_000)
        assert state_of(replica).uncovered == {"a": 10_000}
        replica.lease_lost()
        replica.take_over(Grant(3, lease_status(watermark=20_000)), [])
        assert state_of(replica).uncovered == {}

    def test_of_two_holes_it_names_the_earlier(self) -> None:
        replica = leader()
        for now in (12_000, 14_000):
            replica.ping_answered(now)
            replica.lost()
            replica.connecting(now + 100)
            replica.subscribed("a", now + 200)
        assert state_of(replica).uncovered == {"a": 12_000}

    def test_it_names_a_hole_that_was_forgotten_until_its_gap_is_written(self) -> None:
        replica = leader(most_bytes=700)
        replica.ping_answered(12_000)
        replica.lost()
        replica.connecting(13_000)
        replica.subscribed("a", 13_000)
        receive(replica, "abcd", 14_000)
        assert state_of(replica).uncovered == {"a": 12_000}
        replica.next_batch(10)
        assert state_of(replica).uncovered == {"a": 12_000}
        replica.stored()
        assert state_of(replica).uncovered == {}

    def test_it_has_what_was_found_and_when(self) -> None:
        replica = leader()
        replica.found, replica.found_at = ["f"], 12_000
        progress = replica.progress()
        other = follower()
        other.observed(LeaseStatus(20_000, "another", *progress))
        assert (other.found, other.found_at) == (["f"], 12_000)


class TestForgetting:
    KEPT = SLACK + 2 * LEASE

    def pending_after(self, replica: Replica) -> list[Any]:
        """What it has, shown by a takeover of a log that has nothing."""
        replica.take_over(Grant(9, NOBODY), [])
        return written(replica)

    def test_what_the_log_has_is_kept_for_two_leases(self) -> None:
        replica = follower()
        receive(replica, "abc", 11_000, step=1000)
        replica.observed(lease_status(watermark=12_000 + self.KEPT))
        assert self.pending_after(replica) == ["b", "c"]

    def test_nothing_without_a_watermark(self) -> None:
        replica = follower()
        receive(replica, "abc", 11_000)
        replica.observed(lease_status(clock=10**9))
        assert self.pending_after(replica) == ["a", "b", "c"]

    def test_a_leader_forgets_when_its_word_is_taken(self) -> None:
        replica = leader(most_bytes=10**6)
        receive(replica, "abc", 11_000, step=1000)
        written(replica)
        replica.ping_answered(12_000 + self.KEPT)
        replica.progress()
        replica.renewed(lease_status())
        replica.lease_lost()
        assert self.pending_after(replica) == ["b", "c"]

    def test_of_a_channel_that_is_not_covered_all_is_kept(self) -> None:
        replica = follower("a", "b")
        for at in (11_000, 12_000, 13_000):
            receive(replica, "a", at, "a")
            receive(replica, "b", at, "b")
        replica.observed(lease_status(watermark=10**6, uncovered={"b": 12_000 + self.KEPT}))
        assert self.pending_after(replica) == ["b", "b"]

    def test_nor_does_a_leader_forget_of_a_channel_that_it_lacks(self) -> None:
        replica = leader("a", "b")
        receive(replica, "a", 11_000, "a")
        receive(replica, "b", 11_000, "b")
        replica.lost()
        replica.connecting(12_000)
        replica.subscribed("a", 12_000)
        written(replica)
        replica.ping_answered(10**6)
        replica.progress()
        replica.renewed(lease_status())
        replica.lease_lost()
        assert self.pending_after(replica) == ["b"]

    def test_an_engine_that_went_back_further_has_a_gap(self) -> None:
        replica = follower()
        receive(replica, "abc", 11_000, step=1000)
        replica.observed(lease_status(watermark=13_000 + self.KEPT))
        replica.take_over(Grant(9, lease_status(watermark=10_900)), [])
        assert written(replica) == [("a", 10_900 - SLACK, 12_000, "buffer"), "c"]

    def test_also_where_nothing_is_left(self) -> None:
        replica = follower()
        receive(replica, "abc", 11_000, step=1000)
        replica.observed(lease_status(watermark=10**6))
        replica.take_over(Grant(9, lease_status(watermark=10_900)), [])
        assert written(replica) == [("a", 10_900 - SLACK, 13_000, "buffer")]


class TestTheBound:
    def test_a_follower_forgets_the_oldest_and_says_so_if_the_log_has_not_got_it(self) -> None:
        replica = follower(most_bytes=1000)
        receive(replica, "abcdef", step=1000)
        replica.take_over(Grant(2, lease_status(watermark=11_000)), [])
        assert written(replica) == [("a", 11_000 - SLACK, 13_000, "buffer"), "d", "e", "f"]

    def test_and_not_if_it_has(self) -> None:
        replica = follower(most_bytes=1000)
        receive(replica, "abcdef", step=1000)
        replica.take_over(Grant(2, lease_status(watermark=14_000 + SLACK)), [])
        assert written(replica) == ["d", "e", "f"]

    def test_a_leader_writes_a_gap_for_what_it_could_not_write(self) -> None:
        replica = leader(most_bytes=1000)
        receive(replica, "abcdef", step=1000)
        replica.ping_answered(20_000)
        assert replica.pending == 3
        assert replica.watermark == 10_000
        assert shown(replica.next_batch(2)) == [("a", 10_000, 13_000, "buffer"), "d"]
        assert replica.watermark == 10_000
        replica.stored()
        assert replica.watermark == 10_000
        assert written(replica) == ["e", "f"]
        assert replica.watermark == 20_000

    def test_the_watermark_waits_for_that(self) -> None:
        replica = leader(most_bytes=300)
        receive(replica, "x")
        replica.ping_answered(20_000)
        assert replica.watermark == 10_000
        replica.next_batch(10)
        replica.ping_answered(21_000)
        assert replica.watermark == 10_000
        replica.stored()
        assert replica.watermark == 21_000

    def test_only_gaps_are_pending_then(self) -> None:
        replica = leader("a", "b", most_bytes=300)
        receive(replica, "x", 11_000, "a")
        receive(replica, "y", 12_000, "b")
        assert written(replica) == [("a", 10_000, 11_000, "buffer"), ("b", 10_000, 12_000, "buffer")]

    def test_it_remembers_for_the_last_10_000_channels_that_it_does_not_follow_what_was_given_up(self) -> None:
        replica = follower("a", most_bytes=0)
        receive(replica, "x", 11_000, "a")
        for number in range(10_000):
            receive(replica, "x", 12_000, f"c{number}")
        receive(replica, "y", 13_000, "c0")
        receive(replica, "x", 14_000, "new")
        replica.take_over(Grant(2, lease_status(watermark=10_500)), [])
        assert written(replica) == [
            ("a", 10_000, 11_000, "buffer"),
            *[(f"c{number}", 10_000, 12_000, "buffer") for number in range(2, 10_000)],
            ("c0", 10_000, 13_000, "buffer"),
            ("new", 10_000, 14_000, "buffer"),
        ]

    def test_what_is_written_is_forgotten_without_a_gap(self) -> None:
        replica = leader(most_bytes=1000)
        receive(replica, "abc", step=1000)
        assert written(replica) == ["a", "b", "c"]
        receive(replica, "def", 15_000, step=1000)
        assert written(replica) == ["d", "e", "f"]

    def test_what_is_in_a_batch_is_written_all_the_same(self) -> None:
        replica = leader(most_bytes=1000)
        receive(replica, "abc", step=1000)
        replica.next_batch(10)
        receive(replica, "def", 15_000, step=1000)
        assert written(replica) == ["a", "b", "c", "d", "e", "f"]

    def test_and_is_said_to_be_missing_if_it_was_not(self) -> None:
        replica = leader(most_bytes=1000)
        receive(replica, "abc", step=1000)
        replica.next_batch(10)
        receive(replica, "def", 15_000, step=1000)
        replica.lease_lost()
        replica.take_over(Grant(2, lease_status(watermark=10_900)), [])
        assert written(replica) == [("a", 10_900 - SLACK, 13_000, "buffer"), "d", "e", "f"]

    def test_so_is_what_was_given_up_before_it_was_deposed(self) -> None:
        replica = leader(most_bytes=1000)
        receive(replica, "abcdef", step=1000)
        replica.lease_lost()
        assert not replica.has_pending
        replica.take_over(Grant(2, lease_status(watermark=10_900)), [])
        assert written(replica) == [("a", 10_900 - SLACK, 13_000, "buffer"), "d", "e", "f"]

    def test_equal_times_are_no_reason_to_keep_more(self) -> None:
        """A takeover orders what is missing by channel where times are equal."""
        replica = follower("a", "b", most_bytes=3000)
        for _ in range(4):
            receive(replica, "a", 11_000, "a")
            receive(replica, "b", 11_000, "b")
        replica.take_over(Grant(2, lease_status(watermark=11_000)), [])
        receive(replica, "x" * 20, 12_000)
        assert replica.pending <= 10

    def test_events_of_the_same_time_as_those_that_are_given_up_are_kept(self) -> None:
        replica = leader(most_bytes=1000)
        receive(replica, "abcd", step=0)
        assert written(replica) == [("a", 10_000, 11_000, "buffer"), "b", "c", "d"]

    def test_payloads_count(self) -> None:
        replica = leader(most_bytes=10_000)
        replica.received("a", "event", b"x" * 8000, None, 11_000)
        replica.received("a", "event", b"y" * 8000, None, 12_000)
        assert [entry.data[:1] for entry in replica.next_batch(10) if not entry.is_gap] == [b"y"]


class TestAnotherClock:
    def test_all_times_move(self) -> None:
        replica = Replica(lease=LEASE, most_bytes=1000)
        replica.follow("a", 0)
        replica.follow("b", 0)
        replica.connecting(0)
        replica.subscribed("a", 0)
        replica.ping_answered(500)
        receive(replica, "vwxyz", 1000, step=1000)
        replica.shift(10_000)
        assert replica.has_all_until(10_500 - SLACK)
        replica.take_over(Grant(2, lease_status(watermark=11_000)), [])
        assert written(replica) == [("a", 11_000 - SLACK, 12_000, "buffer"), "x", "y", "z"]
        replica.subscribed("b", 16_000)
        assert written(replica) == [("b", 11_000 - SLACK, 16_000, "start")]

    def test_a_leaders_too_each_once(self) -> None:
        replica = leader(most_bytes=900)
        receive(replica, "wxyz", 11_000, step=1000)
        replica.ping_answered(14_500)
        replica.shift(100)
        assert [(entry.sent_after, entry.received_at) for entry in replica.next_batch(10)] == [
            (10_000 + 100, 12_000 + 100),
            (10_000 + 100, 13_000 + 100),
            (10_000 + 100, 14_000 + 100),
        ]
        replica.stored()
        assert replica.watermark == 14_600

    def test_since_when_it_is_subscribed_moves_too(self) -> None:
        replica = follower(at=10_000)
        replica.shift(1000)
        replica.observed(lease_status(watermark=11_000 + SLACK - 1))
        assert not replica.is_ready

    def test_when_a_channel_was_left_moves_too(self) -> None:
        replica = leader("a", "b")
        replica.leave("b", 12_000, empty_at=10_000 - SLACK)
        replica.shift(100)
        replica.follow("b", 13_000)
        assert state_of(replica).uncovered == {"b": 12_100}

    def test_since_when_it_is_not_subscribed_moves_too(self) -> None:
        replica = follower()
        replica.ping_answered(11_000)
        replica.lost()
        replica.shift(100)
        replica.take_over(Grant(2, lease_status(watermark=10_600)), [])
        assert state_of(replica).uncovered == {"a": 11_100}
        replica.shift(100)
        assert state_of(replica).uncovered == {"a": 11_200}


@pytest.mark.parametrize("count", [1, 3])
def test_a_question_of_a_follower_tells_only_when_events_were_sent(count: int) -> None:
    replica = follower()
    for number in range(count):
        replica.ping_answered(11_000 + number)
    assert replica.watermark is None
    receive(replica, "a", 12_000)
    replica.take_over(Grant(1, NOBODY), [])
    assert replica.next_batch(1)[0].sent_after == 11_000 + count - 1
