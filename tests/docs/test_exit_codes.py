"""docs/reference/exit-codes.md: the code for each exception. tests/cli/test_main.py compares the codes."""

from __future__ import annotations

import re

import pytest

import reverb
from reverb import APIError, AuthenticationError, BatchError, PayloadError
from tests.docs.pages import Page

PAGE = Page("docs/reference/exit-codes.md")
ROWS = [(row[0], row[1]) for row in PAGE.tables("Exit codes")[1]]


def make(written: str) -> Exception:
    name = re.match(r"`(\w+)`", written)
    assert name
    class_ = getattr(reverb, name[1])
    if class_ is AuthenticationError:
        return AuthenticationError("no", is_temporary="is_temporary" in written)
    return APIError(404, "no") if class_ is APIError else class_("no")


def exit_code_after(error: Exception) -> int:
    async def setup(client: reverb.ReverbClient) -> None:
        raise error

    return reverb.run(setup)


@pytest.mark.parametrize(("written", "code"), [row for row in ROWS if row[1].isdigit()])
def test_exceptions(written: str, code: str, reverb_server: object) -> None:
    assert exit_code_after(make(written)) == int(code)


def test_the_exception_of_a_batch(reverb_server: object) -> None:
    assert "`BatchError`" in dict(ROWS)
    error = BatchError("no", accepted=10)
    error.__cause__ = APIError(413, "no")
    assert exit_code_after(error) == 4


def test_all_exceptions_are_there() -> None:
    named = {name for row in ROWS for name in re.findall(r"`(\w+Error)`", row[0])}
    others = {"ReverbError", PayloadError.__name__}  # a base, and what handlers of "error" get
    assert named == {name for name in reverb.__all__ if name.endswith("Error")} - others
