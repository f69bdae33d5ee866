"""Event names."""

from __future__ import annotations

import json

import pytest

from reverb import Events


@pytest.mark.parametrize(
    ("member", "name"),
    [
        (Events.CONNECTION_ESTABLISHED, "pusher:connection_established"),
        (Events.SUBSCRIPTION_SUCCEEDED, "pusher_internal:subscription_succeeded"),
        (Events.MEMBER_ADDED, "pusher_internal:member_added"),
        (Events.MEMBER_REMOVED, "pusher_internal:member_removed"),
        (Events.ERROR, "pusher:error"),
    ],
)
def test_members_are_their_names(member: Events, name: str) -> None:
    assert member == name
    assert hash(member) == hash(name)
    assert str(member) == f"{member}" == name
    assert json.loads(json.dumps(member)) == name
