"""The command ``reverb``. Needs the extra ``python-reverb[cli]``."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["main"]

_EXTRA = frozenset({"aiohttp", "click", "rich", "typer"})
"""What the extra brings, as import names."""


def main() -> None:
    """Run the command line; leave with its exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # events may hold what the terminal's encoding does not
    try:
        from .app import app

        app(prog_name="reverb")
    except SystemExit as end:
        cause = end.__context__
        if isinstance(cause, BrokenPipeError) and cause.__context__ is None:  # nobody reads --help to its end
            sys.exit(0)
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        print(
            f'reverb: the command line needs {package}, which is not installed: pip install "python-reverb[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:  # of the output, where a disk is full for instance: commands tell of all else
        from .process import silence

        silence()
        print(f"reverb: the output can't be written: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # before a command has taken charge of it
        sys.exit(130)
