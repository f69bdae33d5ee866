"""The tree of exceptions, as the documentation promises it."""

from __future__ import annotations

import builtins

import pytest

import reverb


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (reverb.ConfigurationError, (reverb.ReverbError, ValueError)),
        (reverb.ConnectionError, (reverb.ReverbError, builtins.ConnectionError, OSError)),
        (reverb.AuthenticationError, (reverb.ReverbError,)),
        (reverb.SubscriptionError, (reverb.ReverbError,)),
        (reverb.ProtocolError, (reverb.ReverbError,)),
        (reverb.TimeoutError, (reverb.ReverbError, builtins.TimeoutError)),
    ],
)
def test_bases_message_and_code(error: type[reverb.ReverbError], bases: tuple[type[Exception], ...]) -> None:
    for base in bases:
        assert issubclass(error, base)
    assert str(error("what failed")) == "what failed"
    assert error("what failed").code is None
    assert error("what failed", code=4001).code == 4001


def test_errors_of_the_http_api() -> None:
    error = reverb.APIError(404, "what failed")
    assert (str(error), error.status, error.code) == ("what failed", 404, 404)
    stopped = reverb.BatchError("what failed", accepted=10, code=413)
    assert (str(stopped), stopped.accepted, stopped.code) == ("what failed", 10, 413)
    assert isinstance(error, reverb.ReverbError)
    assert isinstance(stopped, reverb.ReverbError)
