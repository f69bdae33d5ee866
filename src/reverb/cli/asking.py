"""Questions to the HTTP API, as commands ask them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from .. import APIError, ReverbAPI
from .options import Given, configure
from .process import complete, exit_on_error, unsendable
from .view import printable

__all__ = ["ALL_INFO", "ask", "with_info"]

T = TypeVar("T")

ALL_INFO = "subscription_count,user_count"
"""Everything that servers tell of channels."""
_PATIENCE = 0.5
"""Seconds before we say that we are waiting."""


async def with_info(question: Callable[[str | None], Awaitable[T]], info: str) -> T:
    """Ask for a channel, or for several, with what there is to know; without where the server does not tell that.

    Pusher counts users of presence channels only, and subscriptions where that is enabled."""
    try:
        return await question(info)
    except APIError as error:
        if error.status != 400:
            raise
    return await question(None)


def ask(question: Callable[[ReverbAPI], Awaitable[T]], given: Given) -> T:
    """Ask the HTTP API; return its answer, or end with a message and the exit code for what went wrong."""
    answers: list[T] = []

    async def work() -> None:
        console = Console(stderr=True)
        waiting = console.status(Text(f"Asking {printable(config.address)} …"))
        timer = asyncio.get_running_loop().call_later(_PATIENCE, waiting.start)
        try:
            async with ReverbAPI(config) as api:
                with unsendable():
                    answers.append(await question(api))
        finally:
            timer.cancel()
            waiting.stop()

    with exit_on_error():
        config = configure(given)
        complete(work())
    return answers[0]
