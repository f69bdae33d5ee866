"""Which occupied channels are taken, and which are left."""

from __future__ import annotations

import pytest

from reverb._occupancy import Choice, Chooser

NOTHING = Choice([], [])


def test_what_is_occupied_is_taken_once() -> None:
    chooser = Chooser()
    assert chooser.choose({"news": 1, "private-x": 2}, {}) == Choice(["news", "private-x"], [])
    assert chooser.choose({"news": 2, "private-x": 3}, {"news": 1, "private-x": 1}) == NOTHING
    assert chooser.choose({"news": 2, "more": None}, {"news": 1}) == Choice(["more"], [])


@pytest.mark.parametrize(
    ("prefix", "exclude", "presence", "taken"),
    [
        ("", (), False, ["news", "private-a", "private-b.debug", "private-encrypted-a"]),
        ("private-", (), False, ["private-a", "private-b.debug", "private-encrypted-a"]),
        ("", ("*.debug", "private-[ae]*"), False, ["news"]),
        ("n", (), True, ["news"]),
        ("", ("private*",), True, ["news", "presence-room", "presenceX"]),
        ("NEWS", (), True, []),
    ],
)
def test_names(prefix: str, exclude: tuple[str, ...], presence: bool, taken: list[str]) -> None:
    names = [
        "news",
        "private-a",
        "private-b.debug",
        "private-encrypted-a",
        "presence-room",
        "presenceX",
        "#server-to-user-7",
    ]
    chooser = Chooser(prefix, exclude, presence=presence)
    assert chooser.choose(dict.fromkeys(names, 1), {}).take == taken


@pytest.mark.parametrize(
    ("count", "own", "is_empty"),
    [
        (1, 1, True),  # we ourselves
        (2, 1, False),
        (1, 0, False),  # ours is not confirmed yet
        (3, 3, True),  # three processes of ours
        (4, 3, False),
        (None, 1, False),  # nobody can tell
        (0, 0, True),
    ],
)
def test_what_is_empty_is_left_after_three_polls(count: int | None, own: int, is_empty: bool) -> None:
    chooser = Chooser()
    choices = [chooser.choose({"x": count}, {"x": own}).leave for _ in range(3)]
    assert choices == [[], [], ["x"] if is_empty else []]


def test_what_is_not_in_the_list_is_empty() -> None:
    chooser = Chooser()
    assert [chooser.choose({}, {"x": 1}).leave for _ in range(3)] == [[], [], ["x"]]


def test_somebody_who_comes_back_in_time_keeps_a_channel() -> None:
    chooser = Chooser()
    counts = [1, 1, 2, 1, 1, 1]
    assert [chooser.choose({"x": count}, {"x": 1}).leave for count in counts] == [[], [], [], [], [], ["x"]]


def test_a_channel_that_was_left_counts_anew_when_it_is_taken_again() -> None:
    chooser = Chooser()
    for _ in range(3):
        left = chooser.choose({"x": 1}, {"x": 1})
    assert left == Choice([], ["x"])
    assert chooser.choose({}, {}) == NOTHING
    assert chooser.choose({"x": 1}, {}) == Choice(["x"], [])
    assert chooser.choose({"x": 1}, {"x": 1}) == NOTHING


def test_what_is_others_is_neither_taken_nor_left() -> None:
    chooser = Chooser()
    for _ in range(4):
        assert chooser.choose({"x": 1, "y": 1}, {"x": 1}, {"x", "y"}) == NOTHING
