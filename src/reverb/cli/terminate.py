"""``reverb terminate``: end the connections of a user."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import APIError, ReverbAPI
from .asking import ask
from .options import AppId, AsJson, Host, Key, PathPrefix, Port, Scheme
from .output import show

__all__ = ["terminate"]


def terminate(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    as_json: AsJson = False,
    host: Host = None,
    port: Port = None,
    app_id: AppId = None,
    key: Key = None,
    scheme: Scheme = None,
    path: PathPrefix = None,
) -> None:
    """End all connections of a user.

    That is of who has this id on a presence channel, or has signed in with it. Reverb 1.10 ends them and then
    answers with error 500, which is said, and no failure here.

    The server and the application are those of the `REVERB_…` variables, in the environment or in the file `.env`;
    the options here go before them. There is no option for the secret: set `REVERB_APP_SECRET`.
    """

    async def question(api: ReverbAPI) -> bool:
        try:
            await api.terminate_user(user)
        except APIError as error:
            if error.status != 500:
                raise
            return False
        return True

    confirmed = ask(
        question,
        host=host,
        port=port,
        app_id=app_id,
        app_key=key,
        scheme=scheme,
        path=path,
    )
    sentence = f"ended the connections of user {user}"
    if not confirmed:
        sentence += "; not confirmed: the server answered 500, as Reverb 1.10 does when it has ended them"
    show([{"user_id": user, "confirmed": confirmed}], sentence, as_json=as_json)
