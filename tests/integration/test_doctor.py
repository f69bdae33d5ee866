"""``reverb doctor`` on each server there is: nothing is found where all is well, and what is wrong is."""

from __future__ import annotations

import pytest

from tests.cli.test_doctor import examine, failures
from tests.integration.servers import Target


async def test_all_is_well(server: Target) -> None:
    steps = await examine(server.settings, "news", "private-orders.7", "presence-room")
    assert failures(steps) == []
    for name in ("app key", "private channel", "client events", "HTTP API", "delivery", "presence-room"):
        assert steps[name].ok, steps[name]


@pytest.mark.parametrize(
    ("setting", "failing", "cause"),
    [
        ("app_key", ["app key"], "REVERB_APP_KEY must be"),
        ("app_secret", ["private channel", "HTTP API"], "REVERB_APP_SECRET must be"),
        ("app_id", ["HTTP API"], "REVERB_APP_ID=nope must be"),
        ("path", ["HTTP upgrade", "HTTP API"], "REVERB_PATH must be"),
    ],
)
async def test_what_is_wrong(setting: str, failing: list[str], cause: str, server: Target) -> None:
    steps = await examine({**server.settings, setting: "nope"})
    # soketi looks at the key in the HTTP API, too, where Reverb doesn't.
    assert failures(steps)[: len(failing)] == failing
    assert cause in steps[failing[0]].causes[0]


async def test_soketi_without_client_events(soketi: Target) -> None:
    steps = await examine(soketi.app("noc").settings)
    assert failures(steps) == ["client events"]
    assert "soketi: enableClientMessages" in steps["client events"].causes[0]


async def test_an_application_that_is_disabled_at_soketi(soketi: Target) -> None:
    steps = await examine(soketi.app("off").settings)
    assert failures(steps)[0] == "app key"
