"""How commands send a request to the HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from .. import APIError, ReverbAPI
from .options import Given, configure
from .process import complete, exit_on_error, exit_on_unsendable
from .view import printable

__all__ = ["ALL_INFO", "ask", "with_info"]

T = TypeVar("T")

ALL_INFO = "subscription_count,user_count"
"""All attributes that servers have for channels."""
_SPINNER_DELAY = 0.5
"""Seconds without an answer before the terminal shows that the command waits."""


async def with_info(request: Callable[[str | None], Awaitable[T]], info: str) -> T:
    """Ask for channels with the attributes ``info``, or without attributes where the server refuses these.

    Pusher counts users on presence channels only, and subscriptions only where that is enabled."""
    try:
        return await request(info)
    except APIError as error:
        if error.status != 400:
            raise
    return await request(None)


def ask(request: Callable[[ReverbAPI], Awaitable[T]], given: Given) -> T:
    """Call the HTTP API and return its answer. On an error, exit with a message and the exit code for it."""
    answers: list[T] = []

    async def work() -> None:
        console = Console(stderr=True)
        waiting = console.status(Text(f"waiting for {printable(config.address)} …"))
        timer = asyncio.get_running_loop().call_later(_SPINNER_DELAY, waiting.start)
        try:
            async with ReverbAPI(config) as api:
                with exit_on_unsendable():
                    answers.append(await request(api))
        finally:
            timer.cancel()
            waiting.stop()

    with exit_on_error():
        config = configure(given)
        complete(work())
    return answers[0]
