"""The two APIs, so that one test runs with each: :class:`ReverbAPI`, and :class:`SyncReverbAPI` in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any

import pytest
from packaging.version import Version

from reverb import ReverbAPI, SyncReverbAPI

Shell = Callable[..., Any]
"""Makes an API whose calls are awaited."""

AIOHTTP_CHECKS_ADDRESSES = Version(metadata.version("aiohttp")) >= Version("3.14.1")
"""Whether aiohttp refuses a wrong IP address at once. Before, it looks it up like a name, which does not exist."""


class InThreads:
    """A SyncReverbAPI whose calls are made in threads, so that a test awaits them as those of a ReverbAPI."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._api = SyncReverbAPI(*args, **options)

    async def __aenter__(self) -> InThreads:
        self._api.__enter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await asyncio.to_thread(self._api.__exit__, *error)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(asyncio.to_thread, getattr(self._api, name))

    def __repr__(self) -> str:
        return repr(self._api)


@pytest.fixture(params=[ReverbAPI, InThreads], ids=["async", "sync"])
def shell(request: pytest.FixtureRequest) -> Shell:
    """Both APIs in turn: a test that takes this fixture runs unchanged with each."""
    api: Shell = request.param
    return api
