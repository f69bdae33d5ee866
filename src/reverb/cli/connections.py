"""``reverb connections``: show how many connections the application has."""

from __future__ import annotations

from .asking import ask
from .options import AsJson, Given, takes_server
from .output import show
from .view import plural

__all__ = ["connections"]


@takes_server(with_app_id=True)
def connections(given: Given, as_json: AsJson = False) -> None:
    """Show how many connections the application has.

    soketi has no such request and answers 404.
    """
    count = ask(lambda api: api.connections(), given)
    show([{"connections": count}], plural(count, "connection"), as_json=as_json)
