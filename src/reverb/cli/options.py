"""Options that commands share: which server, which application."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from .. import ReverbConfig
from ..config import Settings

__all__ = ["Host", "Key", "PathPrefix", "Port", "Scheme", "configure"]

Host = Annotated[str | None, typer.Option("--host", help="Instead of REVERB_HOST.")]
Port = Annotated[int | None, typer.Option("--port", help="Instead of REVERB_PORT (443).")]
Key = Annotated[str | None, typer.Option("--key", help="The application's key, instead of REVERB_APP_KEY.")]
Scheme = Annotated[str | None, typer.Option("--scheme", help="wss or ws, instead of REVERB_SCHEME (wss).")]
PathPrefix = Annotated[str | None, typer.Option("--path", help="Before /app/ and /apps/, instead of REVERB_PATH.")]


def configure(**options: str | int | None) -> ReverbConfig:
    """Make the settings of the options that are given, and of the environment."""
    return ReverbConfig(**cast(Settings, {name: value for name, value in options.items() if value is not None}))
