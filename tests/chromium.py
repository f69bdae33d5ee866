"""The browser that the tests of pages run in: the one of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

MISSING = "there is no Chromium: install it, or say where it is with REVERB_TEST_CHROMIUM"
HEADLESS = "chromium-headless-shell"
"""Chromium without windows, also the name of its package in Debian. A page costs it half the time."""
_NAMES = (HEADLESS, "chromium", "chromium-browser", "google-chrome")
_OPTIONS = [
    "--disable-quic",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A name of another site that leads here.
    "--host-resolver-rules=MAP rebound.test 127.0.0.1",
]


def find() -> str | None:
    """Return the path of Chromium, or of Chrome."""
    named = os.environ.get("REVERB_TEST_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


@asynccontextmanager
async def browsing(path: str) -> AsyncIterator[Browser]:
    # As root, it runs only without its sandbox.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, chromium_sandbox=not is_root, args=_OPTIONS
        )
        try:
            yield browser
        finally:
            await browser.close()
