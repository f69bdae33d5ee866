"""``reverb terminate``: close the connections of a user."""

from __future__ import annotations

import asyncio
from typing import Annotated, NamedTuple

import typer

from .. import APIError, ConnectionError, ReverbAPI, TimeoutError
from .asking import ask
from .options import AsJson, Given, takes_server
from .output import show
from .process import ExitCode, fail

__all__ = ["terminate"]

_MOST_CHANNELS = 100
"""The largest number of presence channels that the command searches for the user. It doesn't search more."""


class _Outcome(NamedTuple):
    """The server's answer, and the presence channels that the user was on before and after the request.

    The channels are None if they are not known."""

    before: list[str] | None
    is_accepted: bool
    """False if the server answered 500."""
    after: list[str] | None


@takes_server(with_app_id=True)
def terminate(
    given: Given,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    as_json: AsJson = False,
) -> None:
    """Close all connections of a user.

    These are the connections with this id on a presence channel, and those that have signed in with it. A program
    that reconnects comes back.

    **Do not use it with Reverb 1.10 and scaling** (`REVERB_SCALING_ENABLED=true`): the request ends the process of
    each server that has a connection without a user id.

    Without scaling, Reverb 1.10 closes connections one after another. It answers with error 500 at the first
    connection that was never on a presence channel, and does not close the rest. So the command searches the
    presence channels for the user before and after. The exit code is 4 if the user is still on one.
    """
    outcome = ask(lambda api: _terminate(api, user), given)
    sentence, is_done = _explain(user, outcome)
    still_on = outcome.after
    fields = {"user_id": user, "confirmed": is_done and not still_on, "still_on": still_on}
    if is_done or as_json:
        show([fields], sentence, as_json=as_json)
    if not is_done:
        raise fail(sentence, ExitCode.REFUSED)


async def _terminate(api: ReverbAPI, user: str) -> _Outcome:
    before, is_accepted = await _find(api, user), True
    try:
        await api.terminate_user(user)
    except APIError as error:
        if error.status != 500:
            raise
        is_accepted = False
    except ConnectionError as error:
        raise _with_hint(error) from None
    try:
        return _Outcome(before, is_accepted, await _find(api, user))
    except (ConnectionError, TimeoutError) as error:
        raise _with_hint(error) from None


def _with_hint(error: Exception) -> ConnectionError:
    """Name the known cause: the server answered before the request, and now it does not."""
    return ConnectionError(
        f"{error}; with REVERB_SCALING_ENABLED=true, this request ends the process of Reverb 1.10: check whether "
        "it still runs"
    )


async def _find(api: ReverbAPI, user: str) -> list[str] | None:
    """Return the presence channels that a user is on, or None if they are too many or the server refuses."""
    try:
        names = sorted(await api.channels("presence-"))
        if len(names) > _MOST_CHANNELS:
            return None
        users = await asyncio.gather(*map(api.users, names))
    except APIError:
        return None
    return [name for name, ids in zip(names, users, strict=True) if user in ids]


def _explain(user: str, outcome: _Outcome) -> tuple[str, bool]:
    """Describe the result, and return whether the connections are closed."""
    before, is_accepted, after = outcome
    done, channels = f"closed the connections of user {user}", ", ".join(after or [])
    if is_accepted:
        if after:
            return (
                f"the server accepted the request, but user {user} is on {channels}: the user has come back, or "
                "the server has not closed the connections yet",
                True,
            )
        if before == []:
            return f"{done}, if there were any: no user with this id was on a presence channel", True
        return done, True
    if after:
        return (
            f"the server answered 500, and user {user} is still on {channels}: Reverb 1.10 stops at the first "
            "connection that was never on a presence channel, and does not close the rest",
            False,
        )
    if after is None or before is None:
        return f"the server answered 500; it is not known whether it closed connections of user {user}", False
    if before == []:
        return f"the server answered 500; user {user} was on no presence channel, so nothing was closed", False
    return f"{done}; the server answered 500, but the user is on no presence channel any more", True
