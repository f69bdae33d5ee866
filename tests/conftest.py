"""What all tests share."""

from __future__ import annotations

import logging
import os

import hypothesis
import pytest

# The machine may be busy: what Hypothesis looks for are wrong results, not slow ones.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the developer's own ``REVERB_…`` variables and ``.env`` out of the tests."""
    for name in os.environ:
        if name.startswith("REVERB_") and not name.startswith("REVERB_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(autouse=True)
def _log_everything() -> None:
    """Clients set the level of their logger, which is the whole process's."""
    logging.getLogger("reverb").setLevel(logging.NOTSET)
