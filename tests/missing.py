"""What tests do where something is not installed that they need."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.node import installed_command


def missing(why: object) -> NoReturn:
    """Skip a test that lacks something; with ``CI=true``, where all has to be installed, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(why))
    pytest.skip(str(why))


def pusher_js() -> tuple[str, str]:
    """Return the command that runs Node, and the path of pusher-js, beside which Laravel Echo is."""
    try:
        node, package = installed_command("pusher_js")
    except OSError:
        missing("pusher-js and Laravel Echo are not installed; `make test` installs them")
    return node, package
