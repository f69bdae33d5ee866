"""``reverb connections``: how many clients are connected."""

from __future__ import annotations

from .asking import ask
from .options import AsJson, Given, takes_server
from .output import show
from .view import plural

__all__ = ["connections"]


@takes_server(with_app_id=True)
def connections(given: Given, as_json: AsJson = False) -> None:
    """Say how many connections the application has.

    soketi doesn't tell.
    """
    count = ask(lambda api: api.connections(), given)
    show([{"connections": count}], plural(count, "connection"), as_json=as_json)
