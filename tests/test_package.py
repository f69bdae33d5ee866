"""What ``reverb`` exports, though it imports nothing until it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import reverb
from reverb.server import ReverbServer


def output_of(code: str, cwd: Path | None = None) -> str:
    """Run a program that imports what it needs and no more, such as what measures coverage."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return run.stdout


def test_everything_exported_is_there() -> None:
    assert reverb.__version__ == metadata.version("python-reverb")
    for name in reverb.__all__:
        assert hasattr(reverb, name)
        assert name in dir(reverb)


def test_what_is_not_exported_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'reverb' has no attribute 'nothing'"):
        reverb.nothing  # type: ignore[attr-defined]  # noqa: B018


def modules_after(code: str, cwd: Path | None = None) -> set[str]:
    """Return the modules that a program has imported at its end."""
    return set(output_of(f"{code}\nimport sys\nprint(*sys.modules)", cwd).split())


def test_importing_it_imports_nothing() -> None:
    assert modules_after("import reverb") - modules_after("import __future__, typing") == {"reverb"}


@pytest.mark.parametrize(("name", "counted"), [("ReverbClient", 158), ("SyncReverbAPI", 58)])
def test_what_is_imported_stays_small(name: str, counted: int) -> None:
    """It takes most of the time until a program is ready.

    Counted are modules beyond those of asyncio, on Python 3.10 to 3.13. A number varies less than a time. If you
    add an import on purpose, record the new number.
    """
    added = modules_after(f"from reverb import {name}") - modules_after("import asyncio")
    assert {"reverb", "msgspec"} <= added
    assert len(added) <= 1.08 * counted, sorted(added)


def test_the_client_does_without_what_others_need(reverb_server: ReverbServer) -> None:
    """Each takes time and memory, which a small machine has little of."""
    code = (
        "import asyncio\n"
        "from reverb import ReverbClient\n"
        "async def main():\n"
        "    async with ReverbClient() as client:\n"
        "        (await client.subscribe('private-news')).bind('published', print)\n"
        "asyncio.run(main())"
    )
    imported = modules_after(code)
    assert {"reverb", "picows"} <= imported
    assert imported.isdisjoint({"aiohttp", "dotenv", "email", "json", "pydantic", "pytest", "rich", "typer"})


def test_publishing_without_asyncio_does_without_it(tmp_path: Path) -> None:
    """What is imported costs each process of a server that forks for every request, and each script."""
    code = (
        "from reverb import BatchEvent, ConnectionError, SyncReverbAPI\n"
        "api = SyncReverbAPI(host='127.0.0.1', port=1, scheme='ws', app_id='1', app_key='k', app_secret='s')\n"
        "try:\n"
        "    api.trigger('news', 'e', {})\n"
        "except ConnectionError:\n"
        "    pass"
    )
    imported = modules_after(code, tmp_path)
    assert {"reverb", "msgspec"} <= imported
    assert imported.isdisjoint({"aiohttp", "asyncio", "email", "http", "json", "picows", "urllib3"})
