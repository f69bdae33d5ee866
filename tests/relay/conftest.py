"""What the tests of the relay share."""

from __future__ import annotations

import pytest

from tests.relay.memory import MemoryEngine


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    """The engine of relays to ``memory:``, in which a lease has no end."""
    engine = MemoryEngine()
    engine.install(monkeypatch)
    return engine
