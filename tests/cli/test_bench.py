"""``reverb bench``: what it measures, what it says, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from reverb.cli import bench as module
from reverb.cli.bench import Measurement, _histogram, bench
from reverb.server import App, BlockingServer, RateLimiting, ReverbServer
from tests.cli.processes import reverb
from tests.integration.conftest import soketi, soketi_process
from tests.integration.servers import Target
from tests.watching import until

__all__ = ["soketi", "soketi_process"]  # fixtures


def measured(output: str) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in output.splitlines()]
    return {line.pop("measurement"): line for line in lines}


def check(output: str, count: int) -> None:
    """Check what is in the output, as far as one can know it."""
    results = measured(output)
    assert {name: result["count"] for name, result in results.items()} == {
        "client event": count,
        "published": count,
        "throughput": 10 * count,
    }
    for result in results.values():
        times = [result[f"{name}_ms"] for name in ("min", "p50", "p90", "p99", "max")]
        assert times == sorted(times)
        assert 0 < times[0] < times[-1] <= result["seconds"] * 1e3
        assert result["events_per_second"] == pytest.approx(result["count"] / result["seconds"], rel=0.01)
    assert results["client event"]["p50_ms"] * count / 1e3 < results["client event"]["seconds"] * 2


def run(target: BlockingServer, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Run the command in this process, with its usual options."""
    for name, value in target.settings.items():
        monkeypatch.setenv(f"REVERB_{name.upper()}", str(value))
    bench(**{"count": 5, "seconds": 5.0, **options})


# --- what is measured ------------------------------------------------------------------------------------------


async def test_for_people(settings: dict[str, str], tmp_path: Path, embedded: ReverbServer) -> None:
    async with reverb("bench", "--count", "20", env=settings, cwd=tmp_path, terminal=True, width=80) as command:
        assert await command.exit_code() == 0
        output = command.out.text
    assert f"putting load on 127.0.0.1:{embedded.port}" in output
    for text in ("client event", "published", "throughput", "p50", "p99", "events per second", "█"):
        assert text in output
    channels = {event.channel for event in embedded.events}
    assert len(channels) == 1
    assert len(embedded.events) == 5 + 20 + 5 + 20 + 200


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with ReverbServer() as server:
        run(server, monkeypatch, as_json=True)
    output = capsys.readouterr()
    check(output.out, 5)
    assert output.err == f"putting load on 127.0.0.1:{server.port}; press Ctrl-C to stop\n"


async def test_soketi(soketi: Target, tmp_path: Path) -> None:
    env = {f"REVERB_{name.upper()}": str(value) for name, value in soketi.settings.items()}
    async with reverb("bench", "--count", "5", "--json", env=env, cwd=tmp_path) as command:
        assert await command.exit_code() == 0, command.err.text
        check(command.out.text, 5)


