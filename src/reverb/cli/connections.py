"""``reverb connections``: how many clients are connected."""

from __future__ import annotations

from .asking import ask
from .options import AppId, AsJson, Host, Key, PathPrefix, Port, Scheme
from .output import show

__all__ = ["connections"]


def connections(
    as_json: AsJson = False,
    host: Host = None,
    port: Port = None,
    app_id: AppId = None,
    key: Key = None,
    scheme: Scheme = None,
    path: PathPrefix = None,
) -> None:
    """Say how many connections the application has.

    soketi doesn't tell.

    The server and the application are those of the `REVERB_…` variables, in the environment or in the file `.env`;
    the options here go before them. There is no option for the secret: set `REVERB_APP_SECRET`.
    """
    count = ask(
        lambda api: api.connections(),
        host=host,
        port=port,
        app_id=app_id,
        app_key=key,
        scheme=scheme,
        path=path,
    )
    show([{"connections": count}], f"{count} connection{'' if count == 1 else 's'}", as_json=as_json)
