"""What all tests share."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.shells import shell

__all__ = ["shell"]  # a fixture

from tests import loops

# The machine may be busy: what Hypothesis looks for are wrong results, not slow ones.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests, where ``-n`` does not say.

    Most tests wait most of the time, so there are more processes than processors. It is one if that is quicker,
    since each takes seconds to start: for single files, or a selection by ``-k``, ``-m`` or ``--lf``; if
    something is to be seen as it is printed (``-s``); and for a server named by the environment, where one test
    would see the channels of another.
    """
    selects = any(config.getoption(option, None) for option in ("keyword", "markexpr", "lf"))
    if selects or not all(Path(each).is_dir() for each in config.args):
        return 0
    if config.getoption("capture") == "no" or "REVERB_TEST_URL" in os.environ:
        return 0
    return min(4 * (os.cpu_count() or 1), 8)


def pytest_configure() -> None:
    """Start programs as a shell does: Ctrl-C ends them, and they write their output when a buffer is full.

    A shell starts ``make test &`` with Ctrl-C ignored. Containers often have PYTHONUNBUFFERED.
    """
    os.environ.pop("PYTHONUNBUFFERED", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep garbage collections away from the thousands of tests while they are collected, and from then on."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Do the same for what a file of tests has left, such as modules: collections would take longer and longer."""
    yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, loops.LoopFactory]:
    """Tell pytest-asyncio of all event loops where a test chooses among them, and else of one.

    That is asyncio's own, or the one that ``REVERB_TEST_LOOP`` names.
    """
    marker = item.get_closest_marker("asyncio")
    chooses = marker is not None and "loop_factories" in marker.kwargs
    if chooses:
        return loops.available()
    name = os.environ.get("REVERB_TEST_LOOP", "asyncio")
    return {name: loops.available()[name]}


@pytest.fixture(scope="session")
def _empty_directories() -> list[Path]:
    """Working directories in which no test has left anything. Making one for each test takes long."""
    return []


@pytest.fixture(autouse=True)
def _no_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, _empty_directories: list[Path]
) -> Iterator[None]:
    """Keep the developer's own ``REVERB_…`` variables and ``.env`` out of the tests."""
    for name in os.environ:
        if name.startswith("REVERB_") and not name.startswith("REVERB_TEST_"):
            monkeypatch.delenv(name)
    directory = _empty_directories.pop() if _empty_directories else tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(directory)
    yield
    if directory.is_dir() and not any(directory.iterdir()):
        _empty_directories.append(directory)


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs pytest without the plugins that are only there for our own tests, and take half the time to import."""
    names = ("hypothesispytest", "platformdirs", "timeout", "valkey", "xdist", "xdist.looponfail")
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p no:{name}" for name in names))
    return pytester


@pytest.fixture(autouse=True)
def _log_everything() -> None:
    """Clients set the level of their logger, which is the whole process's."""
    logging.getLogger("reverb").setLevel(logging.NOTSET)
