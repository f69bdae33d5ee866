"""``reverb terminate``: end the connections of a user."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import APIError, ReverbAPI
from .asking import ask
from .options import AsJson, Given, takes_server
from .output import show

__all__ = ["terminate"]


@takes_server(with_app_id=True)
def terminate(
    given: Given,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    as_json: AsJson = False,
) -> None:
    """End all connections of a user.

    They are those that have this id on a presence channel, or have signed in with it. Reverb 1.10 ends them and
    then answers with error 500, which is said, and no failure here.
    """

    async def question(api: ReverbAPI) -> bool:
        try:
            await api.terminate_user(user)
        except APIError as error:
            if error.status != 500:
                raise
            return False
        return True

    confirmed = ask(question, given)
    sentence = f"ended the connections of user {user}"
    if not confirmed:
        sentence += "; not confirmed: the server answered 500, as Reverb 1.10 does when it has ended them"
    show([{"user_id": user, "confirmed": confirmed}], sentence, as_json=as_json)
