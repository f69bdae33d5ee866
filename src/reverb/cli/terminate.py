"""``reverb terminate``: end the connections of a user."""

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
"""Presence channels that are asked for their users; where there are more, we don't look."""


class _Outcome(NamedTuple):
    """What is known. The channels are those that the user is on; None where they could not be looked at."""

    before: list[str] | None
    is_accepted: bool
    """False for the answer 500."""
    after: list[str] | None


@takes_server(with_app_id=True)
def terminate(
    given: Given,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    as_json: AsJson = False,
) -> None:
    """End all connections of a user.

    They are those that have this id on a presence channel, or have signed in with it.

    Reverb 1.10 often can't: at the first connection that was never on a presence channel it answers with error
    500, and what comes behind that one stays. So the presence channels are looked at before and after: the exit
    code is 4 if the user is still there. With scaling, this request ends the process of each Reverb 1.10 that
    holds a connection without a user id: don't use it there.
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
    """It was there before."""
    return ConnectionError(
        f"{error}; where REVERB_SCALING_ENABLED is true, this request ends the process of Reverb 1.10: see "
        "whether it runs"
    )


async def _find(api: ReverbAPI, user: str) -> list[str] | None:
    """Return the presence channels that a user is on, or None where the server doesn't tell."""
    try:
        names = sorted(await api.channels("presence-"))
        if len(names) > _MOST_CHANNELS:
            return None
        users = await asyncio.gather(*map(api.users, names))
    except APIError:
        return None
    return [name for name, ids in zip(names, users, strict=True) if user in ids]


def _explain(user: str, outcome: _Outcome) -> tuple[str, bool]:
    """Say what has become of the connections, and whether they are ended."""
    before, is_accepted, after = outcome
    done, channels = f"ended the connections of user {user}", ", ".join(after or [])
    if is_accepted:
        if after:
            return f"{done}, says the server; but the user is on {channels}: again, or still", True
        if before == []:
            return f"{done}, if there were any: nobody with this id was on a presence channel", True
        return done, True
    if after:
        return (
            f"the server answered 500, and user {user} is still on {channels}: Reverb 1.10 stops at the first "
            "connection that was never on a presence channel, and those behind it stay",
            False,
        )
    if after is None or before is None:
        return f"the server answered 500: whether it has ended any connection of user {user} is not known", False
    if before == []:
        return (
            f"the server answered 500: there was no user {user} on a presence channel, so nothing was ended",
            False,
        )
    return f"{done}; the server answered 500, but the user is on no presence channel any more", True
