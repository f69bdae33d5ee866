"""How this package starts its own tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from .exceptions import ReverbError, again

T = TypeVar("T")

runs_for: ContextVar[object | None] = ContextVar("reverb_runs_for", default=None)
"""The worker whose handler runs now, directly or in a task that the handler has started."""


def spawn(coro: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """Start a task of our own on the running loop. Its first step runs in a later turn of the loop.

    The loop's task factory is not used. An eager one (``asyncio.eager_task_factory``, Python 3.12) runs the first
    step at once: handlers would then run inside the callback of the socket, and our tasks inside the call that
    starts them, before it has stored them. The factories of 3.12 and 3.13 have no argument against that.

    The task does not belong to the handler that runs now: see :data:`runs_for`.
    """
    start = partial(asyncio.Task, coro, loop=asyncio.get_running_loop(), name=name)
    if runs_for.get() is None:
        return start()
    context = copy_context()
    context.run(runs_for.set, None)
    return context.run(start)


def resolve(waiter: asyncio.Future[None], error: ReverbError | None) -> None:
    """End a wait with success, or with an ``error``. Does nothing if it has ended already."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(again(error))
        waiter.exception()  # there may be no caller left to retrieve it