def test_without_an_application_id(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with ReverbServer() as server:
        for name, value in {**server.env, "REVERB_APP_ID": ""}.items():
            monkeypatch.setenv(name, value)
        bench(count=5, seconds=5.0, as_json=True)
    output = capsys.readouterr()
    assert measured(output.out).keys() == {"client event", "throughput"}
    assert "REVERB_APP_ID is missing" in output.err


def test_the_time_is_limited(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with ReverbServer() as server:
        server.delay(0.02)
        run(server, monkeypatch, as_json=True, count=1000, seconds=0.2)
    for result in measured(capsys.readouterr().out).values():
        assert result["count"] < 1000 * 10
        assert 0.2 <= result["seconds"] < 5


def test_percentiles() -> None:
    trips = [number / 1e3 for number in range(1, 201)]
    measurement = Measurement("", "", trips, 2.0)
    assert [measurement.percentile(percent) for percent in (0, 50, 99, 100)] == [1, 100, 198, 200]
    assert Measurement("", "", [0.5], 1.0).percentile(99) == 500
    assert measurement.events_per_second == 100


def test_the_histogram() -> None:
    rows = _histogram([0.001] * 100 + [0.0011] * 5 + [1.0]).plain.splitlines()
    assert rows[0] == "    from 1.00 ms  " + "█" * 40 + " 105"
    assert rows[-1] == "  from 501.19 ms  ▏ 1"
    assert [row.split()[-1] for row in rows[1:-1]] == ["0"] * 8
    assert _histogram([0.5, 0.5]).plain == "  from 500.00 ms  " + "█" * 40 + " 2"


# --- how it ends -----------------------------------------------------------------------------------------------


async def test_ctrl_c(settings: dict[str, str], tmp_path: Path) -> None:
    arguments = ("bench", "--count", "1000000", "--seconds", "60")
    async with reverb(*arguments, env=settings, cwd=tmp_path, terminal=True) as command:
        await command.out.expect("/1000000")
        command.press_ctrl_c()
        assert await command.exit_code() == 130
        assert "Traceback" not in command.out.text


@pytest.mark.parametrize(
    ("app", "variables", "code", "says"),
    [
        (
            App(accept_client_events_from="none"),
            {},
            4,
            "the server refused: The app does not",
        ),
        (App(rate_limiting=RateLimiting(enabled=True, max_attempts=8)), {}, 4, "the server refused: Rate limit"),
        (App(), {"REVERB_APP_SECRET": "wr0ng"}, 4, "refused the signature for 'private-reverb-bench-"),
        (App(), {"REVERB_APP_SECRET": ""}, 2, "REVERB_APP_SECRET is missing"),
        (App(), {"REVERB_APP_KEY": "unknown"}, 3, "check REVERB_APP_KEY"),
        (App(), {"REVERB_PORT": "1"}, 3, "cannot connect to 127.0.0.1:1"),
        (App(), {"REVERB_SCHEME": "ftp"}, 2, "REVERB_SCHEME"),
        (App(), {"REVERB_APP_ID": "other"}, 4, "404"),
    ],
    ids=["no-client-events", "rate", "secret", "no-secret", "key", "no-server", "setting", "app-id"],
)
def test_what_goes_wrong(
    app: App,
    variables: dict[str, str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ReverbServer([app]) as server:
        for name, value in {**server.env, **variables}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(typer.Exit) as caught:
            bench(count=5, seconds=5.0)
    assert caught.value.exit_code == code
    output = capsys.readouterr()
    assert says in output.err.splitlines()[-1]
    assert "wr0ng" not in output.out + output.err


def test_without_a_connection_there_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ReverbServer() as server:
        monkeypatch.setenv("REVERB_APP_KEY", "unknown")
        monkeypatch.setenv("REVERB_HOST", server.host)
        monkeypatch.setenv("REVERB_PORT", str(server.port))
        monkeypatch.setenv("REVERB_SCHEME", "ws")
        with pytest.raises(typer.Exit):
            bench(count=1, seconds=1.0)
    assert capsys.readouterr().out == ""


async def test_a_connection_that_is_lost(settings: dict[str, str], embedded: ReverbServer, tmp_path: Path) -> None:
    async with reverb("bench", "--count", "1000000", "--seconds", "60", env=settings, cwd=tmp_path) as command:
        await until(lambda: len(embedded.events) > 10, 15)
        embedded.drop()
        assert await command.exit_code() == 3
        assert command.err.text.splitlines()[-1].startswith("reverb: lost the connection to 127.0.0.1:")
        assert "Traceback" not in command.err.text


def test_an_event_that_does_not_arrive(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_DEADLINE", 0.2)
    monkeypatch.setattr(module._Track, "on_arrival", lambda *_: None)
    with ReverbServer() as server, pytest.raises(typer.Exit) as caught:
        run(server, monkeypatch)
    assert caught.value.exit_code == 3
    assert "an event did not arrive within 0.2 seconds" in capsys.readouterr().err
