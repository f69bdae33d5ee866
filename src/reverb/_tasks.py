"""How this package starts tasks of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from .exceptions import ReverbError, again

T = TypeVar("T")

runs_for: ContextVar[object | None] = ContextVar("reverb_runs_for", default=None)
"""The worker in whose handler the running code is, directly or in a task that the handler has started."""


def spawn(coro: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start a task of our own on the running loop. Its first step comes with a later turn of the loop.

    The loop's task factory is not asked. An eager one (``asyncio.eager_task_factory``, Python 3.12) runs the first
    step at once: handlers would run inside the callback of the socket, and our tasks inside the call that starts
    them, before it knows them. Factories of 3.12 and 3.13 can't be told not to.

    Nor does the task belong to the handler that happens to run now: see :data:`runs_for`.
    """
    start = partial(asyncio.Task, coro, loop=asyncio.get_running_loop(), name=name)
    if runs_for.get() is None:
        return start()
    context = copy_context()
    context.run(runs_for.set, None)
    return context.run(start)


def resolve(waiter: asyncio.Future[None], error: ReverbError | None) -> None:
    """End a wait, well or with an ``error``; does nothing where it has ended already."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(again(error))
        waiter.exception()  # there may be nobody left to see it
